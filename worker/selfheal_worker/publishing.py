"""The publishing of outcomes: what the broker does not take is parked, and sent again later.

All of it is for the link's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from selfheal_worker.broker import BrokerError, Delivery, Link, Outcome, Publication
from selfheal_worker.handlers import Work
from selfheal_worker.in_flight import InFlight
from selfheal_worker.logs import say
from selfheal_worker.model import breaker as breakers
from selfheal_worker.model.circuit import Circuit
from selfheal_worker.runtime import REAL, Runtime

# For how long a message waits, from its delivery on, for its answer to be taken. After 30 minutes
# the broker takes it back (its consumer timeout) and counts that as one of its deliveries.
PARKED_LONGEST = 600.0

#: What becomes of a message; the values of the metric's label.
Becomes = Literal["answered", "retried", "dead_lettered", "requeued"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is published for a message, and what becomes of the message by that."""

    work: Work
    publication: Publication
    becomes: Becomes


class Resend:
    """What was parked and is sent again, as the probe of the results' breaker."""

    def __init__(self, works: Iterable[Work]) -> None:
        self._unanswered = set(works)
        self.succeeded = True

    def answered(self, work: Work, *, confirmed: bool) -> bool:
        """The broker took one, or did not; whether that was the last one's answer."""
        if work not in self._unanswered:
            return False
        self._unanswered.discard(work)
        self.succeeded = self.succeeded and confirmed
        return not self._unanswered


class Settles(Protocol):
    """Who hears from an `OutcomePublisher`."""

    def confirmed(self, outgoing: Outgoing) -> None:
        """The broker has it for sure."""

    def waited_too_long(self, work: Work) -> None:
        """What was to be published was not taken for `PARKED_LONGEST`."""


class OutcomePublisher:
    """Publishes outcomes with confirms; holds the circuit breaker of the queues they go to."""

    def __init__(
        self,
        link: Link,
        settles: Settles,
        changed: Callable[[], None],
        runtime: Runtime = REAL,
    ) -> None:
        """changed: as for `Circuit`."""
        self._link = link
        self._settles = settles
        self._now = runtime.monotonic
        self.circuit = Circuit("results", changed=changed, runtime=runtime)
        self._parked: dict[Work, Outgoing] = {}
        self._resend: Resend | None = None
        #: Whether a queue was full, and has taken nothing since.
        self.refused = False

    def send(self, outgoing: Outgoing) -> None:
        """Publish, now if the queues take anything; what is requeued goes in any case."""
        if self.circuit.closed or outgoing.becomes == "requeued":
            self._publish(outgoing)
        else:
            self._parked[outgoing.work] = outgoing

    def _publish(self, outgoing: Outgoing) -> None:
        self._link.publish(outgoing.publication, partial(self._published, outgoing))

    def _published(self, outgoing: Outgoing, outcome: Outcome) -> None:
        if outcome is Outcome.LOST:
            return
        work = outgoing.work
        if outcome is Outcome.CONFIRMED:
            self._settles.confirmed(outgoing)
        else:
            age = self._now() - work.received
            if age > PARKED_LONGEST and outgoing.becomes != "requeued":
                self._settles.waited_too_long(work)
            else:
                self._parked[work] = outgoing
            self.not_taken(outgoing.publication, outcome)
        resend = self._resend
        if resend and resend.answered(work, confirmed=outcome is Outcome.CONFIRMED):
            self.probed(_why(outgoing.publication, outcome), succeeded=resend.succeeded)

    def not_taken(self, publication: Publication, outcome: Outcome) -> None:
        """The broker did not take a publication, which opens the breaker."""
        self.refused |= outcome is Outcome.REFUSED
        self.circuit.failed(_why(publication, outcome), away=True, chance=1.0)

    def resend(self) -> bool:
        """Send all that is parked again, as the probe; whether anything is."""
        if not self._parked:
            return False
        parked = self.take_parked()
        self._resend = Resend(parked)
        self._publish_all(parked)
        return True

    def probed(self, why: str, *, succeeded: bool) -> None:
        """The probe ended; if it succeeded, what was finished during it is published."""
        self._resend = None
        if not succeeded:
            say(logging.DEBUG, "results are still not taken", why=why)
        self.circuit.probed(why, succeeded=succeeded)
        if succeeded:
            self.refused = False
            self._publish_all(self.take_parked())

    def take_parked(self) -> dict[Work, Outgoing]:
        """What is parked, which is parked no longer."""
        parked, self._parked = self._parked, {}
        return parked

    def _publish_all(self, parked: dict[Work, Outgoing]) -> None:
        for outgoing in parked.values():
            self._publish(outgoing)

    def lost(self, why: str) -> None:
        """The connection is lost, and so is the answer to a probe: it was asked for there."""
        self._parked.clear()
        self._resend = None
        if self.circuit.state is breakers.State.PROBING:
            self.probed(why, succeeded=False)


class ResultsProbe:
    """Whether the queues of the outcomes take something again.

    The queues are declared again (one may have been deleted), and what could not be sent is tried.
    Only when all of that was taken does work flow again: a queue that is full can be declared, and
    each new consumer brings as many messages as the prefetch allows. Where nothing is left to be
    tried, the answer to one message is, so that no more are analysed for nothing.
    """

    def __init__(
        self,
        link: Link,
        publisher: OutcomePublisher,
        in_flight: InFlight,
        *,
        may_take: Callable[[], bool],
        take: Callable[[Delivery], None],
    ) -> None:
        """may_take: whether one message may be taken to try its answer; take: what takes it."""
        self._link = link
        self._publisher = publisher
        self._in_flight = in_flight
        self._may_take = may_take
        self._take = take

    def begin(self) -> None:
        """Probe, where there is a connection."""
        if self._link.up:
            self._publisher.circuit.begin_probe()
            self._link.declare(partial(self._declared, self._link.epoch))

    def _declared(self, epoch: int, error: BrokerError | None) -> None:
        if epoch != self._link.epoch:
            return
        if error is not None:
            self._publisher.probed(str(error), succeeded=False)
        elif self._publisher.resend():
            return  # its answers end the probe
        elif not self._publisher.refused:
            self._publisher.probed("declared", succeeded=True)
        elif self._in_flight or not self._may_take():
            self._publisher.probed("no answer to try", succeeded=False)
        else:
            self._link.get(self._got)

    def _got(self, delivery: Delivery | None) -> None:
        """The message whose answer the next probe sends; none: nothing waits for room."""
        if delivery is not None:
            self._take(delivery)
        self._publisher.probed("one message is tried", succeeded=delivery is None)


def _why(publication: Publication, outcome: Outcome) -> str:
    return f"{publication.queue}: {outcome.value}"
