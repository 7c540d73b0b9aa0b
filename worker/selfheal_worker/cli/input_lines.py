"""The lines of a file that a command reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path


def input_lines(file: str) -> Iterator[bytes]:
    """Each without its line break; "-" is stdin."""
    stream = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115
    with stream:
        for line in stream:
            yield line.rstrip(b"\r\n")
