"""The worker: what comes from the broker goes through a handler, and its outcome back.

This module joins the parts and passes on what happens; each part says which thread runs it. A
message goes from `on_delivery` through `_take` to `Intake.accept` and a handler, comes back through
`_collect` and `_settle` to `Settlement`, which publishes its outcome, and leaves by `_settled`.

Here all runs in the link's thread, but for `stop` (signal handlers), `status` and `exposition` (the
HTTP server's), and `_wake` (handlers').
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from selfheal_worker.availability import ModelAvailability
from selfheal_worker.broker import (
    BrokerError,
    Delivery,
    Done,
    Events,
    Link,
    Publication,
    topology,
)
from selfheal_worker.broker.topology import Queue
from selfheal_worker.config import CONSUMER_TIMEOUT, Settings
from selfheal_worker.consumer import Consumer
from selfheal_worker.handlers import FinishedWork, Handlers, Work
from selfheal_worker.hangs import Hangs
from selfheal_worker.health import Status
from selfheal_worker.in_flight import InFlight
from selfheal_worker.intake import Intake
from selfheal_worker.logs import say
from selfheal_worker.message import PoisonError
from selfheal_worker.metrics import Metrics
from selfheal_worker.model.call_time import LONGEST_TURN_WAIT
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import TransientError
from selfheal_worker.publishing import PARKED_LONGEST, ResultsProbe
from selfheal_worker.report import Report
from selfheal_worker.runtime import REAL, Runtime
from selfheal_worker.settlement import Settlement
from selfheal_worker.shutdown import Shutdown, ShutdownPhase


def turn_wait(deadline: float) -> float:
    """Seconds that a message may wait for its model's turn, with so many for its calls.

    With the time for which its answer may be parked that stays below the broker's consumer timeout.
    """
    return min(LONGEST_TURN_WAIT, max(deadline, CONSUMER_TIMEOUT - PARKED_LONGEST - deadline))


class Worker:
    """One queue worker. `run` returns after `stop`."""

    def __init__(
        self,
        settings: Settings,
        chain: Chain,
        metrics: Metrics,
        connect: Callable[[Settings, Sequence[Queue], Events], Link] = Link,
        runtime: Runtime = REAL,
    ) -> None:
        """connect: makes the connection to the broker, which reports to this."""
        deadline = settings.model_deadline
        self._link = link = connect(settings, topology.queues(settings), self)
        self._shutdown = Shutdown(settings.shutdown_grace)
        self._consumer = Consumer(link, settings.concurrency)
        self._now = runtime.monotonic
        self._in_flight = in_flight = InFlight(settings, runtime)
        self._model = ModelAvailability(chain, deadline, self._model_changed, runtime)
        self._finished = FinishedWork(self._wake)
        handlers = Handlers(
            chain,
            threads=settings.concurrency,
            deadline=deadline,
            finished=self._finished.put,
            wait=turn_wait(deadline),
            runtime=runtime,
        )
        self._hangs = Hangs(handlers, metrics)
        self._settlement = Settlement(
            settings,
            chain.task,
            link,
            in_flight,
            metrics,
            settled=self._settled,
            changed=self._update_consumer,
            runtime=runtime,
        )
        publisher = self._settlement.publisher
        self._results = ResultsProbe(
            link, publisher, in_flight, may_take=self._may_try, take=self._try_answer
        )
        self._intake = Intake(
            settings, metrics, in_flight, handlers, self._settlement, runtime.random
        )
        self._report = Report(
            metrics,
            settings.concurrency,
            chain=chain,
            link=link,
            model=self._model,
            results=publisher.circuit,
            in_flight=in_flight,
            isolation=self._intake.isolation,
            hangs=self._hangs,
            shutdown=self._shutdown,
            now=self._now(),
        )

    # --- from outside

    def run(self) -> None:
        """Serve until stopped."""
        self._link.run()
        self._model.close()

    def stop(self) -> None:
        """Stop taking, finish within the grace period, end `run`. The second time: at once."""
        self._shutdown.request()

    def status(self) -> Status:
        """One look, from any thread."""
        return self._report.status(self._now())

    def exposition(self) -> bytes:
        """The metrics' text, from any thread."""
        return self._report.exposition()

    # --- the link's events

    def on_up(self) -> None:
        """Connected."""
        self._report.connected()
        self._update_consumer()

    def on_down(self, error: BrokerError) -> None:
        """Not connected; what is in flight will be delivered again, here or elsewhere."""
        self._report.disconnected(error)
        self._settlement.lost()
        self._intake.isolation.clear()
        self._model.release()
        self._consumer.ended()
        self._settlement.publisher.lost(str(error))
        self._advance_shutdown()

    def on_cancelled(self) -> None:
        """The consumer is gone, as was asked for."""
        self._consumer.ended()
        self._advance_shutdown()

    def on_delivery(self, delivery: Delivery) -> None:
        """A message came."""
        # A suspect is not requeued for another suspect: its count of deliveries would be lost.
        self._take(delivery, wanted=self._open() and self._intake.isolation.admits(delivery))

    def on_oversized(self, delivery: Delivery) -> tuple[Publication, Done]:
        """A message comes whose body is too large to buffer: it becomes a dead letter."""
        return self._settlement.forward_oversized(self._in_flight.begin(delivery))

    def on_tick(self) -> None:
        """Time has passed."""
        now = self._now()
        self._model.take_probe_result()
        self._collect()
        if self._shutdown.requested:
            self._stop()
        else:
            if self._model.circuit.due(now):
                self._model.probe(now)
            elif self._model.closed:
                self._model.probe_others()
            if self._settlement.publisher.circuit.due(now):
                self._results.begin()
            self._update_consumer()
            self._try_alone()
        for work in self._hangs.find(now):
            work.given_up = True
            hung = TransientError("the handler passed its deadline")
            self._fail(work, hung, excused=not self._model.closed)
        self._report.ticked(now)  # not before all of it went well

    # --- a message on its way

    def _take(self, delivery: Delivery, *, wanted: bool) -> None:
        if delivery in self._in_flight:
            return  # oversized, and on its way to the dead letters
        work = self._in_flight.begin(delivery)
        if wanted:
            if self._intake.accept(work):
                self._update_consumer()
                self._try_alone()
            return
        if self._shutdown.requested and self._shutdown.phase is ShutdownPhase.RUNNING:
            self._stop()  # not first at the next tick: what goes back would come again
        if not work.settling:
            self._settlement.requeue(work)

    def _try_alone(self) -> None:
        self._intake.try_alone(wanted=self._open())

    def _wake(self) -> None:
        """From a handler's thread."""
        self._link.call_soon(self._collect)

    def _collect(self) -> None:
        for work in self._finished.take():
            self._settle(work)

    def _settle(self, work: Work) -> None:
        """A handler has finished."""
        self._hangs.ended(work)
        if isinstance(work.error, PoisonError):
            if not work.given_up:
                self._settlement.poison(work, work.error)
            return
        excused = self._model.judge(work.error)
        if work.given_up:
            return
        if work.error is None:
            self._settlement.answer(work)
        else:
            self._fail(work, work.error, excused=excused)

    def _fail(self, work: Work, error: BaseException, *, excused: bool) -> None:
        stopping = self._shutdown.requested
        self._settlement.fail(work, error, excused=excused, stopping=stopping)

    def _settled(self, work: Work) -> None:
        """A message has left the worker."""
        if self._intake.isolation.active:
            self._intake.isolation.settled(work)
            self._try_alone()
        self._advance_shutdown()

    # --- whether messages are wanted

    def _flowing(self) -> bool:
        return self._open() and not self._intake.isolation.active

    def _open(self) -> bool:
        return self._may_try() and self._settlement.publisher.circuit.closed

    def _may_try(self) -> bool:
        """Whether one message may be taken to see whether its answer is."""
        return not self._shutdown.requested and self._model.closed

    def _try_answer(self, delivery: Delivery) -> None:
        self._take(delivery, wanted=self._may_try())

    def _update_consumer(self) -> None:
        self._consumer.update(wanted=self._flowing(), in_flight=len(self._in_flight))

    def _model_changed(self) -> None:
        if not self._model.closed:
            self._requeue_waiting()
        self._update_consumer()

    def _requeue_waiting(self) -> None:
        """Requeue what waits for the model's turn: no call of it was sent."""
        for work in self._in_flight:
            if work.waiting and not work.given_up and not work.settling:
                self._settlement.requeue(work)
        self._model.release()

    # --- the end

    def _stop(self) -> None:
        if self._shutdown.phase is ShutdownPhase.CLOSING:
            return
        if self._shutdown.begin(self._now()):
            say(logging.INFO, "stopping", in_flight=len(self._in_flight))
            for work in self._in_flight:
                if not work.started and not work.settling:
                    self._settlement.requeue(work)
        self._requeue_waiting()
        self._update_consumer()
        self._advance_shutdown()

    def _advance_shutdown(self) -> None:
        """Continue to shut down, if it has begun and is not there yet."""
        if self._shutdown.phase in (ShutdownPhase.RUNNING, ShutdownPhase.CLOSING):
            return
        unsettled = self._in_flight or self._consumer.cancelling
        done = not self._link.up or not unsettled
        phase = self._shutdown.advance(self._now(), done=done)
        if phase is ShutdownPhase.REQUEUEING:
            self._settlement.requeue_remaining()
        elif phase is ShutdownPhase.CLOSING:
            if not done:
                in_flight = len(self._in_flight)
                say(logging.WARNING, "stopped with messages unsettled", in_flight=in_flight)
            self._link.close(self._closed)

    def _closed(self) -> None:
        say(logging.INFO, "stopped")
