"""Starts many processes of the remediator quickly: forked from one that has imported everything.

Each is a process of its own, with its own environment and log, and is killed like any other;
only the second that Python needs to import the program is spent once. `python -m
tests.control_plane.launcher` is the process that forks: orders come as lines of JSON by its
standard input, what became of them goes out by its standard output.
"""

import json
import os
import random
import selectors
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE = 120.0


class Launched:
    """One process, with the methods of subprocess.Popen that tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def ended(self, status: int) -> None:
        """Sent by the launcher: the exit status, negative for a signal."""
        self.returncode = status
        self._ended.set()

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        return self.returncode

    def wait(self, seconds: float = PATIENCE) -> int:
        """The exit status once it has ended. Raises TimeoutError."""
        if not self._ended.wait(seconds):
            raise TimeoutError(f"process {self.pid} has not ended within {seconds:g}s")
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing when it has ended already."""
        if self.returncode is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)


class Launcher:
    """The process that forks the others; thread-safe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.control_plane.launcher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        self._started: list[Launched] = []
        self._news = threading.Condition()
        self._known: dict[int, Launched] = {}
        self._over = False
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, arguments: Sequence[str], env: Mapping[str, str], log: Path) -> Launched:
        """Run `selfheal-remediator ARGUMENTS` with exactly this environment."""
        order = {"arguments": list(arguments), "env": dict(env), "log": str(log)}
        with self._lock, self._news:
            before = len(self._started)
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            self._news.wait_for(lambda: len(self._started) > before or self._over, PATIENCE)
            if len(self._started) == before:
                raise RuntimeError("no process was started: see what the launcher wrote above")
            return self._started[-1]

    def close(self) -> None:
        """End the launcher; what it started is ended first."""
        for process in self._started:
            process.send_signal(signal.SIGKILL)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended by itself, and said why
            self._process.stdin.close()
        self._process.wait(30)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                said = json.loads(line)
                with self._news:
                    if "status" in said:
                        self._known.pop(said["pid"]).ended(said["status"])
                    else:
                        process = self._known[said["pid"]] = Launched(said["pid"])
                        self._started.append(process)
                    self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()


# -- in the process that forks -------------------------------------------------------------


def _serve() -> None:
    from selfheal_remediator import __main__ as program
    from selfheal_remediator.threads.runtime import REAL

    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    rest = b""
    while True:
        for key, _ in selector.select():
            if key.fd == wake:
                os.read(wake, 4096)
                _reap()
                continue
            data = os.read(0, 1 << 16)
            if not data:
                return
            *orders, rest = (rest + data).split(b"\n")
            for order in orders:
                _fork(program, REAL.random, json.loads(order), (wake, waker))


def _say(value: dict[str, int]) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say({"pid": pid, "status": os.waitstatus_to_exitcode(status)})


def _fork(
    program: Any, numbers: random.Random, order: dict[str, Any], private: tuple[int, int]
) -> None:
    pid = os.fork()
    if pid:
        _say({"pid": pid})
        return
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in private:
            os.close(fd)
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.environ.clear()
        os.environ.update(order["env"])
        # Else all draw the same numbers, and give their Events the same names.
        numbers.seed()
        random.seed()
        code = program.main(order["arguments"])
        sys.stdout.flush()
    except SystemExit as end:
        code = int(end.code or 0)
    except Exception:  # noqa: BLE001 - a child must end here, and say why
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
