"""`python -m ci.pictures.terminal RECORDING`: docs/demo.svg, what a terminal shows of a demo.

A recording is what `script --quiet --command "make demo" RECORDING` writes.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.console import Console

_ROOT = Path(__file__).parents[2]
_WIDTH = 120  # columns
_WEB_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_BEGIN = "▸ "  # of the first step; before it stand make's own lines


def main() -> int:
    """Exit status 0: drawn; 1: the recording has no steps."""
    parser = argparse.ArgumentParser(prog="python -m ci.pictures.terminal", description=__doc__)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--out", type=Path, default=_ROOT / "docs" / "demo.svg", metavar="FILE")
    options = parser.parse_args()
    recorded = options.recording.read_bytes().decode()  # with each carriage return
    try:
        picture = draw(recorded)
    except ValueError as error:
        print(f"pictures: {options.recording}: {error}", file=sys.stderr)
        return 1
    options.out.write_text(picture, encoding="utf-8")
    return 0


def draw(recorded: str) -> str:
    """An SVG of the recorded lines as they stood at the end, from the first step on.

    It asks no server for fonts. Raises ValueError where there is no step.
    """
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    shown = False
    for line in AnsiDecoder().decode(recorded.replace("\r\n", "\n")):
        shown = shown or line.plain.startswith(_BEGIN)
        if shown and not line.plain.startswith("Script done"):
            console.print(line)
    if not shown:
        raise ValueError(f"no line begins with {_BEGIN!r}: it is no recording of a demo")
    return _WEB_FONTS.sub("", console.export_svg(title="make demo"))


if __name__ == "__main__":
    sys.exit(main())
