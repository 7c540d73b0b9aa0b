"""docs/tested.md: `write` makes it of docs/tested.yaml, `check` says whether it is stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

DOCS = Path(__file__).resolve().parents[1] / "docs"
#: Page -> point (the words that begin its paragraph) -> tests, below tests/.
Tested = Mapping[str, Mapping[str, Sequence[str]]]

INTRODUCTION = """\
# The tests of each point

Each paragraph of the two pages begins with the words of the first column. `pure` are tests without
other processes, `control_plane` has a real API server, `cluster` has real nodes. `python -m ci.docs
write` generates this page from `tested.yaml`; a test checks that each test exists.
"""


def read(docs: Path = DOCS) -> Tested:
    found: Tested = yaml.safe_load((docs / "tested.yaml").read_text(encoding="utf-8"))
    return found


def title(page: str, docs: Path = DOCS) -> str:
    """The heading of a page."""
    return (docs / f"{page}.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def table(tested: Tested, titles: Mapping[str, str]) -> str:
    """The page as it should be."""
    parts = [INTRODUCTION]
    for page, points in tested.items():
        rows = [
            f"| {point} | {'<br>'.join(f'`{test}`' for test in tests)} |"
            for point, tests in points.items()
        ]
        head = f"## [{titles[page]}]({page}.md)\n\n| point | tests |\n|---|---|\n"
        parts.append(head + "\n".join(rows) + "\n")
    return "\n".join(parts)


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, or 1 when the page is stale."""
    parser = argparse.ArgumentParser(prog="python -m ci.docs", description=__doc__)
    parser.add_argument("command", choices=["write", "check"])
    command = parser.parse_args(argv).command
    tested = read()
    text, path = table(tested, {page: title(page) for page in tested}), DOCS / "tested.md"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return 0
    if command == "check":
        print("docs/tested.md is stale: run `python -m ci.docs write`", file=sys.stderr)
        return 1
    path.write_text(text, encoding="utf-8")
    print("wrote docs/tested.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
