"""`python -m ci.parts build NAME… | list`: the command line of the parts' cache."""

import argparse
import sys

from ci.parts.archives import archive_of
from ci.parts.build import ensure, found
from ci.parts.errors import PartsError
from ci.parts.recipes import RECIPES
from ci.parts.toolchain import find
from ci.versions import pin


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: done; 1: a part could not be built; 2: wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "build":
            for name, path in ensure(options.parts or list(RECIPES)).items():
                print(f"{name}\t{path}")
        else:
            _list()
    except PartsError as error:
        print(f"ci.parts: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ci.parts: stopped; what was built is kept", file=sys.stderr)
        return 130
    return 0


def _list() -> None:
    toolchain = find(pin("go", "toolchain"))
    for name, recipe in RECIPES.items():
        archive = archive_of(recipe)
        way = archive.host if archive else "source"
        path = found(recipe, toolchain) or "not here"
        print(f"{name}\t{pin('go', recipe.module)}\t{way}\t{path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ci.parts", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build what is missing in the cache; print the paths")
    build.add_argument("parts", nargs="*", metavar="NAME", help="a part (default: all)")
    commands.add_parser(
        "list", help="every part, its version, who has its official archive, and where it is"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
