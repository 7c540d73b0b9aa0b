"""A Prometheus on this machine while a block runs, such as one that holds the made-up night of
`sample`."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ci.cluster.errors import ClusterError
from ci.cluster.prometheus import Prometheus
from ci.parts import ensure
from ci.pictures import sample
from ci.pictures.drawing import PicturesError
from ci.pictures.queries import Span
from ci.pictures.series import END, START, STEP

#: All of the sample.
SAMPLED = Span(START, END, STEP)
_SECONDS = 60


@contextmanager
def serving(home: Path, configuration: str, *options: str) -> Iterator[Prometheus]:
    """A server with its files in the folder `home`. Raises PicturesError when it does not start,
    and PartsError."""
    program = ensure(["prometheus"])["prometheus"]
    (home / "prometheus.yaml").write_text(configuration)
    address = f"127.0.0.1:{_free_port()}"
    arguments = [
        f"--config.file={home / 'prometheus.yaml'}",
        f"--storage.tsdb.path={home / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
        *options,
    ]
    with (home / "log").open("w+") as log:
        server = subprocess.Popen([program, *arguments], cwd=home, stderr=log)
        try:
            prometheus = Prometheus(f"http://{address}", "", home)
            _wait(prometheus, server, home / "log")
            yield prometheus
        finally:
            server.terminate()
            server.wait()


@contextmanager
def sampled() -> Iterator[Prometheus]:
    """One that holds the sample. Raises PicturesError and PartsError."""
    programs = ensure(["prometheus", "promtool"])
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary, "prometheus")
        home.mkdir()
        text, data = home / "series.txt", home / "data"
        sample.write(text)
        command: list[str | Path] = [
            programs["promtool"],
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            text,
            data,
        ]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise PicturesError(f"promtool refuses the sample: {made.stderr.strip()}")
        configuration = f"global: {{scrape_interval: {STEP}s}}\n"
        with serving(home, configuration, "--storage.tsdb.retention.time=100y") as server:
            yield server


def _wait(prometheus: Prometheus, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _SECONDS
    while True:
        try:
            prometheus.query("1")
            return
        except ClusterError as error:
            if server.poll() is not None or time.monotonic() > until:
                raise PicturesError(f"Prometheus does not start: {log.read_text()}") from error
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
