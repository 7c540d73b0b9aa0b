"""Says what is being built, for how long, and what is left. On a terminal the line is rewritten."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO


class Progress(Protocol):
    """Told what is being worked on."""

    def working(self, part: str, left: Sequence[str]) -> AbstractContextManager[None]:
        """Reports while the block runs, in which `part` is made; `left` are still to come."""
        ...


def progress_line(part: str, seconds: float, left: Sequence[str]) -> str:
    """`building kubelet: 40 s so far; then kube-proxy, kwok`."""
    then = f"; then {', '.join(left)}" if left else ""
    return f"building {part}: {seconds:.0f} s so far{then}"


def done_line(part: str, seconds: float) -> str:
    """`built kubelet in 41 s`."""
    return f"built {part} in {seconds:.0f} s"


class Console:
    """Progress to a stream: a line rewritten each second on a terminal, one each 15 s in a log."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()

    @contextmanager
    def working(self, part: str, left: Sequence[str]) -> Iterator[None]:
        """Reports from a thread of its own until the block ends."""
        started = time.monotonic()
        ended = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(part, left, started, ended), daemon=True)
        self._say(progress_line(part, 0, left), last=False)
        ticker.start()
        succeeded = False
        try:
            yield
            succeeded = True
        finally:
            ended.set()
            ticker.join()
            seconds = time.monotonic() - started
            what = done_line(part, seconds) if succeeded else f"{part} failed after {seconds:.0f} s"
            self._say(what, last=True)

    def _tick(self, part: str, left: Sequence[str], started: float, ended: threading.Event) -> None:
        while not ended.wait(1 if self._live else 15):
            self._say(progress_line(part, time.monotonic() - started, left), last=False)

    def _say(self, line: str, *, last: bool) -> None:
        text = f"\r\x1b[K{line}" if self._live else line
        self._stream.write(text + ("\n" if last or not self._live else ""))
        self._stream.flush()
