"""Builds what a release consists of, or writes a new version in all places that name it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ci.images.errors import ImagesError
from ci.parts import PartsError
from ci.release import artefacts, version
from ci.release.version import ROOT, ReleaseError


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when it is done, 1 with a message on stderr when not."""
    asked = _parser().parse_args(arguments)
    try:
        if asked.command == "version":
            if asked.version:
                version.change(asked.version)
            print(version.check())
            return 0
        for file in artefacts.build(version.check(), asked.folder):
            print(f"{file.stat().st_size / 1e6:8.2f} MB  {file}")
    except (ReleaseError, PartsError, ImagesError, OSError) as error:
        print(f"ci.release: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ci.release", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "build", help="the chart's package, the wheel, the images' archives"
    )
    build.add_argument(
        "--folder",
        type=Path,
        default=ROOT / "dist",
        help="default: dist/; a release in it is replaced, anything else is refused",
    )
    named = commands.add_parser("version", help="print the version; with one given, write it first")
    named.add_argument("version", nargs="?", help="for example 0.2.0 or 0.2.0-rc.1")
    return parser


if __name__ == "__main__":
    sys.exit(main())
