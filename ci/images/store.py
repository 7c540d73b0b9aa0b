"""The user's cache: finished things appear whole under their key, or not at all.

A build writes into a `.part` sibling and renames it at its end, so a killed build leaves only a
leftover that the next one removes. A file lock per name lets two processes ask for the same thing:
the second waits and finds it made.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ci.images.errors import ImagesError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path` (made if missing); the kernel frees it with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def remove_tree(path: Path) -> None:
    """Removes a folder made here. Refuses one with something mounted inside: that is not ours."""
    if not path.exists():
        return
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8")
    inside = [line.split()[1] for line in mounts.splitlines() if f" {path}/" in line]
    if inside:
        raise ImagesError(f"{path} is in use: {', '.join(inside)} is mounted; unmount it first")
    shutil.rmtree(path)


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """Gives a fresh folder to fill; it becomes `final` only if the block ends without an error."""
    part = final.with_name(final.name + ".part")
    remove_tree(part)
    part.mkdir(parents=True)
    try:
        yield part
    except BaseException:
        remove_tree(part)
        raise
    part.rename(final)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """An empty folder next to `beside`, gone after the block (and one that a killed build left).

    Large things are put together there: /tmp may be memory. The caller holds the lock of `beside`.
    """
    folder = beside.with_name(f".{beside.name}.scratch.part")
    remove_tree(folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove_tree(folder)


@contextmanager
def whole_file(final: Path) -> Iterator[Path]:
    """Like `whole_folder`, for one file."""
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(final.name + ".part")
    part.unlink(missing_ok=True)
    try:
        yield part
        part.rename(final)
    finally:
        part.unlink(missing_ok=True)


def prune_named(used: Path, keep: int = 1) -> list[Path]:
    """Removes older things of the same name: `<name>-<key>` beside `used`, all but `keep`."""
    name = used.name.rpartition("-")[0]
    entries = [p for p in used.parent.glob(f"{name}-*") if p.name.rpartition("-")[0] == name]
    entries = [p for p in entries if p != used and not p.name.endswith((".part", ".lock"))]
    entries.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    old = entries[max(keep - 1, 0) :]
    for path in old:
        remove_tree(path) if path.is_dir() else path.unlink()
    return old
