"""A real `selfheal-worker run` as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# Generous: nothing waits for as long unless the machine is swamped, and then it is no failure.
WAIT = 120.0
PYTHON = (sys.executable, "-m", "selfheal_worker")


def environment(uri: str, **more: Any) -> dict[str, str]:
    """The environment of a worker in a test: short times, and no variable of our own shell."""
    base = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "AMQP_URI": uri,
        "HTTP_HOST": "127.0.0.1",
        "HTTP_PORT": "0",
        "LOG_LEVEL": "debug",
        "RETRY_DELAYS": "1,2",
        "SHUTDOWN_GRACE": "10",
    }
    return base | {name: str(value) for name, value in more.items()}


def command(
    env: Mapping[str, str], *argv: str, text: str | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run another command of selfheal-worker to its end."""
    return subprocess.run(
        [*PYTHON, *argv],
        env=dict(env),
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class WorkerProcess:
    """`selfheal-worker run`; its log lines are in a file."""

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*PYTHON, "run"],
                env=dict(env),
                stderr=stderr,
                stdout=subprocess.DEVNULL,
            )
        self.port = 0

    def lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue  # half a line: still being written
        return found

    def wait_event(
        self, event: str, seconds: float = WAIT, times: int = 1, **fields: Any
    ) -> dict[str, Any]:
        """Wait until the log says it."""

        def look() -> dict[str, Any] | None:
            hits = [
                line
                for line in self.lines()
                if line["event"] == event
                and all(str(value) in str(line.get(name)) for name, value in fields.items())
            ]
            return hits[times - 1] if len(hits) >= times else None

        found: dict[str, Any] = self.until(f"no log line {event!r} {fields}", look, seconds)
        return found

    def until(self, what: str, look: Callable[[], Any], seconds: float = WAIT) -> Any:
        end = time.monotonic() + seconds
        while not (found := look()):
            if self.process.poll() is not None and not look():
                raise AssertionError(f"{what}; the worker ended\n{self.log.read_text()[-4000:]}")
            if time.monotonic() > end:
                raise AssertionError(f"{what} in {seconds} s\n{self.log.read_text()[-4000:]}")
            time.sleep(0.02)
        return found

    def get(self, path: str) -> tuple[int, str]:
        if not self.port:
            self.port = self.wait_event("started")["http_port"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ready(self, seconds: float = WAIT) -> WorkerProcess:
        self.until("never ready", lambda: self.get("/readyz")[0] == 200, seconds)
        return self

    def ready_now(self) -> bool:
        """Whether it is ready at this moment; who has not come up yet, or has ended, is not."""
        try:
            return any(line["event"] == "started" for line in self.lines()) and (
                self.get("/readyz")[0] == 200
            )
        except OSError:
            return False

    def progress(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/progress")[1])
        return found

    def wait_in_flight(self, number: int, seconds: float = WAIT) -> None:
        self.until(
            f"never {number} in flight", lambda: self.progress()["in_flight"] == number, seconds
        )

    def metric(self, name: str) -> float:
        """The value of a sample, by its whole name with labels."""
        match = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        assert match, name
        return float(match[1])

    def terminate(self, seconds: float = 60) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
