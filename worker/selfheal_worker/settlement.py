"""One outcome for each message: what is published for it, and its ack when the broker has that."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from selfheal_worker import result, retries
from selfheal_worker.broker import (
    Delivery,
    Done,
    Link,
    Outcome,
    Publication,
    copied_properties,
    result_properties,
)
from selfheal_worker.config import Settings
from selfheal_worker.dead_letters import DETAIL, REASON, retry_headers
from selfheal_worker.dead_letters import headers as dead_letter_headers
from selfheal_worker.handlers import Work
from selfheal_worker.in_flight import NOT_READ, InFlight
from selfheal_worker.logs import say
from selfheal_worker.message import PoisonError
from selfheal_worker.metrics import Metrics
from selfheal_worker.model.errors import ModelError
from selfheal_worker.publishing import Becomes, OutcomePublisher, Outgoing
from selfheal_worker.retries import DeadLetter, Requeue, Retry
from selfheal_worker.runtime import REAL, Runtime
from selfheal_worker.task.task import Task


class Settlement:
    """Decides and publishes what becomes of a message. For the link's thread."""

    def __init__(
        self,
        settings: Settings,
        task: Task,
        link: Link,
        in_flight: InFlight,
        metrics: Metrics,
        *,
        settled: Callable[[Work], None],
        changed: Callable[[], None],
        runtime: Runtime = REAL,
    ) -> None:
        """settled: called for each message that has left the worker; changed: as for `Circuit`."""
        self._settings = settings
        self._task = task
        self._link = link
        self._in_flight = in_flight
        self._metrics = metrics
        self._settled = settled
        self._runtime = runtime
        self.publisher = OutcomePublisher(link, self, changed, runtime)

    # --- what becomes of a message

    def answer(self, work: Work) -> None:
        """A handler analysed it."""
        encoded = result.encode(work, self._task)
        if len(encoded) > self._link.largest:
            # Metadata goes through, and may be longer here than it was: é becomes \\u00e9.
            letter = DeadLetter("result_too_large", "PoisonError", work.attempts + 1)
            self._dead_letter(work, letter, f"the result has {len(encoded)} bytes")
            return
        properties = result_properties(work.delivery, str(work.message.id), self._runtime.time())
        publication = Publication(self._settings.results_queue, encoded, properties)
        self._send(work, publication, "answered")

    def fail(self, work: Work, error: BaseException, *, excused: bool, stopping: bool) -> None:
        """Its analysis failed. excused: the model is away; stopping: the worker is to end, and
        what costs no attempt goes back to the queue instead of to a delay queue."""
        if not isinstance(error, ModelError):
            say(logging.ERROR, "a handler failed", error=type(error).__name__)
        decision = retries.decide(
            error,
            attempts=work.attempts,
            max_attempts=self._settings.max_attempts,
            delays=self._settings.retry_delays,
            model_away=excused,
        )
        detail = str(error) if isinstance(error, ModelError) else ""
        uncounted = isinstance(decision, Retry) and decision.attempts == work.attempts
        if isinstance(decision, Requeue) or (uncounted and stopping):
            self.requeue(work)
        elif isinstance(decision, DeadLetter):
            self._dead_letter(work, decision, detail)
        else:
            self._retry(work, decision, type(error).__name__)

    def poison(self, work: Work, error: PoisonError) -> None:
        """It is no message that could be analysed."""
        letter = DeadLetter(error.reason, error.error_class, work.attempts + 1)
        self._dead_letter(work, letter, str(error))

    def requeue(self, work: Work) -> None:
        """Return a message as it came. Published again, not requeued: each requeue would count as a
        delivery, and the delivery limit is meant for messages that kill workers."""
        work.given_up = True
        properties = copied_properties(work.delivery, {}, keep_expiration=True)
        queue = self._settings.queue_name
        self._send(work, Publication(queue, work.delivery.body, properties), "requeued")

    def requeue_remaining(self) -> None:
        """Return all whose outcome is not on its way: the grace period is over."""
        parked = self.publisher.take_parked()
        for work in self._in_flight:
            if not work.settling or work in parked:
                self.requeue(work)

    def forward_oversized(self, work: Work) -> tuple[Publication, Done]:
        """Its body is too large to be held: the link sends it on as this says, and then calls."""
        work.settling = True
        size, most = work.delivery.oversized, self._settings.max_body_bytes
        letter = DeadLetter("body_too_large", "PoisonError", work.attempts + 1)
        detail = f"the body has {size} bytes, at most {most} are allowed"
        outgoing = Outgoing(work, self._letter(work, letter, detail), "dead_lettered")
        return outgoing.publication, partial(self._forwarded, outgoing)

    def _forwarded(self, outgoing: Outgoing, outcome: Outcome) -> None:
        if outcome is Outcome.CONFIRMED:
            self.confirmed(outgoing)
        elif outcome is not Outcome.LOST:
            # Its body is not here to be sent again.
            self._in_flight.requeued(outgoing.work)
            self._link.requeue(outgoing.work.delivery)
            self.publisher.not_taken(outgoing.publication, outcome)

    def _retry(self, work: Work, decision: Retry, error_class: str) -> None:
        say(
            logging.INFO,
            "message will be tried again",
            id=work.message.id,
            attempts=decision.attempts,
            delay=decision.delay,
            error=error_class,
        )
        more = retry_headers(work.delivery, decision.attempts, error_class, work.received_unix)
        queue = self._settings.delay_queue(decision.delay)
        properties = copied_properties(work.delivery, more, without=(REASON, DETAIL))
        self._send(work, Publication(queue, work.delivery.body, properties), "retried")

    def _dead_letter(self, work: Work, letter: DeadLetter, detail: str) -> None:
        self._send(work, self._letter(work, letter, detail), "dead_lettered")

    def _letter(self, work: Work, letter: DeadLetter, detail: str) -> Publication:
        delivery: Delivery = work.delivery
        say(
            logging.WARNING,
            "message goes to the dead letters",
            id=None if work.message is NOT_READ else work.message.id,
            message_id=delivery.message_id,
            reason=letter.reason,
            attempts=letter.attempts,
            bytes=delivery.oversized or len(delivery.body),
        )
        self._metrics.messages.dead_letters.labels(letter.reason).inc()
        more = dead_letter_headers(delivery, letter, detail, work.received_unix)
        properties = copied_properties(delivery, more)
        return Publication(self._settings.dlq_name, delivery.body, properties)

    def _send(self, work: Work, publication: Publication, becomes: Becomes) -> None:
        work.settling = True
        self.publisher.send(Outgoing(work, publication, becomes))

    # --- what the publisher tells, and the end of a connection

    def confirmed(self, outgoing: Outgoing) -> None:
        """The broker has the outcome for sure, so the message is acked."""
        work = outgoing.work
        self._link.ack(work.delivery)
        self._in_flight.settled(work)
        if outgoing.becomes == "answered":
            self._count_answer(work)
        else:
            self._metrics.messages.settled.labels(outgoing.becomes).inc()
        self._settled(work)

    def waited_too_long(self, work: Work) -> None:
        """Before the broker takes it back, which would count as a delivery."""
        self.requeue(work)

    def lost(self) -> None:
        """The connection is lost: what is in flight will be delivered again, here or elsewhere."""
        for _ in range(self._in_flight.lost()):
            self._metrics.messages.settled.labels("lost_connection").inc()

    def _count_answer(self, work: Work) -> None:
        metrics = self._metrics.messages
        metrics.answered.inc()
        if work.reply is not None and work.reply.validated.dropped:
            metrics.phrases_dropped.inc(work.reply.validated.dropped)
        if work.reply is not None and work.reply.degraded:
            metrics.degraded.inc()
        metrics.duration.observe(self._runtime.monotonic() - work.received)
