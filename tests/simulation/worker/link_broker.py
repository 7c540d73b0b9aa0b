"""A broker at the level of the worker's `Link`: queues, deliveries, acks and confirms, no AMQP.

It is what `run.py` uses where the broker that speaks AMQP is not: faster, and without pika's part.
Messages are kept as bytes (body and encoded properties), so that headers are read as RabbitMQ's.
"""

from __future__ import annotations

import math
import queue as queues
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

import pika

from selfheal_worker.broker import (
    BrokerError,
    Delivery,
    Done,
    Events,
    Outcome,
    Publication,
    topology,
)
from selfheal_worker.config import Settings
from tests.simulation.models.timers import Timers
from tests.simulation.worker.messages import number_of

#: Seconds from worker to broker or back, and until a quorum has a publish.
LATENCY = 0.002
CONFIRM = 0.005
_TICK = 0.25


class Observer(Protocol):
    """Who hears what becomes of messages. number: of the message; worker: the process."""

    def delivered(self, number: int | None, worker: str) -> None:
        """It was sent to a worker."""

    def returned(self, number: int | None, worker: str) -> None:
        """The broker took it back without an ack."""

    def ended(self, queue: str, body: bytes, properties: Any, worker: str) -> None:
        """It came to the results or the dead letters."""


@dataclass(eq=False)
class _Stored:
    body: bytes
    properties: bytes
    returns: int = 0
    exchange: str = ""
    routing_key: str = ""

    def read(self) -> Any:
        """The properties as a client reads them."""
        found = pika.BasicProperties()
        found.decode(self.properties)
        return found


@dataclass(eq=False)
class _Subscriber:
    link: SimulatedLink
    prefetch: int
    unacked: dict[int, _Stored] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)
    consuming: bool = False


class Broker:
    """All queues. arguments: of each queue, as the worker declares them."""

    def __init__(
        self,
        timers: Timers,
        settings: Settings,
        observer: Observer,
        chance: Random,
        *,
        consumer_timeout: float = 1800.0,
    ) -> None:
        self.timers = timers
        self.chance = chance
        self.up = True
        self.blocked = False
        self.refuses: set[str] = set()
        self.confirm_seconds = CONFIRM
        self.links: list[SimulatedLink] = []
        self._settings = settings
        self._observer = observer
        self._timeout = consumer_timeout
        declared = topology.queues(settings)
        self._arguments: Mapping[str, Mapping[str, Any]] = {q.name: q.arguments for q in declared}
        self._queues: dict[str, deque[_Stored]] = {q.name: deque() for q in declared}
        self._subscribers: dict[SimulatedLink, _Subscriber] = {}
        self._delayed = 0
        self._tags = 0

    # --- for the world

    def depth(self) -> Mapping[str, int]:
        """Messages in queues that must be empty in the end, and those on their way."""
        unacked = sum(len(one.unacked) for one in self._subscribers.values())
        work = len(self._queues[self._settings.queue_name])
        return {"ready": work, "unacked": unacked, "delayed": self._delayed}

    def put(self, body: bytes, properties: Any, *, exchange: str = "") -> None:
        """A publisher's message for the work queue."""
        name = self._settings.queue_name
        self._store(name, _Stored(body, _encoded(properties), 0, exchange, name), "")

    def restart(self, seconds: float) -> None:
        """All connections end; it comes back with all its messages."""
        self.up = False
        for link in list(self.links):
            link.lose("the broker restarts")
        self.timers.after(seconds, lambda: setattr(self, "up", True))

    def block(self, blocked: bool) -> None:
        """A memory alarm begins or ends."""
        self.blocked = blocked
        for link in self.links:
            link.block(blocked)

    # --- for links

    def connected(self, link: SimulatedLink, prefetch: int) -> None:
        """A worker has a channel."""
        self._subscribers[link] = _Subscriber(link, prefetch)

    def gone(self, link: SimulatedLink) -> None:
        """Its channel has ended: what it had is ready again, in its old place."""
        found = self._subscribers.pop(link, None)
        if found is None:
            return
        for tag in sorted(found.unacked, reverse=True):
            self._return(found, tag)
        self._hand_out()

    def consume(self, link: SimulatedLink, consuming: bool) -> None:
        """A consumer is registered or cancelled."""
        if link in self._subscribers:
            self._subscribers[link].consuming = consuming
            self._hand_out()

    def get(self, link: SimulatedLink) -> Delivery | None:
        """One message without a consumer."""
        ready = self._queues[self._settings.queue_name]
        found = self._subscribers.get(link)
        return self._deliver(found, ready.popleft()) if found and ready else None

    def ack(self, link: SimulatedLink, tag: int) -> None:
        """A message is settled."""
        found = self._subscribers.get(link)
        if found is not None:
            found.unacked.pop(tag, None)
            found.since.pop(tag, None)
            self._hand_out()

    def nack(self, link: SimulatedLink, tag: int) -> None:
        """A message is to be delivered again."""
        found = self._subscribers.get(link)
        if found is not None and tag in found.unacked:
            self._return(found, tag)
            self._hand_out()

    def publish(self, link: SimulatedLink, publication: Publication) -> Outcome | None:
        """What it says of a publish; None while it takes none."""
        if self.blocked:
            return None
        name = publication.queue
        if name not in self._queues:
            return Outcome.RETURNED
        if name in self.refuses or "*" in self.refuses:
            return Outcome.REFUSED
        stored = _Stored(publication.body, _encoded(publication.properties), 0, "", name)
        self._store(name, stored, link.worker)
        return Outcome.CONFIRMED

    # --- inside

    def _store(self, name: str, stored: _Stored, worker: str) -> None:
        settings = self._settings
        ttl = self._arguments[name].get("x-message-ttl")
        if name in (settings.results_queue, settings.dlq_name):
            self._observer.ended(name, stored.body, stored.read(), worker)
        elif name == settings.queue_name:
            self._queues[name].append(stored)
            self._hand_out()
        else:
            self._delayed += 1
            assert isinstance(ttl, int)
            self.timers.after(ttl / 1000, lambda: self._expired(name, stored))

    def _expired(self, name: str, stored: _Stored) -> None:
        self._delayed -= 1
        properties = stored.read()
        death = {"queue": name, "reason": "expired", "count": 1, "exchange": ""}
        properties.headers = {**(properties.headers or {}), "x-death": [death]}
        work = self._settings.queue_name
        self._store(work, _Stored(stored.body, _encoded(properties), 0, "", work), "")

    def _return(self, found: _Subscriber, tag: int) -> None:
        stored = found.unacked.pop(tag)
        found.since.pop(tag, None)
        stored.returns += 1
        self._observer.returned(number_of(stored.read().correlation_id), found.link.worker)
        if stored.returns > self._settings.delivery_limit:
            self._store(self._settings.dlq_name, stored, "")
        else:
            self._queues[self._settings.queue_name].appendleft(stored)

    def _hand_out(self) -> None:
        ready = self._queues[self._settings.queue_name]
        while ready:
            free = [
                one
                for one in self._subscribers.values()
                if one.consuming and len(one.unacked) < one.prefetch
            ]
            if not free:
                return
            found = self.chance.choice(free)
            found.link.delivered(self._deliver(found, ready.popleft()))

    def _deliver(self, found: _Subscriber, stored: _Stored) -> Delivery:
        self._tags += 1
        tag = self._tags
        found.unacked[tag] = stored
        found.since[tag] = self.timers.now
        self.timers.after(self._timeout, lambda: self._timed_out(found, tag))
        properties = stored.read()
        if stored.returns:
            counts = {"x-delivery-count": stored.returns}
            properties.headers = {**(properties.headers or {}), **counts}
            properties.decode(_encoded(properties))
        self._observer.delivered(number_of(properties.correlation_id), found.link.worker)
        epoch, again = found.link.epoch, stored.returns > 0
        exchange, key = stored.exchange, stored.routing_key
        return Delivery(tag, epoch, again, exchange, key, stored.body, properties)

    def _timed_out(self, found: _Subscriber, tag: int) -> None:
        if tag in found.unacked:
            found.link.lose("the broker closed the channel: delivery acknowledgement timed out")


class Machine(Protocol):
    """What a link needs of its process's runtime."""

    random: Random

    def monotonic(self) -> float:
        """Seconds."""

    def queue(self) -> Any:
        """Like queue.SimpleQueue."""


class SimulatedLink:
    """Stands in for a `Link`. Its callbacks run in the thread that calls `run`."""

    def __init__(
        self,
        broker: Broker,
        worker: str,
        runtime: Machine,
        settings: Settings,
        events: Events,
        lost: Callable[[], None],
    ) -> None:
        self.worker = worker
        self.epoch = 0
        self.largest: float = math.inf
        self.up = False
        self.blocked = False
        self._broker = broker
        self._runtime = runtime
        self._settings = settings
        self._events = events
        self._lost_connection = lost
        self._jobs = runtime.queue()
        self._waiting: list[Done] = []
        self._held: list[tuple[int, Publication, Done]] = []
        self._subscribed = self._registered = False
        self._silent = False
        self._ended = False
        self._closing: Callable[[], None] | None = None
        broker.links.append(self)

    # --- the thread

    def run(self) -> None:
        """Serve until `close` has ended."""
        self._after(0.0, self._connect)
        tick = self._runtime.monotonic()
        while not self._ended:
            left = tick - self._runtime.monotonic()
            try:
                job = self._jobs.get(timeout=max(0.0, left)) if left > 0 else self._jobs.get(False)
                job()
            except queues.Empty:
                pass
            if self._runtime.monotonic() >= tick:
                tick = self._runtime.monotonic() + _TICK
                self._events.on_tick()

    def call_soon(self, function: Callable[[], None]) -> None:
        """From any thread."""
        self._jobs.put(function)

    def _after(self, seconds: float, job: Callable[[], None]) -> None:
        self._broker.timers.after(seconds, lambda: self._jobs.put(job))

    def _heard(self, seconds: float, job: Callable[[], None]) -> None:
        """Of this connection, if it is still the one."""
        epoch = self.epoch
        self._after(seconds, lambda: job() if epoch == self.epoch else None)

    def _connect(self) -> None:
        if self._closing is not None or self.up:
            return
        if not self._broker.up:
            self._down("no connection")
            return
        self.epoch += 1
        self.up, self._silent, self.blocked = True, False, self._broker.blocked
        self._broker.connected(self, self._settings.concurrency)
        self._events.on_up()

    def _down(self, why: str) -> None:
        self.epoch += 1
        was_up, self.up = self.up, False
        self.blocked = self._subscribed = self._registered = False
        lost, self._waiting = self._waiting, []
        self._held.clear()
        if was_up:
            self._lost_connection()
        if self._closing is not None:
            self._end()
            return
        for done in lost:
            done(Outcome.LOST)
        self._events.on_down(BrokerError(why))
        self._after(0.2 + 2.0 * self._runtime.random.random(), self._connect)

    # --- what the broker does; in the scheduler

    def lose(self, why: str) -> None:
        """The connection is lost; both sides know it at once."""
        self._broker.gone(self)
        self._heard(LATENCY, lambda: self._down(why))

    def half_open(self) -> None:
        """Nothing goes over it any more; both sides know it after two heartbeats."""
        self._silent = True
        seconds = 2.0 * self._settings.amqp_heartbeat
        epoch = self.epoch

        def noticed() -> None:
            if epoch == self.epoch:
                self.lose("the heartbeat was missed")

        self._broker.timers.after(seconds, noticed)

    def drop(self) -> None:
        """The process is gone."""
        self._broker.gone(self)
        if self in self._broker.links:
            self._broker.links.remove(self)

    def block(self, blocked: bool) -> None:
        """An alarm begins or ends."""

        def heard() -> None:
            self.blocked = blocked

        self._heard(LATENCY, heard)
        if not blocked:
            held, self._held = self._held, []
            for epoch, publication, done in held:
                if epoch == self.epoch:
                    self._arrive(publication, done)

    def delivered(self, delivery: Delivery) -> None:
        """A message is on its way."""
        if not self._silent:
            self._heard(LATENCY, lambda: self._take(delivery))

    def _take(self, delivery: Delivery) -> None:
        if len(delivery.body) <= self._settings.max_body_bytes:
            self._events.on_delivery(delivery)
            return
        body, delivery.oversized, delivery.body = delivery.body, len(delivery.body), b""
        publication, done = self._events.on_oversized(delivery)
        self.publish(Publication(publication.queue, body, publication.properties), done)
        self._events.on_delivery(delivery)

    # --- as of a Link

    def close(self, done: Callable[[], None]) -> None:
        """End `run`; acks that were given are sent first."""
        if self._closing is None:
            self._closing = done
            self._after(LATENCY, self._end)

    def _end(self) -> None:
        if self._closing is not None and not self._ended:
            self._ended = True
            self._closing()
            self._broker.timers.after(LATENCY, self.drop)

    @property
    def subscribed(self) -> bool:
        """Whether messages come, or will soon."""
        return self._subscribed

    @property
    def consuming(self) -> bool:
        """Whether messages come."""
        return self._registered

    def declare(self, done: Callable[[BrokerError | None], None]) -> None:
        """Declare all queues again; they are there."""
        self._heard(2 * LATENCY, lambda: done(None))

    def consume(self) -> None:
        """Take messages."""
        if not self.up or self._subscribed:
            return
        self._subscribed = True
        self._sent(lambda: self._broker.consume(self, True))

        def registered() -> None:
            self._registered = self._subscribed

        self._heard(2 * LATENCY, registered)

    def cancel(self) -> None:
        """Take no more messages."""
        if not self._subscribed:
            return
        self._subscribed = self._registered = False
        self._sent(lambda: self._broker.consume(self, False))
        if not self._silent:
            self._heard(2 * LATENCY + 0.001, self._events.on_cancelled)

    def get(self, done: Callable[[Delivery | None], None]) -> None:
        """Take one message without a consumer."""

        def asked() -> None:
            found = self._broker.get(self)
            self._heard(LATENCY, lambda: done(found))

        if self.up:
            self._sent(asked)

    def ack(self, delivery: Delivery) -> None:
        """Settle a message."""
        if self.up and delivery.epoch == self.epoch:
            self._sent(lambda: self._broker.ack(self, delivery.tag))

    def requeue(self, delivery: Delivery) -> None:
        """Have a message delivered again."""
        if self.up and delivery.epoch == self.epoch:
            self._sent(lambda: self._broker.nack(self, delivery.tag))

    def publish(self, publication: Publication, done: Done) -> None:
        """Send; done is called once, with what became of it."""
        if not self.up:
            done(Outcome.LOST)
            return
        self._waiting.append(done)
        self._sent(lambda: self._arrive(publication, done))

    def _sent(self, arrives: Callable[[], None]) -> None:
        """Over the wire, if it is still this connection when it arrives."""
        epoch, silent = self.epoch, self._silent

        def arrived() -> None:
            if epoch == self.epoch and not silent and not self._silent:
                arrives()

        self._broker.timers.after(LATENCY, arrived)

    def _arrive(self, publication: Publication, done: Done) -> None:
        outcome = self._broker.publish(self, publication)
        if outcome is None:
            self._held.append((self.epoch, publication, done))
            return
        self._heard(self._broker.confirm_seconds, lambda: self._confirmed(done, outcome))

    def _confirmed(self, done: Done, outcome: Outcome) -> None:
        if done in self._waiting:
            self._waiting.remove(done)
            if not self._silent:
                done(outcome)


def connector(
    broker: Broker,
    worker: str,
    runtime: Machine,
    lost: Callable[[], None],
    made: Callable[[SimulatedLink], None],
) -> Callable[[Settings, Sequence[topology.Queue], Events], Any]:
    """What `Worker` is given as `connect`."""

    def connect(settings: Settings, declared: Sequence[topology.Queue], events: Events) -> Any:
        del declared
        link = SimulatedLink(broker, worker, runtime, settings, events, lost)
        made(link)
        return link

    return connect


def _encoded(properties: Any) -> bytes:
    encoded = b"".join(properties.encode())
    assert isinstance(encoded, bytes)
    return encoded
