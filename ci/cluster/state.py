"""What is on disk about a cluster: what it is to be, its network, and whether `up` has finished."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from ci.cluster import spec
from ci.cluster.errors import ClusterError
from ci.cluster.layout import LOCK_ROOT, Layout, Network
from ci.cluster.spec import Spec

STARTING = "starting"
READY = "ready"
_VERSION = 1


@dataclass(frozen=True)
class State:
    """`builds` are the paths of the parts it was started from, by name."""

    spec: Spec
    network: Network
    builds: dict[str, str]
    phase: str = STARTING

    def programs(self) -> dict[str, Path]:
        """Where the parts are, by name."""
        return {name: Path(place) for name, place in self.builds.items()}


def save(layout: Layout, state: State) -> None:
    """Writes the state at once, or not at all."""
    document: dict[str, Any] = {
        "version": _VERSION,
        "phase": state.phase,
        "spec": state.spec.document(),
        "machines": str(state.network.machines),
        "builds": state.builds,
    }
    temporary = layout.state_file.with_suffix(".new")
    temporary.write_text(json.dumps(document, indent=1))
    temporary.replace(layout.state_file)


def load(layout: Layout) -> State | None:
    """The state; None when there is none, or one that another version of this program wrote."""
    try:
        document = json.loads(layout.state_file.read_text())
        if document.get("version") != _VERSION:
            return None
        return State(
            spec=spec.from_document(document["spec"]),
            network=Network(IPv4Network(document["machines"])),
            builds=document["builds"],
            phase=document["phase"],
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, ClusterError):
        # What cannot be read is a leftover, which `up` and `down` remove.
        return None


@contextmanager
def lock(layout: Layout) -> Iterator[None]:
    """Waits until nobody else starts or stops this cluster. The file goes when the cluster goes."""
    while True:
        file = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_current(file, layout):
                yield
                return
        finally:
            os.close(file)


@contextmanager
def allocation_lock() -> Iterator[None]:
    """Held while a network is chosen and taken, so that two clusters never choose the same."""
    # The folder itself, so that no file of it is left.
    folder = os.open(LOCK_ROOT, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def is_locked(layout: Layout) -> bool:
    """Whether somebody is starting or stopping this cluster now."""
    try:
        file = os.open(layout.lock, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def require(layout: Layout) -> State:
    """The state of a cluster that is up; ClusterError when it is not."""
    state = load(layout)
    if state is None or state.phase != READY:
        raise ClusterError(
            f"the cluster {layout.name} is not up; `python -m ci.cluster up` starts it"
        )
    return state


def _is_current(file: int, layout: Layout) -> bool:
    """Whether the locked file still has its name: the holder before us may have removed it."""
    try:
        named = layout.lock.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(file)
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)
