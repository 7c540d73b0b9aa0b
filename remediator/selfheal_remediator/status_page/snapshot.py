"""What the status page shows, as one immutable value. Pure.

Texts come from the cluster as they are; html.py shortens and escapes them. Times are seconds since
the epoch by the remediator's clock; 0 = not known, or never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from heapq import nsmallest
from typing import Any, Generic, TypeVar

#: Rows of each table at most; the page says how many more there are.
MOST_ROWS = 100

T = TypeVar("T")
S = TypeVar("S")


class Role(Enum):
    """What this process is among the replicas, and in its cluster."""

    LEADER = "leader"
    STANDBY = "standby"
    READ_ONLY = "read-only"  # the leader, but another one comes first, or it is uninstalled
    STARTING = "starting"  # the leader, but not all nodes are known, or which remediator is first


class Level(Enum):
    """How much a row asks for a person's attention."""

    BAD = "bad"
    WARNING = "warning"
    NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class Rows(Generic[T]):
    """The first rows of a table, and how many there are."""

    shown: tuple[T, ...] = ()
    total: int = 0

    @property
    def more(self) -> int:
        """How many are not shown."""
        return self.total - len(self.shown)


def first_rows(found: Iterable[S], order: Callable[[S], Any], row: Callable[[S], T]) -> Rows[T]:
    """The rows of those that come first; of the others no row is made."""
    items = list(found)
    return Rows(tuple(row(item) for item in nsmallest(MOST_ROWS, items, key=order)), len(items))


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node with something to report. limit: what it waits for, empty = nothing."""

    name: str
    phase: str
    level: Level
    since: float
    reason: str
    limit: str


@dataclass(frozen=True, slots=True)
class DrainRow:
    """A drain under way. left: pods that are to go; None = they are not known yet. staying: pods
    that should go and may not. blockers: what keeps pods here, for people."""

    node: str
    since: float
    deadline: float
    gone: int
    left: int | None
    staying: int
    state: str
    level: Level
    blockers: str


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A HealingPolicy, as `namespace/name`."""

    name: str
    state: str
    level: Level
    healthy: int
    desired: int
    restarts: int
    last_restart: float
    message: str


@dataclass(frozen=True, slots=True)
class WorkloadRow:
    """The pods of one owner under one policy."""

    name: str
    policy: str
    desired: int
    running: int
    unhealthy: int
    level: Level
    message: str


@dataclass(frozen=True, slots=True)
class EventRow:
    """An Event that this process wrote. problem: why it is not in the cluster, empty = it is."""

    at: float
    reason: str
    about: str
    message: str
    warning: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Nodes. cordoned: by the remediator, of `allowed`; None = only who acts knows.
    states: how many are in which state. limited: how many wait for which limit."""

    nodes: int = 0
    cordoned: int | None = None
    allowed: int | None = None
    states: tuple[tuple[str, int], ...] = ()
    limited: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it, as of `at`.

    installation: `namespace/name` of the Lease; process, leader: identities as the Lease has them;
    dry_run: why it changes nothing, empty = it does; stopped: why nothing new is begun, empty = it
    may be; events_since: since when Events are known. policies_known: False = policies are off, or
    not listed yet, or this process does not act.
    """

    at: float
    installation: str
    process: str
    role: Role
    leader: str
    dry_run: str
    stopped: str
    events_since: float
    counts: Counts
    nodes: Rows[NodeRow]
    drains: Rows[DrainRow]
    policies: Rows[PolicyRow]
    workloads: Rows[WorkloadRow]
    events: Rows[EventRow]
    policies_known: bool = True
