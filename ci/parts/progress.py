"""Says what is built or downloaded, which of how many it is, for how long, and how long it took.

On a terminal one line is rewritten each second, from the first part to the last; in a log each part
has one line.
"""

import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal, Protocol, TextIO

from ci.versions import cache_root

Doing = Literal["building", "downloading"]
_DONE: Mapping[Doing, str] = {"building": "built", "downloading": "downloaded"}


class Progress(Protocol):
    """Notified of what is being worked on."""

    def working(
        self, part: str, number: int = 1, total: int = 1, doing: Doing = "building"
    ) -> AbstractContextManager[None]:
        """Reports while the block runs, in which `part` is made, the `number`th of `total`."""
        ...


def duration(seconds: float) -> str:
    """`41 s`, and from two minutes on `4 min 32 s`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def begin_line(
    part: str, number: int, total: int, last: float | None, doing: Doing = "building"
) -> str:
    """`building kubelet (4 of 29, took 41 s last time)`."""
    notes = [f"{number} of {total}"] if total > 1 else []
    notes += [f"took {duration(last)} last time"] if last is not None else []
    return f"{doing} {part}" + (f" ({', '.join(notes)})" if notes else "")


def live_line(begun: str, seconds: float) -> str:
    """`building kubelet (4 of 29, took 41 s last time): 12 s so far`."""
    return f"{begun}: {duration(seconds)} so far"


def end_line(part: str, number: int, total: int, seconds: float, doing: Doing = "building") -> str:
    """`built kubelet (4 of 29) in 41 s`."""
    place = f" ({number} of {total})" if total > 1 else ""
    return f"{_DONE[doing]} {part}{place} in {duration(seconds)}"


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
    def working(
        self, part: str, number: int = 1, total: int = 1, doing: Doing = "building"
    ) -> Iterator[None]:
        """Reports from a thread of its own until the block ends."""
        line = begin_line(part, number, total, self._durations.read().get(part), doing)
        started = time.monotonic()
        ended = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(line, started, ended), daemon=True)
        if self._live:
            self._rewrite(line)
            ticker.start()
        else:
            self._write(f"{line} ... ")
        succeeded = False
        try:
            yield
            succeeded = True
        finally:
            ended.set()
            if self._live:
                ticker.join()
            seconds = time.monotonic() - started
            if succeeded:
                self._durations.note(part, seconds)
            last = number == total
            self._end(part, end_line(part, number, total, seconds, doing), seconds, succeeded, last)

    def _end(self, part: str, line: str, seconds: float, succeeded: bool, last: bool) -> None:
        if not self._live:
            self._write(f"{'done in' if succeeded else 'failed after'} {duration(seconds)}\n")
        elif succeeded:
            self._rewrite(line)
            self._write("\n" if last else "")
        else:
            self._rewrite(f"{part} failed after {duration(seconds)}")
            self._write("\n")

    def _tick(self, line: str, started: float, ended: threading.Event) -> None:
        while not ended.wait(1):
            self._rewrite(live_line(line, time.monotonic() - started))

    def _rewrite(self, line: str) -> None:
        # A line that wraps could not be taken back.
        width = shutil.get_terminal_size().columns - 1
        self._write(f"\r\x1b[K{line[:width]}")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
