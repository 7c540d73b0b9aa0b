"""What a person sees while the demo runs: steps with their times, and a live line under each.

On a terminal the live line is redrawn in place; in a log it is printed when it changes, at most
every few seconds, so that a log stays short and complete.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

_BOLD, _DIM, _GREEN, _RED, _RESET = "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m"
_LOG_SECONDS = 10.0  # between two live lines of one step in a log


@dataclass
class Console:
    """Writes steps to `out`; `clock` gives seconds (monotonic)."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    clock: Callable[[], float] = time.monotonic
    timings: dict[str, float] = field(default_factory=dict)
    _live: str = ""
    _live_printed: float = float("-inf")
    _step_started: float = field(init=False)

    def __post_init__(self) -> None:
        self._step_started = self.clock()

    @property
    def interactive(self) -> bool:
        return self.out.isatty()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step of the story; its seconds go to `timings` under its title."""
        started = self._step_started = self.clock()
        self._live_printed = float("-inf")
        self._print(self._style(_BOLD, f"▸ {title}"))
        try:
            yield
        except BaseException:
            self._clear_live()
            self._print(self._style(_RED, f"  ✗ failed after {self.clock() - started:.1f} s"))
            raise
        seconds = self.clock() - started
        self.timings[title] = round(seconds, 1)
        self._clear_live()
        self._print(self._style(_GREEN, "  ✓ ") + self._style(_DIM, f"{seconds:.1f} s"))

    def say(self, text: str) -> None:
        """A line that stays, with the seconds since the step began."""
        self._clear_live()
        self._print(f"  {self._elapsed()}  {text}")

    def live(self, text: str) -> None:
        """What is happening now."""
        if self.interactive:
            self._clear_live()
            # A line that wraps could not be taken back.
            width = shutil.get_terminal_size().columns - 1
            self._live = f"  {self._elapsed()}  {text}"[:width]
            self.out.write(self._style(_DIM, self._live))
            self.out.flush()
        elif text != self._live and self.clock() - self._live_printed >= _LOG_SECONDS:
            self._live, self._live_printed = text, self.clock()
            self._print(f"  {self._elapsed()}  {text}")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A small table; columns that hold only numbers are set to the right."""
        self._clear_live()
        widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
        right = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]
        for number, row in enumerate([header, *rows]):
            cells = [
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(row, widths, right, strict=True)
            ]
            line = "     " + "  ".join(cells).rstrip()
            self._print(self._style(_DIM, line) if number == 0 else line)

    def conclusion(self, text: str, good: bool) -> None:
        """The last line: plain in a log, so that a program can search for it."""
        self._clear_live()
        self._print(self._style(_GREEN if good else _RED, text))

    def _elapsed(self) -> str:
        return f"{self.clock() - self._step_started:6.1f} s"

    def _style(self, code: str, text: str) -> str:
        return f"{code}{text}{_RESET}" if self.interactive else text

    def _clear_live(self) -> None:
        if self.interactive and self._live:
            self.out.write("\r\033[K")
        self._live = ""

    def _print(self, text: str) -> None:
        self.out.write(text + "\n")
        self.out.flush()


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("%", "", 1).replace("-", "", 1).isdigit()
