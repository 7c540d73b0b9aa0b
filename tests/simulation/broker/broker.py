"""A modelled RabbitMQ: its queues, what it does with messages, and what can go wrong with it.

What clients see of it over their connections is in `session.py`. All of it runs in callbacks of the
simulation. When it takes a publish it may still lose it until it has confirmed it; an ack that has
come is final.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any, Literal, Protocol

from tests.simulation.broker.queues import Message, Queue, dead_lettered, is_cycle
from tests.simulation.broker.session import Consumer, Session
from tests.simulation.broker.wire import Wire
from tests.simulation.process import EPOCH, Process
from tests.simulation.scheduler import Simulation

#: Seconds until a publish is on a majority of disks, at least and at most.
FASTEST_COMMIT, SLOWEST_COMMIT = 0.0002, 0.005
#: Seconds until the broker tries again to dead-letter what the target did not take.
DEAD_LETTER_RETRY = 3.0


class Observer(Protocol):
    """Hears what happens to messages. kind: published, confirmed, rejected, returned, delivered,
    acked, requeued, expired, dead_lettered, dropped; client: the process concerned, or ""."""

    def __call__(self, kind: str, queue: str, message: Message, client: str, now: float) -> None:
        """One of them happened."""


class Pending:
    """A publish that is not confirmed yet. confirmed: called with whether it was taken."""

    def __init__(
        self, message: Message, queue: str, client: str, confirmed: Callable[[bool], None]
    ) -> None:
        self.message = message
        self.queue = queue
        self.client = client
        self.confirmed = confirmed


class Broker:
    """One broker. max_message_size: bytes; consumer_timeout: seconds without an ack."""

    def __init__(
        self,
        simulation: Simulation,
        *,
        max_message_size: int = 16 * 1024 * 1024,
        consumer_timeout: float = 1800.0,
    ) -> None:
        self.simulation = simulation
        self.max_message_size = max_message_size
        self.consumer_timeout = consumer_timeout
        self.random = Random(f"{simulation.seed}/broker")
        self.queues: dict[str, Queue] = {}
        self.sessions: list[Session] = []
        self.blocked = False
        self._down = False
        self._unreachable: Literal["", "silent", "mute"] = ""
        self._rejecting = False
        self._slow = 0.0
        self._observers: list[Observer] = []
        self._pending: list[Pending] = []
        self._numbers = 0
        self._connections = 0
        self._unavailable: set[str] = set()

    # -- the network's side

    def connect(self, process: Process) -> Wire | OSError | None:
        """A client connects."""
        if self._down:
            return ConnectionRefusedError(111, "Connection refused")
        if self._unreachable == "silent":
            return None
        self._connections += 1
        wire = Wire(self.simulation, f"{process.name}-{self._connections}")
        session = Session(self, wire, process.name)
        self.sessions.append(session)
        process.at_kill(wire.close_by_client)
        if self._unreachable == "mute":
            wire.die_silently()
        return wire

    # -- for the world

    def observe(self, observer: Observer) -> None:
        """Have it hear what happens to messages."""
        self._observers.append(observer)

    def declare(self, name: str, arguments: Mapping[str, Any]) -> Queue:
        """The queue, which is made if it is not there."""
        return self.queues.setdefault(name, Queue(name, dict(arguments)))

    def messages(self, queue: str) -> list[Message]:
        """All that are in a queue, in any state."""
        return self.queues[queue].messages() if queue in self.queues else []

    def publish(self, queue: str, body: bytes, properties: Any) -> Message:
        """Put a message into a queue at once, for a publisher outside of the simulation."""
        message = self.message(body, properties)
        self._put(queue, message, "")
        return message

    # -- faults

    def restart(self, seconds: float, *, orderly: bool = False) -> None:
        """Be away for so long. What was not confirmed is there afterwards, or not."""
        self._trace(f"restarts, away for {seconds} s")
        self._down = True
        for session in [*self.sessions]:
            if orderly:
                session.close(320, "CONNECTION_FORCED - broker forced connection closure")
            session.wire.reset()
        pending, self._pending = self._pending, []
        for one in pending:
            one.confirmed = _nobody
            if self.random.random() < 0.5 and one.queue in self.queues:
                self._put(one.queue, one.message, one.client)
        self.simulation.after(seconds, self._up)

    def _up(self) -> None:
        self._trace("is back")
        self._down = False
        for queue in self.queues.values():
            self.serve(queue)

    def hide(self, seconds: float, how: Literal["silent", "mute"]) -> None:
        """Take no new connections for so long: "silent", nothing answers; "mute", the connection is
        made and nothing comes over it."""
        self._trace(f"is {how} to new connections for {seconds} s")
        self._unreachable = how
        self.simulation.after(seconds, partial(setattr, self, "_unreachable", ""))

    def delete(self, name: str) -> None:
        """Somebody deletes a queue with all that is in it."""
        self._trace(f"{name} is deleted")
        self.queues.pop(name, None)
        for session in self.sessions:
            session.cancel_consumers(name)
        for one in [one for one in self._pending if one.queue == name]:
            self._commit(one)

    def alarm(self, seconds: float) -> None:
        """A memory or disk alarm: connections that publish are blocked, and not read."""
        self._trace(f"memory alarm for {seconds} s")
        self.blocked = True
        for session in self.sessions:
            session.block()
        self.simulation.after(seconds, self._alarm_over)

    def _alarm_over(self) -> None:
        self.blocked = False
        for session in [*self.sessions]:
            session.unblock()

    def slow_down(self, seconds: float, by: float) -> None:
        """Confirm so much later for so long."""
        self._slow = by
        self.simulation.after(seconds, partial(setattr, self, "_slow", 0.0))

    def reject(self, seconds: float) -> None:
        """Answer each publish with a nack for so long."""
        self._rejecting = True
        self.simulation.after(seconds, partial(setattr, self, "_rejecting", False))

    def fill(self, queue: str, seconds: float) -> None:
        """Have a queue take nothing for so long."""
        if queue in self.queues:
            self.queues[queue].full = True
            self.simulation.after(seconds, partial(setattr, self.queues[queue], "full", False))

    def change_leader(self, queue: str, seconds: float) -> None:
        """A queue's leader is lost: for so long it neither delivers nor confirms."""
        self._trace(f"{queue} has no leader for {seconds} s")
        self._unavailable.add(queue)
        self.simulation.after(seconds, partial(self._elected, queue))

    def _elected(self, name: str) -> None:
        self._unavailable.discard(name)
        for one in [one for one in self._pending if one.queue == name]:
            self._commit(one)
        if name in self.queues:
            self.serve(self.queues[name])

    def of(self, client: str) -> list[Session]:
        """A process's connections."""
        return [one for one in self.sessions if one.client == client]

    def disconnect(self, client: str) -> None:
        """Its connections are reset."""
        for session in self.of(client):
            session.wire.reset()

    def lose_silently(self, client: str) -> None:
        """Its connections are half open: nothing arrives, and nobody hears of it."""
        for session in self.of(client):
            session.wire.die_silently()

    def close_channels(self, client: str, code: int = 541, text: str = "INTERNAL_ERROR") -> None:
        """Close its channels with a code of RabbitMQ's."""
        for session in self.of(client):
            for number in session.channels:
                session.close_channel(number, code, text)

    def cancel_consumers(self, client: str) -> None:
        """Cancel its consumers, as where a queue is deleted and made again."""
        for session in self.of(client):
            session.cancel_consumers()

    # -- for sessions

    def message(self, body: bytes, properties: Any) -> Message:
        """A new one."""
        self._numbers += 1
        return Message(self._numbers, body, properties)

    def take(
        self, queue: str, message: Message, client: str, confirmed: Callable[[bool], None]
    ) -> None:
        """A client published to a queue that is there."""
        self.tell("published", queue, message, client)
        pending = Pending(message, queue, client, confirmed)
        self._pending.append(pending)
        takes = FASTEST_COMMIT + self.random.random() * (SLOWEST_COMMIT - FASTEST_COMMIT)
        self.simulation.after(takes + self._slow, partial(self._commit, pending))

    def _commit(self, pending: Pending) -> None:
        if pending not in self._pending or pending.queue in self._unavailable:
            return
        self._pending.remove(pending)
        queue = self.queues.get(pending.queue)
        if queue is None or self._rejecting or queue.rejects():
            self.tell("rejected", pending.queue, pending.message, pending.client)
            pending.confirmed(False)
            return
        self._put(pending.queue, pending.message, pending.client)
        self.tell("confirmed", pending.queue, pending.message, pending.client)
        pending.confirmed(True)

    def _put(self, name: str, message: Message, client: str) -> None:
        queue = self.queues[name]
        for dropped in queue.put(message, self.simulation.now):
            self.tell("dropped", name, dropped, client)
        self.tell("queued", name, message, client)
        self.serve(queue)

    def take_back(self, queue: Queue, message: Message, client: str) -> None:
        """A message was not acked, and its consumer gave it up or is gone."""
        self.tell("requeued", queue.name, message, client)
        if queue.take_back(message):
            self._dead_letter(queue, message, "delivery_limit")
        else:
            self.simulation.after(0.0, partial(self.serve, queue))

    def serve(self, queue: Queue) -> None:
        """Deliver and expire what can be."""
        if self.queues.get(queue.name) is not queue:
            return  # deleted
        while queue.ready and not self._down and queue.name not in self._unavailable:
            expires = queue.expires()
            if expires is not None and expires <= self.simulation.now:
                message = queue.ready.pop(0)
                self.tell("expired", queue.name, message, "")
                self._dead_letter(queue, message, "expired")
                continue
            consumer = self._next_consumer(queue)
            if consumer is None:
                if expires is not None:
                    self.simulation.at(expires, partial(self.serve, queue))
                return
            consumer.session.deliver(consumer, queue, queue.take())

    def _next_consumer(self, queue: Queue) -> Consumer | None:
        able = [
            consumer
            for session in self.sessions
            for consumer in session.consumers()
            if consumer.queue == queue.name and consumer.may_have_more()
        ]
        return able[int(self.random.random() * len(able))] if able else None

    def _dead_letter(self, queue: Queue, message: Message, reason: str) -> None:
        if queue.target is None:
            self.tell("dropped", queue.name, message, "")
            return
        queue.leaving[message.number] = message
        self.simulation.after(0.001, partial(self._move, queue, message, reason))

    def _move(self, queue: Queue, message: Message, reason: str) -> None:
        """At least once: what the target does not take is tried again."""
        target = self.queues.get(str(queue.target))
        unavailable = self._down or queue.name in self._unavailable
        if target is None or unavailable or target.rejects() or target.name in self._unavailable:
            retry = partial(self._move, queue, message, reason)
            self.simulation.after(DEAD_LETTER_RETRY * (0.5 + self.random.random()), retry)
            return
        del queue.leaving[message.number]
        unix = EPOCH + self.simulation.now
        properties = dead_lettered(message, queue.name, reason, unix)
        moved = Message(message.number, message.body, properties)
        if is_cycle(moved, target.name):
            self.tell("dropped", queue.name, message, "")
            return
        self.tell("dead_lettered", target.name, moved, "")
        self._put(target.name, moved, "")

    def tell(self, kind: str, queue: str, message: Message, client: str) -> None:
        """Something happened to a message."""
        by = f" {client}" if client else ""
        self._trace(f"{kind} {message.name} in {queue}{by}")
        for observer in self._observers:
            observer(kind, queue, message, client, self.simulation.now)

    def _trace(self, what: str) -> None:
        self.simulation.record("broker", what)


def _nobody(_: bool) -> None:
    """The connection that waited for a confirm is gone."""
