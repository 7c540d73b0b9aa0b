"""What happened in a run, as broker, model servers and processes saw it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from selfheal_worker.health import Status
from tests.simulation.models.truth import Exchange
from tests.simulation.worker.faults import Fault
from tests.simulation.worker.messages import Message, number_of
from tests.simulation.worker.world import World

ANSWERED, DEAD = "answered", "dead letter"


@dataclass(frozen=True)
class End:
    """A result or a dead letter that the broker has. worker: whose publish it was, "" for the
    broker's own dead-lettering."""

    at: float
    kind: str
    correlation_id: str | None
    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)
    worker: str = ""
    message_id: str | None = None
    content_type: str | None = None

    @property
    def number(self) -> int | None:
        """The message that it belongs to."""
        return number_of(self.correlation_id)

    @property
    def reason(self) -> str:
        """A dead letter's."""
        return str(self.headers.get("x-selfheal-reason", "by the broker"))

    def result(self) -> dict[str, Any]:
        """A result's fields."""
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    def story(self) -> str:
        """For people."""
        how = f" ({self.reason})" if self.kind == DEAD else ""
        return f"{self.at:9.2f} message {self.number} ends at {self.worker}: {self.kind}{how}"


@dataclass
class Life:
    """One process of a worker. terminated: when it got SIGTERM, killed: SIGKILL; ended: when it
    was gone; code: its exit status. stopped: spans without CPU. expositions: its last metrics."""

    name: str
    began: float
    terminated: float | None = None
    killed: float | None = None
    ended: float | None = None
    code: int | None = None
    stopped: list[tuple[float, float]] = field(default_factory=list)
    metrics: Mapping[str, float] = field(default_factory=dict)
    lost_connections: int = 0

    def stopped_within(self, begin: float, end: float) -> bool:
        """Whether it had no CPU at some time between these."""
        return any(since < end and until > begin for since, until in self.stopped)


@dataclass(frozen=True)
class Sample:
    """One sample of a worker. ready: messages that wait in the work queue; ends: results and dead
    letters so far; able: whether nothing keeps a worker from answering (broker, a model of the
    chain, this process), as the world knows."""

    at: float
    worker: str
    status: Status
    ready: int
    ends: int
    able: bool


@dataclass
class History:
    """A whole run. deliveries, takers, returned: of each message, how often the broker delivered
    it, to whom, and how often it took it back without an ack. remaining: messages in each queue
    that must be empty, at the end. settled: when all was done, None if it never was. acked_early:
    messages of which nothing was left when they were acked. examined: when the world's exam began,
    None without one."""

    world: World
    published: dict[int, float] = field(default_factory=dict)
    ends: list[End] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    deliveries: Counter[int] = field(default_factory=Counter)
    takers: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    returned: Counter[int] = field(default_factory=Counter)
    remaining: dict[str, int] = field(default_factory=dict)
    settled: float | None = None
    over: float = 0.0
    acked_early: list[int] = field(default_factory=list)
    examined: float | None = None

    def faults(self) -> list[Fault]:
        """All, with the times at which they happened."""
        exam = self.world.exam
        if exam is None or self.examined is None:
            return [*self.world.faults]
        return [*self.world.faults, *(one.later(self.examined) for one in exam.faults)]

    def of(self, number: int) -> list[End]:
        """How a message ended; more than one is a duplicate."""
        return [one for one in self.ends if one.number == number]

    def calls_about(self, number: int, server: str | None = None) -> list[Exchange]:
        """The requests about a message's text."""
        return [
            one for one in self.exchanges if one.text == number and server in (None, one.server)
        ]

    def messages(self) -> Iterator[Message]:
        """Those that were published."""
        return (one for one in self.world.all_messages if one.number in self.published)

    def story(self) -> list[str]:
        """For people: the world, and what came of it, in the order of time."""
        lines = [*self.world.story(), "what happened:"]
        events = [(one.opened, one.story()) for one in self.exchanges]
        events += [(one.at, one.story()) for one in self.ends]
        events += [(one.at, one.story()) for one in self.faults() if one not in self.world.faults]
        for life in self.lives:
            events.append((life.began, f"{life.began:9.2f} {life.name} starts"))
            for at, what in (
                (life.terminated, "gets SIGTERM"),
                (life.killed, "is killed"),
                (life.ended, f"ends with status {life.code}"),
            ):
                if at is not None:
                    events.append((at, f"{at:9.2f} {life.name} {what}"))
        return lines + [line for _, line in sorted(events)]
