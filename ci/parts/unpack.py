"""Takes programs out of tar archives, and nothing else."""

import shutil
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ci.parts.errors import Refused

LARGEST_PROGRAM = 1 << 29
"""Bytes. The largest today, KEDA's operator, has a third of it."""


def programs(what: str, archive: Path, wanted: Mapping[str, str], folder: Path) -> set[str]:
    """Writes each part of `wanted` (name → path inside) to `folder/<name>`; the parts that it has.

    `what` names the archive in messages. Raises Refused for one that cannot be read to its end or
    has a path outside of itself.
    """
    found: set[str] = set()
    try:
        with tarfile.open(archive, "r|*") as entries:
            for entry in entries:
                path = _path(what, entry)
                for part in (part for part, inside in wanted.items() if inside == path):
                    _write(what, entries, entry, folder / part)
                    found.add(part)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise Refused(f"{what} is refused: it cannot be read: {error}") from error
    return found


def _path(what: str, entry: tarfile.TarInfo) -> str:
    """The entry's path without `./`."""
    path = PurePosixPath(entry.name)
    if path.is_absolute() or ".." in path.parts:
        raise Refused(f"{what} is refused: it has the path {entry.name!r}")
    return str(path)


def _write(what: str, entries: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    if not entry.isreg():
        raise Refused(f"{what} is refused: {entry.name} is no file")
    if entry.size > LARGEST_PROGRAM:
        raise Refused(f"{what} is refused: {entry.name} has {entry.size} bytes")
    content = entries.extractfile(entry)
    assert content is not None
    with target.open("wb") as file:
        shutil.copyfileobj(content, file)
