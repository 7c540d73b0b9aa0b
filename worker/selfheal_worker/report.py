"""What the worker shows of itself: /healthz, /readyz, /progress and the metrics."""

from __future__ import annotations

import logging

from selfheal_worker.availability import ModelAvailability
from selfheal_worker.broker import BrokerError, Link
from selfheal_worker.hangs import Hangs
from selfheal_worker.health import Status
from selfheal_worker.in_flight import InFlight
from selfheal_worker.isolation import Isolation
from selfheal_worker.logs import say
from selfheal_worker.metrics import Metrics
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.circuit import Circuit
from selfheal_worker.shutdown import Shutdown


class Report:
    """`status` and `exposition` are for any thread, the rest is for the link's.

    concurrency: messages that may be in flight; results: the breaker of the queues of outcomes.
    """

    def __init__(
        self,
        metrics: Metrics,
        concurrency: int,
        *,
        chain: Chain,
        link: Link,
        model: ModelAvailability,
        results: Circuit,
        in_flight: InFlight,
        isolation: Isolation,
        hangs: Hangs,
        shutdown: Shutdown,
        now: float,
    ) -> None:
        self._metrics = metrics
        self._concurrency = concurrency
        self._chain = chain
        self._link = link
        self._model = model
        self._results = results
        self._in_flight = in_flight
        self._isolation = isolation
        self._hangs = hangs
        self._shutdown = shutdown
        self._trouble = "not connected to the broker yet"
        self._last_tick = now
        metrics.process.concurrency.set(concurrency)

    def ticked(self, now: float) -> None:
        """All that is due at each tick went well; /healthz goes by this."""
        self._last_tick = now

    def connected(self) -> None:
        """Connected to the broker."""
        say(logging.INFO, "connected to the broker")
        self._trouble = ""

    def disconnected(self, error: BrokerError) -> None:
        """Not connected, or still not; logged once for each reason."""
        if str(error) != self._trouble:
            say(
                logging.ERROR if error.permanent else logging.WARNING,
                "not connected to the broker",
                why=str(error),
                in_flight=len(self._in_flight),
            )
        self._trouble = str(error)
        self._metrics.broker.disconnects.inc()

    def status(self, now: float) -> Status:
        """What HTTP shows now."""
        in_flight = self._in_flight
        if not self._hangs:
            in_flight.see_waiting()
        return Status(
            in_flight=len(in_flight),
            concurrency=self._concurrency,
            last_progress=round(in_flight.last_progress, 3),
            oldest_age=round(in_flight.oldest_age(now), 3),
            tick_age=round(now - self._last_tick, 3),
            hung=len(self._hangs),
            not_ready=self._not_ready(),
            hung_probe=self._model.hung_probe(now),
            breakers={one.name: one.state.name.lower() for one in self._breakers()},
        )

    def exposition(self) -> bytes:
        """The metrics' text."""
        process, broker = self._metrics.process, self._metrics.broker
        process.in_flight.set(len(self._in_flight))
        process.hung.set(len(self._hangs))
        process.abandoned.set(self._chain.abandoned_calls)
        broker.connected.set(self._link.up)
        broker.blocked.set(self._link.blocked)
        process.ready.set(not self._not_ready())
        for one in self._breakers():
            process.breaker(one.name, one.state)
        for origin, found in self._chain.concurrency():
            self._metrics.model.calls(origin, found, self._concurrency)
        return self._metrics.exposition()

    def _breakers(self) -> tuple[Circuit, Circuit]:
        return self._model.circuit, self._results

    def _not_ready(self) -> tuple[str, ...]:
        reasons = []
        if self._shutdown.requested:
            reasons.append("stopping")
        if why := self._model.not_ready():
            reasons.append(why)
        if not self._link.up:
            reasons.append(self._trouble)
        elif not self._results.closed:
            reasons.append("results or dead letters cannot be published (circuit breaker open)")
        elif self._link.blocked:
            reasons.append("the broker takes no publishes now (memory or disk alarm)")
        elif not self._link.consuming and not reasons and not self._isolation.active:
            reasons.append("the consumer is not registered yet")
        return tuple(reasons)
