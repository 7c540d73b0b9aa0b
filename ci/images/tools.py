"""The machine's own tools: found, installed where that is possible, run with readable errors."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ci.images.errors import ImagesError

REPOSITORY = Path(__file__).resolve().parents[2]


class MissingTools(ImagesError):
    """Something is missing on this machine; the message says what, and how to get it."""


def need_root(what: str) -> None:
    """Refuses to continue as another user than root."""
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


def need_space(folder: Path, gibibytes: float, what: str) -> None:
    """Refuses to start what would not fit on the file system of `folder` (made if missing)."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / (1 << 30)
    if free < gibibytes:
        raise MissingTools(
            f"{what} needs about {gibibytes:g} GiB under {folder}, and {free:.1f} GiB are free; "
            "free some, or choose another cache with SELFHEAL_CACHE"
        )


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
    except ImagesError as error:
        raise MissingTools(f"could not install {names}: {error}") from error


# Own processes and mounts, all gone as soon as we are, however we end: a killed build leaves
# no debootstrap that continues writing, and nothing mounted.
_CONTAINED = ("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork")
_KILLED_WITH_US = (*_CONTAINED, "--kill-child=KILL", "--mount-proc")


def run_contained(
    command: Sequence[str], *, text: str | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Like `run`, for a command that starts others and mounts things. Needs root."""
    return run([*_KILLED_WITH_US, *command], text=text, env=env, name=command[0])


def run(
    command: Sequence[str],
    *,
    text: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    name: str = "",
) -> str:
    """Runs a command and gives its standard output. A failure raises ImagesError with its end."""
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
        raise ImagesError(_failure(name or command[0], done.returncode, tail))
    return done.stdout


def _failure(name: str, status: int, tail: str) -> str:
    # `unshare` gives a killed child's status as a shell does.
    if status in (-9, 137):
        return f"{name} was killed, as a machine does that runs out of memory; run again\n{tail}"
    return f"{name} failed with status {status}:\n{tail}"
