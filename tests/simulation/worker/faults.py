"""Faults of a world: what happens to broker, models and workers, and when it is over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from random import Random

from tests.simulation.models.conditions import Condition


class Kind(Enum):
    """What happens. The value is the word in stories."""

    # A model server: target is its name.
    CONDITION = "the server"
    SLOTS = "the server has other slots:"
    SWAP = "the server's model is replaced"
    UNLOAD = "the server unloads its model"
    # The broker.
    BROKER_RESTART = "the broker restarts"
    BROKER_ALARM = "the broker takes no publishes (memory alarm)"
    BROKER_SLOW = "the broker confirms slowly"
    NACK = "the broker rejects publishes"
    RESULTS_FULL = "the results queue is full"
    NO_LEADER = "the work queue has no leader"
    # A worker and its connection: target is the worker's place, "0", "1", …
    DISCONNECT = "the connection is reset"
    HALF_OPEN = "the connection is half open"
    CHANNEL_CLOSED = "the broker closes the channel"
    CONSUMER_CANCELLED = "the broker cancels the consumer"
    KILL = "the worker is killed"
    TERMINATE = "the worker gets SIGTERM"
    PAUSE = "the worker gets no CPU"
    CLOCK_JUMP = "the worker's clock jumps"
    LATE_THREADS = "threads of the worker get the CPU late"


#: Over as soon as they have happened.
MOMENTARY = frozenset(
    {
        *(Kind.SWAP, Kind.UNLOAD, Kind.DISCONNECT, Kind.CHANNEL_CLOSED, Kind.CONSUMER_CANCELLED),
        *(Kind.KILL, Kind.TERMINATE, Kind.CLOCK_JUMP, Kind.HALF_OPEN),
    }
)
_OF_SERVERS = (Kind.CONDITION, Kind.CONDITION, Kind.CONDITION, Kind.SLOTS, Kind.SWAP, Kind.UNLOAD)
OF_BROKER = (
    *(Kind.BROKER_RESTART, Kind.BROKER_ALARM, Kind.BROKER_SLOW, Kind.NACK, Kind.RESULTS_FULL),
    Kind.NO_LEADER,
)
OF_WORKERS = (
    *(Kind.DISCONNECT, Kind.HALF_OPEN, Kind.CHANNEL_CLOSED, Kind.CONSUMER_CANCELLED, Kind.KILL),
    *(Kind.TERMINATE, Kind.PAUSE, Kind.CLOCK_JUMP),
)
#: What may be the matter with a model in the worker's own process: silent is that it never returns.
PLUG_IN = (Condition.SILENT, Condition.NOT_LOADED, Condition.ERRORS)


@dataclass(frozen=True)
class Fault:
    """One fault: from `at` for `seconds` (0 where it is momentary). amount: slots, or by how many
    seconds a clock jumps. condition: of a server."""

    at: float
    kind: Kind
    target: str = ""
    seconds: float = 0.0
    condition: Condition | None = None
    amount: float = 0.0

    @property
    def end(self) -> float:
        """When it is over."""
        return self.at + self.seconds

    @property
    def refuses_access(self) -> bool:
        """Whether a server refuses the key, or says that the quota is used up."""
        return self.condition in (Condition.REVOKED, Condition.NO_QUOTA)

    def later(self, seconds: float) -> Fault:
        """The same, so much later."""
        return replace(self, at=self.at + seconds)

    def story(self) -> str:
        """For people."""
        what = self.kind.value
        if self.condition is not None:
            what = f"{self.target} {self.condition.value}"
        elif self.target:
            what = f"{what} ({self.target})"
        if self.amount:
            what += f" {self.amount:g}"
        until = f" until {self.end:.2f}" if self.seconds else ""
        return f"{self.at:9.2f}{until} {what}"


def schedule(
    chance: Random, servers: Mapping[str, bool], workers: int, until: float, most: int
) -> tuple[Fault, ...]:
    """Faults that have all ended by `until` (seconds), in their order.

    servers: their names, and whether they are asked by https. At most one condition of a server at
    a time: its end would end the other.
    """
    made = sorted(_faults(chance, servers, workers, until, most), key=lambda one: one.at)
    kept: list[Fault] = []
    free: dict[tuple[Kind, str], float] = {}
    for one in made:
        if one.kind not in MOMENTARY:
            if free.get((one.kind, one.target), 0.0) > one.at:
                continue
            free[one.kind, one.target] = one.end + 1.0
        kept.append(one)
    return tuple(kept)


def _faults(
    chance: Random, servers: Mapping[str, bool], workers: int, until: float, most: int
) -> Iterator[Fault]:
    conditions = [one for one in Condition if one is not Condition.UP]
    for _ in range(chance.randint(0, most)):
        groups = [OF_WORKERS, OF_BROKER, *([_OF_SERVERS] * 2 if servers else [])]
        kind = chance.choice(chance.choice(groups))
        at = round(chance.uniform(0.0, until * 0.8), 2)
        longest = until - at
        seconds = round(min(longest, chance.choice((0.5, 5.0, 30.0, 120.0)) * chance.random()), 2)
        if kind in MOMENTARY:
            seconds = 0.0
        target, condition, amount = "", None, 0.0
        if kind in _OF_SERVERS:
            target = chance.choice(sorted(servers))
        elif kind in OF_WORKERS:
            target = str(chance.randrange(max(1, workers)))
        if kind is Kind.CONDITION:
            condition = chance.choice(conditions)
            if condition in (Condition.UNTRUSTED, Condition.NO_TLS) and not servers[target]:
                condition = Condition.REFUSED
        elif kind is Kind.SLOTS:
            amount = float(chance.randint(1, 3))
        elif kind is Kind.CLOCK_JUMP:
            amount = chance.choice((-3600.0, -5.0, 5.0, 3600.0, 86_400.0))
        elif kind is Kind.PAUSE:
            seconds = min(longest, chance.choice((1.0, 20.0, 60.0)))
        yield Fault(at, kind, target, seconds, condition, amount)


def late_threads(chance: Random, workers: int, until: float) -> tuple[Fault, ...]:
    """In some worlds, threads that get the CPU late for a while; over by `until` (seconds)."""
    made = []
    for _ in range(chance.choice((0, 0, 1, 2))):
        at = round(chance.choice((0.0, chance.uniform(0.0, until * 0.5))), 2)
        seconds = round(chance.uniform(5.0, until * 0.45), 2)
        made.append(Fault(at, Kind.LATE_THREADS, str(chance.randrange(workers)), seconds))
    return tuple(made)
