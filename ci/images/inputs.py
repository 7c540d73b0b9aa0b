"""What an image is made of, and the key that changes with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

# What .dockerignore keeps out of every build, so it must not change a key either.
_NEVER = frozenset({"__pycache__", "Dockerfile"})


def package_files(package: Path) -> list[Path]:
    """The files of a package that its image gets, sorted (the Dockerfile is counted by itself)."""
    return sorted(
        path
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and not _NEVER.intersection(path.parts)
    )


def digest_of_files(root: Path, files: Iterable[Path]) -> str:
    """A hash over names below `root`, modes and contents."""
    digest = hashlib.sha256()
    for path in files:
        executable = "x" if path.stat().st_mode & 0o100 else "-"
        name = path.relative_to(root).as_posix()
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{name}\0{executable}\0{content}\n".encode())
    return digest.hexdigest()


def key_of(*facts: str) -> str:
    """Twelve hex digits over facts, in order; no two lists of facts run into each other."""
    digest = hashlib.sha256()
    for fact in facts:
        digest.update(f"{len(fact)}:{fact}".encode())
    return digest.hexdigest()[:12]


def dockerfile_key(repository: Path, package: str, base_key: str, stage_key: str) -> str:
    """The key of an image that `<package>/Dockerfile` describes.

    `base_key` and `stage_key` name the root file systems that it runs on and is built in.
    """
    alone = [
        repository / package / "Dockerfile",
        repository / "requirements" / f"{package}.txt",
        repository / ".dockerignore",
    ]
    files = alone + package_files(repository / package)
    return key_of(package, base_key, stage_key, digest_of_files(repository, files))
