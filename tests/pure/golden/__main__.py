"""`python -m tests.pure.golden write [WORD...]`: write the golden files again (those with a word in
their path, else all), and say which changed."""

from __future__ import annotations

import logging
import sys

from tests.pure.golden import goldens


def main(arguments: list[str]) -> int:
    """Returns the exit status."""
    if arguments[:1] != ["write"]:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    logging.disable(logging.CRITICAL)
    files = goldens.everything()
    for path in {*goldens.FILES.rglob("*.txt")} - files.keys():
        path.unlink()
        sys.stdout.write(f"removed {path.relative_to(goldens.FILES)}\n")
    for path, make in files.items():
        name = str(path.relative_to(goldens.FILES))
        if arguments[1:] and not any(word in name for word in arguments[1:]):
            continue
        if goldens.write(path, make):
            sys.stdout.write(f"changed {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
