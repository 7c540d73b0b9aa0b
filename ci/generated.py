"""Command lines of what generates files: `write` makes them again, `check` names the stale ones."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_or_check(
    module: str,
    about: str | None,
    generated: Callable[[], Mapping[Path, str]],
    argv: list[str] | None = None,
) -> int:
    """Returns the exit status: 0, or 1 when a file is stale.

    module: whose command line it is; about: its docstring; generated: the content of each file, by
    its path (in the repository, where it is relative).
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("command", choices=["write", "check"])
    command = parser.parse_args(argv).command
    stale = 0
    for place, text in generated().items():
        path = ROOT / place
        name = path.relative_to(ROOT)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if command == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
        else:
            print(f"{name} is stale: run `python -m {module} write`")
    return 1 if stale and command == "check" else 0
