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
    parser = _parser()
    asked = parser.parse_args(arguments)
    try:
        if asked.command == "version":
            if asked.version:
                version.change(asked.version)
            print(version.check())
            return 0
        signing = _signing(parser, asked)
        for file in artefacts.build(version.check(), asked.folder, signing):
            print(f"{file.stat().st_size / 1e6:8.2f} MB  {file}")
    except (ReleaseError, PartsError, ImagesError, OSError) as error:
        print(f"ci.release: {error}", file=sys.stderr)
        return 1
    return 0


def _signing(
    parser: argparse.ArgumentParser, asked: argparse.Namespace
) -> artefacts.Signing | None:
    if bool(asked.key) != bool(asked.keyring):
        parser.error("--key and --keyring are given together, or neither")
    if asked.key:
        return artefacts.Signing(asked.key, asked.keyring, asked.passphrase_file)
    return None


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
    build.add_argument("--key", help="sign the chart with this PGP key (a name or an address)")
    build.add_argument("--keyring", type=Path, help="the file with the secret key, not armoured")
    build.add_argument("--passphrase-file", type=Path, help="default: the key has none")
    named = commands.add_parser("version", help="print the version; with one given, write it first")
    named.add_argument("version", nargs="?", help="for example 0.2.0 or 0.2.0-rc.1")
    return parser


if __name__ == "__main__":
    sys.exit(main())
