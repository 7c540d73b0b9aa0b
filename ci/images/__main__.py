"""Builds the container images that the local cluster runs, into the user's cache."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ci.images import catalog
from ci.images.build import Image, ensure, found
from ci.images.errors import ImagesError
from ci.ollama import OllamaFailed
from ci.parts import PartsError
from ci.pypi import FetchFailed


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 when it succeeded, 1 with a message on stderr when it did not,
    130 when it was stopped."""
    asked = _parser().parse_args(arguments)
    names = asked.names or list(catalog.NAMES)
    if unknown := sorted(set(names) - set(catalog.NAMES)):
        there = ", ".join(catalog.NAMES)
        named = ", ".join(map(repr, unknown))
        print(f"ci.images: no image {named}; there are {there}", file=sys.stderr)
        return 1
    try:
        if asked.command == "build":
            _print(dict(ensure(names)), asked.output)
        else:
            _print({name: _known(name) for name in names}, asked.output)
    except (ImagesError, PartsError, OllamaFailed, FetchFailed, OSError) as error:
        print(f"ci.images: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ci.images: stopped; what was built is kept", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ci.images",
        description=__doc__,
        epilog=f"Images: {', '.join(catalog.NAMES)}. With a docker engine, or without root: "
        "docker build -f worker/Dockerfile . (and remediator/Dockerfile) makes the same.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("build", "build images that have changed, and print them"),
        ("list", "print name, reference and archive of each image, built or not"),
        ("sizes", "print the size of each image that is built"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("names", nargs="*", metavar="NAME", help="default: all")
        command.add_argument(
            "-o", "--output", choices=("text", "json"), default="text", help="default: text"
        )
    return parser


def _known(name: str) -> Image | None:
    plan = catalog.plan(name)
    return found(plan) if plan.path.exists() else None


def _print(images: dict[str, Image | None], output: str) -> None:
    if output == "json":
        print(json.dumps({name: _data(name, image) for name, image in images.items()}, indent=2))
        return
    for name, image in images.items():
        size = f"{image.size_bytes / 1e6:7.1f} MB" if image else "not built "
        print(f"{name:<22} {size}  {image.ref if image else catalog.plan(name).ref}")


def _data(name: str, image: Image | None) -> dict[str, object]:
    if image is None:
        return {"ref": catalog.plan(name).ref, "archive": None, "size_bytes": None}
    return {"ref": image.ref, "archive": str(image.archive), "size_bytes": image.size_bytes}


if __name__ == "__main__":
    sys.exit(main())
