"""Says what is being built, for how long, and how much is left.

On a terminal one line is rewritten each second; in a log each part has one line.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, TextIO

from ci.versions import cache_root


class Progress(Protocol):
    """Notified of what is being worked on."""

    def working(self, part: str, left: Sequence[str]) -> AbstractContextManager[None]:
        """Reports while the block runs, in which `part` is made; `left` are still to come."""
        ...


def begin_line(part: str, left: int, last: float | None) -> str:
    """`building kubelet (25 more to build, took 41 s last time)`."""
    notes = [f"{left} more to build"] if left else []
    notes += [f"took {last:.0f} s last time"] if last is not None else []
    return f"building {part}" + (f" ({', '.join(notes)})" if notes else "")


def done_line(part: str, seconds: float) -> str:
    """`built kubelet in 41 s`."""
    return f"built {part} in {seconds:.0f} s"


class Durations:
    """How long each part took when it was built last: a file of seconds by name.

    What cannot be read or written is left out: it is for the reader's patience only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, float]:
        """Seconds by part."""
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(part): float(seconds) for part, seconds in known.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def note(self, part: str, seconds: float) -> None:
        """The part was built in so many seconds."""
        known = self.read() | {part: round(seconds, 1)}
        temporary = self._path.with_suffix(".part")
        try:
            temporary.write_text(json.dumps(known, indent=1, sort_keys=True), encoding="utf-8")
            temporary.rename(self._path)
        except OSError:
            return


class Console:
    """Progress to a stream; see the module."""

    def __init__(self, stream: TextIO | None = None, durations: Durations | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._durations = durations or Durations(cache_root() / "durations.json")

    @contextmanager
    def working(self, part: str, left: Sequence[str]) -> Iterator[None]:
        """Reports from a thread of its own until the block ends."""
        line = begin_line(part, len(left), self._durations.read().get(part))
        started = time.monotonic()
        ended = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(line, started, ended), daemon=True)
        self._write(f"\r\x1b[K{line}" if self._live else f"{line} ... ")
        if self._live:
            ticker.start()
        succeeded = False
        try:
            yield
            succeeded = True
        finally:
            ended.set()
            if self._live:
                ticker.join()
            self._end(part, time.monotonic() - started, succeeded=succeeded)

    def _end(self, part: str, seconds: float, *, succeeded: bool) -> None:
        if succeeded:
            self._durations.note(part, seconds)
        if self._live:
            failed = f"{part} failed after {seconds:.0f} s"
            self._write(f"\r\x1b[K{done_line(part, seconds) if succeeded else failed}\n")
        else:
            self._write(f"{'done in' if succeeded else 'failed after'} {seconds:.0f} s\n")

    def _tick(self, line: str, started: float, ended: threading.Event) -> None:
        while not ended.wait(1):
            self._write(f"\r\x1b[K{line}: {time.monotonic() - started:.0f} s so far")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
