"""The bundled model server: when it has started, and how one replica follows another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.chart.rendering import CHART, Helm, Manifest, by_kind

SCRIPTS = CHART / "files" / "ollama"


def _server(helm: Helm, **ollama: Any) -> Manifest:
    """The spec of the Deployment."""
    values = {
        "ollama": {"enabled": True, "models": ["m"], **ollama},
        "model": {"provider": "ollama", "name": "m"},
    }
    found: Manifest = by_kind(helm.template(values=values), "Deployment")["selfheal-ollama"]["spec"]
    return found


def _probe(helm: Helm, **ollama: Any) -> Manifest:
    [container] = _server(helm, **ollama)["template"]["spec"]["containers"]
    probe: Manifest = container["startupProbe"]
    return probe


@pytest.mark.parametrize("seconds", [30, 1200])
def test_a_replica_has_startup_seconds_and_no_more(helm: Helm, seconds: int) -> None:
    probe = _probe(helm, startupSeconds=seconds)
    assert probe["failureThreshold"] * probe["periodSeconds"] == seconds
    # The next probe begins when the one before is over.
    assert probe["timeoutSeconds"] <= probe["periodSeconds"]


class Slow(ThreadingHTTPServer):
    """A model server that loads its model until it is notified that it is loaded."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.loading, self.loaded = Event(), Event()
        #: What the requests are answered with, in their order.
        self.statuses = [500, 200]


class _Handler(BaseHTTPRequestHandler):
    server: Slow

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(body.decode())
        self.server.loading.set()
        self.server.loaded.wait()
        self.send_response(self.server.statuses[len(self.server.asked) - 1])
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def slow() -> Iterator[Slow]:
    with Slow() as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.loaded.set()
        server.shutdown()


@pytest.fixture
def container(slow: Slow, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The container's process, in a home with the answer of a start before."""
    (tmp_path / "answered").touch()
    for name in ("serve.sh", "answers.sh"):
        text = (SCRIPTS / name).read_text(encoding="utf-8")
        text = text.replace("11434", str(slow.server_port)).replace("sleep 5", "sleep 0")
        (tmp_path / name).write_text(text, encoding="utf-8")
    program = tmp_path / "ollama"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nif sys.argv[1] == 'serve': sys.stdin.read()\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    with subprocess.Popen(
        ["/bin/bash", str(tmp_path / "serve.sh"), "m"],
        env=_environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        # As the end of a container's first process does with the others.
        os.killpg(process.pid, signal.SIGKILL)


def _environment(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "PATH": f"{home}:{os.environ['PATH']}"}


def test_a_model_is_loaded_once_however_many_probes_that_takes(
    helm: Helm, slow: Slow, container: subprocess.Popen[str], tmp_path: Path
) -> None:
    command = _probe(helm)["exec"]["command"]

    def probe() -> int:
        return subprocess.run(command, env=_environment(tmp_path), capture_output=True).returncode

    slow.loading.wait()
    assert [probe() for _ in range(3)] == [1, 1, 1]
    assert len(slow.asked) == 1
    slow.loaded.set()
    assert container.stdout is not None
    assert container.stdout.readline() == "m has answered\n"
    assert probe() == 0
    # A load that failed was tried again.
    assert len(slow.asked) == 2


@pytest.mark.parametrize(
    ("persistence", "replaced"),
    [
        ({}, False),
        ({"enabled": True}, False),
        ({"enabled": True, "accessModes": ["ReadWriteOnce"]}, True),
        ({"enabled": True, "existingClaim": "models"}, True),
    ],
)
def test_a_volume_of_one_node_is_let_go_before_another_replica_takes_it(
    helm: Helm, persistence: Manifest, replaced: bool
) -> None:
    """Else the new one waits on another node for the volume, and the old one for the new one."""
    spec = _server(helm, persistence=persistence, autoscaling={"enabled": False})
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == (1 if replaced else 0)
