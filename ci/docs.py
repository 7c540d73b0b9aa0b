"""What is generated in docs/: `write` makes it, `check` says whether it is stale.

`tested.md` comes from `tested.yaml`, the table of versions in `install.md` from `ci/versions.toml`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from ci.generated import ROOT, write_or_check
from ci.versions import pins

DOCS = ROOT / "docs"
#: Page -> point (the words that begin its paragraph) -> tests, below tests/.
Tested = Mapping[str, Mapping[str, Sequence[str]]]

INTRODUCTION = """\
# The tests of each point

Each paragraph of the two pages begins with the words of the first column. `pure` are tests without
other processes, `control_plane` has a real API server, `cluster` has real nodes. `python -m ci.docs
write` generates this page from `tested.yaml`; a test checks that each test exists.
"""


def read() -> Tested:
    found: Tested = yaml.safe_load((DOCS / "tested.yaml").read_text(encoding="utf-8"))
    return found


def title(page: str) -> str:
    """The heading of a page."""
    return (DOCS / f"{page}.md").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


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


BEGIN = "<!-- versions: made from ci/versions.toml by `python -m ci.docs write` -->\n"
END = "<!-- end -->\n"


def versions_table(pinned: Mapping[str, Mapping[str, str]]) -> str:
    """What is needed and what is tested, of the content of `versions.toml`."""
    go, debian, least = pinned["go"], pinned["debian"], pinned["supported"]
    tested = {
        "Kubernetes": [go["kubernetes"]],
        "Helm": [go["helm"], go["helm3"]],
        "KEDA": [go["keda"]],
        "RabbitMQ": [debian["rabbitmq"], debian["older_rabbitmq"]],
        "Ollama": [go["ollama"]],
        "node-problem-detector": [go["node-problem-detector"]],
        "Python": [least["python"]],
    }
    rows = []
    for name, versions in tested.items():
        needed = f"{least[name.lower()]} or newer" if name.lower() in least else ""
        rows.append(f"| {name} | {needed} | {', '.join(v.removeprefix('v') for v in versions)} |\n")
    return "".join(["| | needed | tested |\n", "|---|---|---|\n", *rows])


def with_versions(page: str, text: str) -> str:
    """The page with `text` between the two marks; ValueError if they are not there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs/install.md must have {BEGIN.strip()} and then {END.strip()}")
    return f"{before}{BEGIN}{text}{END}{after}"


def generated() -> dict[Path, str]:
    """The content of each page."""
    tested, install = read(), DOCS / "install.md"
    return {
        DOCS / "tested.md": table(tested, {page: title(page) for page in tested}),
        install: with_versions(install.read_text(encoding="utf-8"), versions_table(pins())),
    }


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, or 1 when a page is stale."""
    return write_or_check("ci.docs", __doc__, generated, argv)


if __name__ == "__main__":
    sys.exit(main())
