"""The machine's own tools: found, installed where that is possible, run with readable errors."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class MissingTools(RuntimeError):
    """Something is missing on this machine; the message says what, and how to get it."""


def need_root(what: str) -> None:
    """Refuses to go on as another user than root."""
    if os.geteuid() != 0:
        raise MissingTools(
            f"{what} needs root: run it with sudo, or build the images with a docker engine "
            "(docker build -f worker/Dockerfile . and -f remediator/Dockerfile .)"
        )


def need(packages: Mapping[str, str]) -> None:
    """Sees that each program is on PATH, else installs its Debian package (program → package)."""
    missing = sorted({pkg for program, pkg in packages.items() if not shutil.which(program)})
    if missing:
        install(missing)


def install(packages: Sequence[str]) -> None:
    """Installs Debian packages, or says which to install by hand."""
    names = " ".join(packages)
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise MissingTools(
            f"missing on this machine: {names}; install with: apt-get install {names}"
        )
    env = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(["apt-get", "update", "-qq"], env=env)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], env=env)
    except RuntimeError as error:
        raise MissingTools(f"could not install {names}: {error}") from error


def run(
    command: Sequence[str],
    *,
    text: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Runs a command and gives its standard output. A failure raises RuntimeError with its end."""
    done = subprocess.run(
        list(command),
        input=text if text is not None else "",
        capture_output=True,
        text=True,
        errors="replace",
        env=env,
        cwd=cwd,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise RuntimeError(f"{command[0]} failed with status {done.returncode}:\n{tail}")
    return done.stdout
