"""The cgroups that hold every process of a cluster: what is in them is killed by `down`.

Works on cgroup v1 (one tree a controller), v2 (one tree), and the hybrid of both.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.cluster.errors import ClusterError

_KILL_SECONDS = 20.0


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup file system."""

    root: Path
    version: int
    controllers: frozenset[str]


def parse_mounts(mountinfo: str) -> list[Hierarchy]:
    """The cgroup hierarchies in the text of /proc/self/mountinfo, each once."""
    found: dict[Path, Hierarchy] = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            root = Path(before.split()[4])
            names = frozenset(options.split(",")) - {"rw", "ro"}
            found[root] = Hierarchy(root, 1 if kind == "cgroup" else 2, names)
    return list(found.values())


def hierarchies() -> list[Hierarchy]:
    """Those of this machine; ClusterError when there are none."""
    found = parse_mounts(Path("/proc/self/mountinfo").read_text())
    if not found:
        raise ClusterError("no cgroup file system is mounted; real nodes need one")
    return found


def create(path: str) -> None:
    """Makes the cgroup `path` (and its parents) in each hierarchy, able to take processes."""
    for hierarchy in hierarchies():
        folder = hierarchy.root
        for name in Path(path).parts:
            parent, folder = folder, folder / name
            if hierarchy.version == 2:
                _enable_controllers(parent)
            folder.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.controllers:
                for file in ("cpuset.cpus", "cpuset.mems"):
                    _copy(parent / file, folder / file)


def joining(path: str) -> Sequence[Path]:
    """The files to which a process writes `0` to join the cgroup `path`."""
    return [hierarchy.root / path / "cgroup.procs" for hierarchy in hierarchies()]


def kill_all(path: str) -> None:
    """Kills every process in `path` and below, and waits until they are gone."""
    deadline = time.monotonic() + _KILL_SECONDS
    while remaining := processes(path):
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {sorted(remaining)} of {path} do not die")
        _kill(remaining)
        time.sleep(0.02)


def _kill(found: set[int]) -> None:
    for process in found:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def remove(path: str) -> None:
    """Removes the cgroup `path` and those below it from each hierarchy.

    Its processes are gone, but for one that joins late: its parent was killed before it had.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    for hierarchy in hierarchies():
        for folder in _deepest_first(hierarchy.root / path):
            # The kernel lets go of a killed process's cgroup a moment after the process.
            while not _rmdir(folder):
                if time.monotonic() > deadline:
                    raise ClusterError(f"the cgroup {folder} stays busy")
                _kill(processes(path))
                time.sleep(0.02)


def exists(path: str) -> bool:
    """Whether any hierarchy has the cgroup `path`."""
    return any((hierarchy.root / path).exists() for hierarchy in hierarchies())


def processes(path: str) -> set[int]:
    """The ids of all live processes in `path` and below, in any hierarchy."""
    found: set[int] = set()
    for hierarchy in hierarchies():
        for folder in _deepest_first(hierarchy.root / path):
            try:
                found.update(map(int, (folder / "cgroup.procs").read_text().split()))
            except OSError:
                # Removed meanwhile, or a v2 cgroup in threaded mode that lists none.
                continue
    return found - {0}


def _deepest_first(folder: Path) -> Iterator[Path]:
    for path, _, _ in os.walk(folder, topdown=False):
        yield Path(path)


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    if not target.read_text().strip():
        target.write_text(source.read_text())


def _enable_controllers(folder: Path) -> None:
    try:
        available = (folder / "cgroup.controllers").read_text().split()
        enabled = (folder / "cgroup.subtree_control").read_text().split()
        for controller in set(available) - set(enabled):
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")
    except OSError as error:
        raise ClusterError(
            f"cannot enable the cgroup controllers below {folder}: {error}"
        ) from error
