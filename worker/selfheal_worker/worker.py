"""The worker: what comes from the broker goes through a handler, and its outcome back.

Everything here runs in the link's thread, but for `finished` (from handlers), `stop` (from signal
handlers) and `status` (from the HTTP server).
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from selfheal_worker import message, retries
from selfheal_worker.broker import (
    BrokerError,
    Delivery,
    Link,
    Outcome,
    Publication,
    copied_properties,
    result_properties,
    topology,
)
from selfheal_worker.config import CONSUMER_TIMEOUT, Settings
from selfheal_worker.dead_letters import DETAIL, REASON, REPLAYED, refusal_history, retry_headers
from selfheal_worker.dead_letters import headers as dead_letter_headers
from selfheal_worker.handlers import Handlers, Work
from selfheal_worker.health import Status
from selfheal_worker.isolation import Isolation, is_suspect
from selfheal_worker.logs import say
from selfheal_worker.message import PoisonError
from selfheal_worker.metrics import Metrics
from selfheal_worker.model import breaker as breakers
from selfheal_worker.model.breaker import Breaker
from selfheal_worker.model.call_time import LONGEST_TURN_WAIT
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import ModelAccessError, ModelError, TransientError
from selfheal_worker.model.failure_effects import BreakerEffect, breaker_effect
from selfheal_worker.model.limits import LimitedError, pause_asked
from selfheal_worker.model.provider import LONGEST_LOAD
from selfheal_worker.randomness import RANDOM
from selfheal_worker.retries import DeadLetter, Requeue, Retry

# How long after its deadline a handler is taken for hung: a provider may need a moment to raise.
HANG_MARGIN = 5.0
# How many deadlines a look whether the model is back may take, beside the time to load it again:
# warm-up and call, of each model of a chain, and their name look-ups.
PROBE_DEADLINES = 10
# For how long a message waits, from its delivery on, for its answer to be taken. After 30 minutes
# the broker takes it back (its consumer timeout) and counts that as one of its deliveries.
PARKED_LONGEST = 600.0
# How long after the grace period the hand-back of what is left may take.
LAST_WORDS = 2.0


def turn_wait(deadline: float) -> float:
    """Seconds that a message may wait for its model's turn, with so many for its calls.

    With the time for which its answer may be parked that stays below the broker's consumer timeout.
    """
    return min(LONGEST_TURN_WAIT, max(deadline, CONSUMER_TIMEOUT - PARKED_LONGEST - deadline))


class Worker:
    """One queue worker. `run` returns after `stop`."""

    def __init__(self, settings: Settings, chain: Chain, metrics: Metrics) -> None:
        self._settings = settings
        self._chain = chain
        self._metrics = metrics
        self._link = Link(settings, topology.queues(settings), self)
        self._handlers = Handlers(
            chain,
            threads=settings.concurrency,
            deadline=settings.model_deadline,
            finished=self._finished,
            wait=turn_wait(settings.model_deadline),
        )
        self._work: dict[int, Work] = {}
        self._done: deque[Work] = deque()
        self._woken = False
        self._isolation = Isolation()
        self._parked: dict[Work, Callable[[], None]] = {}
        self._refused = False  # by a queue that is full, and has taken nothing since
        # What was parked and is sent again as the probe of the results breaker, until told of.
        self._resent: set[Work] = set()
        self._resent_succeeded = True
        self._hung: set[Work] = set()
        self._warm = False
        self._model_trouble = ""
        # Not warm yet is the same as open: the first probe warms the model.
        self._breakers = {
            "model": Breaker(breakers.State.OPEN),
            "results": Breaker(),
        }
        # Whether it went well, why not, and whether a key or a quota was refused.
        self._probe_result: tuple[bool, str, bool] | None = None
        self._probe_by = math.inf
        self._stops = 0
        self._stop_by = 0.0
        self._cancelling = False
        self._closing = False
        self._trouble = "not connected to the broker yet"
        self._last_tick = time.monotonic()
        self._last_progress = time.time()
        metrics.concurrency.set(settings.concurrency)

    # --- from outside

    def run(self) -> None:
        """Serve until stopped."""
        self._link.run()
        self._chain.close()

    def stop(self) -> None:
        """Stop taking, finish within the grace period, end `run`. The second time: at once.

        For signal handlers: the next tick sees it. To wake the loop would take a lock, which the
        thread that the signal came to may hold.
        """
        self._stops += 1

    def status(self) -> Status:
        """One look, from any thread."""
        now = time.monotonic()
        work = list(self._work.values())
        if not self._hung and any(one.waiting and not one.given_up for one in work):
            self._last_progress = time.time()  # it waits for an overloaded server, as it should
        return Status(
            in_flight=len(work),
            concurrency=self._settings.concurrency,
            last_progress=round(self._last_progress, 3),
            oldest_age=round(max((now - one.received for one in work), default=0.0), 3),
            tick_age=round(now - self._last_tick, 3),
            hung=len(self._hung),
            not_ready=self._not_ready(),
            hung_probe=now > self._probe_by,
            breakers={name: one.state.name.lower() for name, one in self._breakers.items()},
        )

    def exposition(self) -> bytes:
        """The metrics' text, from any thread."""
        metrics = self._metrics
        metrics.in_flight.set(len(self._work))
        metrics.hung.set(len(self._hung))
        metrics.abandoned.set(self._chain.abandoned_calls)
        metrics.connected.set(self._link.up)
        metrics.blocked.set(self._link.blocked)
        metrics.ready.set(not self._not_ready())
        for name, one in self._breakers.items():
            metrics.breaker(name, one.state)
        for origin, found in self._chain.concurrency():
            metrics.calls(origin, found, self._settings.concurrency)
        return metrics.exposition()

    def _not_ready(self) -> tuple[str, ...]:
        reasons = []
        if self._stops:
            reasons.append("stopping")
        if not self._warm:
            reasons.append(f"the model is not warm yet{self._model_trouble}")
        elif not self._breakers["model"].closed:
            reasons.append(f"the model is away (circuit breaker open){self._model_trouble}")
        if not self._link.up:
            reasons.append(self._trouble)
        elif not self._breakers["results"].closed:
            reasons.append("results or dead letters cannot be published (circuit breaker open)")
        elif self._link.blocked:
            reasons.append("the broker takes no publishes now (memory or disk alarm)")
        elif not self._link.consuming and not reasons and not self._isolation.active:
            reasons.append("the consumer is not registered yet")
        return tuple(reasons)

    # --- the link's events

    def on_up(self) -> None:
        """Connected."""
        say(logging.INFO, "connected to the broker")
        self._trouble = ""
        self._update_consumer()

    def on_down(self, error: BrokerError) -> None:
        """Not connected; what is in flight will be delivered again, here or elsewhere."""
        if str(error) != self._trouble:
            say(
                logging.ERROR if error.permanent else logging.WARNING,
                "not connected to the broker",
                why=str(error),
                in_flight=len(self._work),
            )
        self._trouble = str(error)
        self._metrics.reconnects.inc()
        for work in self._work.values():
            work.given_up = True
            self._metrics.messages.labels("lost_connection").inc()
        self._work.clear()
        self._isolation.clear()
        self._chain.release()
        self._parked.clear()
        self._resent.clear()
        self._cancelling = False
        if self._breakers["results"].state is breakers.State.PROBING:
            # The answer will not come: the queues were asked about on that connection.
            self._results_probed(succeeded=False, why=str(error))
        self._finish_stopping()

    def on_cancelled(self) -> None:
        """The consumer is gone, as was asked for."""
        self._cancelling = False
        self._finish_stopping()

    def on_delivery(self, delivery: Delivery) -> None:
        """A message came."""
        # A suspect is not given back for another suspect: its count of deliveries would be lost.
        held = self._isolation.active and _suspect(delivery)
        self._take(delivery, wanted=self._open() if held else self._flowing())

    def on_oversized(self, delivery: Delivery) -> tuple[Publication, Callable[[Outcome], None]]:
        """A message comes whose body is too large to be held: it goes on to the dead letters."""
        work = self._begin(delivery)
        work.settling = True
        size, most = delivery.oversized, self._settings.max_body_bytes
        letter = DeadLetter("body_too_large", "PoisonError", work.attempts + 1)
        detail = f"the body has {size} bytes, at most {most} are allowed"
        publication = self._letter(work, letter, detail)

        def sent(result: Outcome) -> None:
            if result is Outcome.CONFIRMED:
                self._settled(work, "dead_lettered")
            elif result is not Outcome.LOST:
                # Its body is not here to be sent again.
                del self._work[delivery.tag]
                self._link.requeue(delivery)
                self._refused |= result is Outcome.REFUSED
                after = breakers.failed(self._breakers["results"], time.monotonic(), away=True)
                self._change("results", after, f"{publication.queue}: {result.value}")

        return publication, sent

    def _begin(self, delivery: Delivery) -> Work:
        work = Work(
            delivery=delivery,
            message=_NOTHING,
            attempts=(attempts := retries.attempts_of(delivery.headers)),
            received=(now := time.monotonic()),
            received_unix=time.time(),
            history=refusal_history(
                delivery.headers,
                attempts,
                now,
                max_attempts=self._settings.max_attempts,
                delay=min(self._settings.retry_delays),
            ),
        )
        self._work[delivery.tag] = work
        return work

    def _take(self, delivery: Delivery, *, wanted: bool) -> None:
        if delivery.tag in self._work:
            return  # oversized, and on its way to the dead letters
        work = self._begin(delivery)
        if not wanted:
            if self._stops and not self._stop_by:
                self._stopping()  # not first at the next tick: what goes back would come again
            if not work.settling:
                self._hand_back(work)
            return
        first_time = not work.attempts and REPLAYED not in delivery.headers
        if delivery.timestamp is not None and first_time:
            self._metrics.wait.observe(max(0.0, work.received_unix - delivery.timestamp))
        try:
            message.check_size(len(delivery.body), self._settings.max_body_bytes)
            suspect = _suspect(delivery)
            if suspect or len(delivery.body) > message.LARGE_BODY:
                work.read = partial(self._read, delivery)
            else:
                work.message = self._read(delivery)
        except PoisonError as error:
            self._poison(work, error)
            return
        if not suspect:
            self._handlers.submit(work)
            return
        self._isolation.add(work)
        self._update_consumer()
        self._try_alone()

    def _try_alone(self) -> None:
        """Have the next suspect analysed, once nothing else is in flight."""
        if not self._open():
            for work in self._isolation.give_up():
                if not work.settling:
                    self._hand_back(work)
        elif (suspect := self._isolation.next(len(self._work))) is not None:
            say(
                logging.INFO,
                "message was redelivered again and again, and is tried alone",
                message_id=suspect.delivery.message_id,
                bytes=len(suspect.delivery.body),
            )
            self._handlers.submit(suspect)

    def _read(self, delivery: Delivery) -> message.Message:
        return message.parse(
            delivery.body,
            message_id=delivery.message_id,
            max_text_bytes=self._settings.max_text_bytes,
            fresh_id=lambda: str(uuid.uuid4()),
        )

    def _poison(self, work: Work, error: PoisonError) -> None:
        letter = DeadLetter(error.reason, error.error_class, work.attempts + 1)
        self._dead_letter(work, letter, str(error))

    # --- what handlers bring

    def _finished(self, work: Work) -> None:
        """From a handler's thread."""
        self._done.append(work)
        if not self._woken:
            self._woken = True
            self._link.call_soon(self._collect)

    def _collect(self) -> None:
        self._woken = False  # before the look: what comes later wakes the loop again
        done = self._done
        while done:
            self._settle(done.popleft())

    def _settle(self, work: Work) -> None:
        if work.hung:
            work.hung = False
            self._hung.discard(work)
        if isinstance(work.error, PoisonError):
            if not work.given_up:
                self._poison(work, work.error)
            return
        excused = self._judge_model(work.error)
        if work.given_up:
            return
        if work.error is None:
            self._answer(work)
        else:
            self._fail(work, work.error, excused)

    def _judge_model(self, error: BaseException | None) -> bool:
        """Whether the model is away, which excuses this message.

        A model whose server wants a longer pause than a message can wait is away as well, but the
        text that it was asked about is not excused: it may be too large for the server's quota, and
        would be held for ever.
        """
        before = self._breakers["model"]
        if error is None:
            self._change("model", breakers.succeeded(before), "")
            return False
        patience = self._chain.patience(self._settings.model_deadline)
        effect = breaker_effect(error, patience)
        if effect is not BreakerEffect.NONE:
            away = effect is BreakerEffect.OPENS
            after = breakers.failed(before, time.monotonic(), away=away, chance=RANDOM.random())
            self._model_trouble = f": {error}"
            self._change("model", after, str(error))
        asked = not isinstance(error, LimitedError)
        opened = before.closed and asked and pause_asked(error) > patience
        return not self._breakers["model"].closed and not opened

    def _answer(self, work: Work) -> None:
        result = self._result(work)
        if len(result) > self._link.largest:
            # Metadata goes through, and may be longer here than it was: é becomes \\u00e9.
            letter = DeadLetter("result_too_large", "PoisonError", work.attempts + 1)
            self._dead_letter(work, letter, f"the result has {len(result)} bytes")
            return
        properties = result_properties(work.delivery, str(work.message.id))
        publication = Publication(self._settings.results_queue, result, properties)
        self._send(work, publication, "answered")

    def _result(self, work: Work) -> bytes:
        assert work.reply is not None
        got, reply = work.message, work.reply
        result: dict[str, Any] = {"id": got.id}
        if got.id_generated:
            result["id_generated"] = True
        result |= reply.validated.fields()
        result["model"] = reply.origin.described()
        result["task"] = self._chain.task.described()
        result["degraded"] = reply.degraded
        if reply.truncated:
            result["truncated"] = True
        result["attempts"] = work.attempts + 1
        timings = {
            "received": round(work.received_unix, 3),
            "handler_wait": round(work.started - work.received + work.waited, 4),
            "model": round(work.finished - work.started - work.waited, 4),
        }
        if work.delivery.timestamp is not None:
            waited = work.received_unix - work.delivery.timestamp
            timings["queue_wait"] = round(max(0.0, waited), 3)
        result["timings"] = timings
        result |= got.passed_through()
        encoded = json.dumps(result).encode()
        if len(work.passed_through) > len(b"{}"):
            return encoded[:-1] + b", " + work.passed_through[1:]
        return encoded

    def _fail(self, work: Work, error: BaseException, excused: bool) -> None:
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
        if isinstance(decision, Requeue) or (uncounted and self._stops):
            self._hand_back(work)
        elif isinstance(decision, DeadLetter):
            self._dead_letter(work, decision, detail)
        else:
            self._retry(work, decision, type(error).__name__)

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
        say(
            logging.WARNING,
            "message goes to the dead letters",
            id=None if work.message is _NOTHING else work.message.id,
            message_id=work.delivery.message_id,
            reason=letter.reason,
            attempts=letter.attempts,
            bytes=work.delivery.oversized or len(work.delivery.body),
        )
        self._metrics.dead_letters.labels(letter.reason).inc()
        more = dead_letter_headers(work.delivery, letter, detail, work.received_unix)
        properties = copied_properties(work.delivery, more)
        return Publication(self._settings.dlq_name, work.delivery.body, properties)

    def _hand_back(self, work: Work) -> None:
        """Give a message back as it came. Sent anew, not requeued: each requeue would count as a
        delivery, and the delivery limit is meant for messages that kill workers."""
        work.given_up = True
        properties = copied_properties(work.delivery, {}, keep_expiration=True)
        queue = self._settings.queue_name
        self._send(work, Publication(queue, work.delivery.body, properties), "handed_back")

    def _send(self, work: Work, publication: Publication, outcome: str) -> None:
        """Publish what becomes of a message, and ack it when the broker has that for sure."""
        work.settling = True

        def sent(result: Outcome) -> None:
            if result is Outcome.LOST:
                return
            why = f"{publication.queue}: {result.value}"
            if result is Outcome.CONFIRMED:
                self._settled(work, outcome)
            else:
                self._refused |= result is Outcome.REFUSED
                age = time.monotonic() - work.received
                if age > PARKED_LONGEST and outcome != "handed_back":
                    self._hand_back(work)
                else:
                    self._parked[work] = again
                after = breakers.failed(self._breakers["results"], time.monotonic(), away=True)
                self._change("results", after, why)
            self._resent_reported(work, succeeded=result is Outcome.CONFIRMED, why=why)

        def again() -> None:
            self._link.publish(publication, sent)

        if self._breakers["results"].closed or outcome == "handed_back":
            again()
        else:
            self._parked[work] = again

    def _settled(self, work: Work, outcome: str) -> None:
        self._link.ack(work.delivery)
        del self._work[work.delivery.tag]
        self._isolation.settled(work)
        self._try_alone()
        self._last_progress = time.time()
        if outcome == "answered":
            self._metrics.answered.inc()
            if work.reply is not None and work.reply.validated.dropped:
                self._metrics.phrases_dropped.inc(work.reply.validated.dropped)
            if work.reply is not None and work.reply.degraded:
                self._metrics.degraded.inc()
            self._metrics.duration.observe(time.monotonic() - work.received)
        else:
            self._metrics.messages.labels(outcome).inc()
        if self._stops:
            self._finish_stopping()

    # --- the breakers

    def _flowing(self) -> bool:
        return self._open() and not self._isolation.active

    def _open(self) -> bool:
        return not self._stops and all(one.closed for one in self._breakers.values())

    def _change(self, name: str, after: Breaker, why: str) -> None:
        before = self._breakers[name]
        if after is before:
            return
        self._breakers[name] = after
        if before.closed != after.closed:
            level = logging.INFO if after.closed else logging.WARNING
            state = "closed" if after.closed else "open"
            say(level, "circuit breaker", breaker=name, state=state, why=why)
            if name == "model" and before.closed:
                self._release_waiting()
            self._update_consumer()

    def _release_waiting(self) -> None:
        """Requeue what waits for the model's turn: no call of it was sent."""
        for work in self._handlers.running():
            if work.waiting and not work.given_up and not work.settling:
                self._hand_back(work)
        self._chain.release()

    def _update_consumer(self) -> None:
        """Consume exactly while work may flow.

        The broker's prefetch is of each consumer: a new one brings messages beside those that are
        still worked on, so it waits until some of them are done.
        """
        if self._flowing() and not self._cancelling:
            if len(self._work) < self._settings.concurrency:
                self._link.consume()
        elif self._link.subscribed and not self._flowing():
            self._cancelling = True
            self._link.cancel()

    def _probe_model(self) -> None:
        """In a thread of its own: the handlers may all be waiting for the model."""

        def probe() -> None:
            try:
                self._chain.wake(self._settings.model_deadline)
                result = (True, "", False)
            except ModelError as error:
                result = (False, str(error), isinstance(error, ModelAccessError))
            except BaseException as error:  # noqa: BLE001 a plug-in's fault must not end the probing
                result = (False, f"{type(error).__name__} in the provider", False)
            self._probe_result = result

        if not self._chain.loading:
            patience = LONGEST_LOAD + PROBE_DEADLINES * self._settings.model_deadline
            self._probe_by = time.monotonic() + patience + HANG_MARGIN
        self._breakers["model"] = breakers.probing(self._breakers["model"])
        try:
            threading.Thread(target=probe, name="probe", daemon=True).start()
        except RuntimeError as error:  # the machine has no thread to spare
            self._probe_result = (False, str(error), False)

    def _model_probed(self, result: tuple[bool, str, bool]) -> None:
        succeeded, why, access = result
        self._probe_by = math.inf
        if succeeded and not self._warm:
            self._warm = True
            active, task = self._chain.active, self._chain.task
            say(
                logging.INFO,
                "model is warm",
                provider=active.provider,
                model=active.name,
                version=active.version,
                task=f"{task.name} {task.version}",
            )
        if not succeeded:
            self._model_trouble = f": {why}"
            say(logging.DEBUG, "the model is still away", why=why)
            if not self._warm and not self._breakers["model"].probes:
                say(logging.WARNING, "the model cannot be reached yet", why=why)
        after = breakers.probed(
            self._breakers["model"],
            time.monotonic(),
            succeeded=succeeded,
            chance=RANDOM.random(),
            access=access,
        )
        self._change("model", after, why)

    def _probe_results(self) -> None:
        """Declare the queues again (one may have been deleted), and try what could not be sent.

        Only when all of that was taken does work flow again: a queue that is full can be declared,
        and each new consumer brings as many messages as the prefetch allows. Where nothing is left
        to be tried, the answer to one message is, so that no more are analysed for nothing.
        """
        if not self._link.up:
            return
        self._breakers["results"] = breakers.probing(self._breakers["results"])

        epoch = self._link.epoch

        def declared(error: BrokerError | None) -> None:
            if epoch != self._link.epoch:
                return
            if error is not None:
                self._results_probed(succeeded=False, why=str(error))
            elif self._parked:
                parked, self._parked = self._parked, {}
                self._resent, self._resent_succeeded = set(parked), True
                for again in parked.values():
                    again()
            elif not self._refused:
                self._results_probed(succeeded=True, why="declared")
            elif self._work or not self._may_try():
                self._results_probed(succeeded=False, why="no answer to try")
            else:
                self._link.get(self._tried)

        self._link.declare(declared)

    def _may_try(self) -> bool:
        return not self._stops and self._breakers["model"].closed

    def _tried(self, delivery: Delivery | None) -> None:
        """The message whose answer the next probe sends; none: nothing waits for room."""
        if delivery is not None:
            self._take(delivery, wanted=self._may_try())
        self._results_probed(succeeded=delivery is None, why="one message is tried")

    def _resent_reported(self, work: Work, *, succeeded: bool, why: str) -> None:
        """What became of one of those that were sent again."""
        if work not in self._resent:
            return
        self._resent.discard(work)
        self._resent_succeeded = self._resent_succeeded and succeeded
        if not self._resent:
            self._results_probed(succeeded=self._resent_succeeded, why=why)

    def _results_probed(self, *, succeeded: bool, why: str) -> None:
        if not succeeded:
            say(logging.DEBUG, "results are still not taken", why=why)
        after = breakers.probed(
            self._breakers["results"], time.monotonic(), succeeded=succeeded, chance=RANDOM.random()
        )
        self._change("results", after, why)
        if succeeded:
            self._refused = False
            parked, self._parked = self._parked, {}  # what was finished during the probe
            for again in parked.values():
                again()

    # --- time

    def on_tick(self) -> None:
        """Time has passed."""
        now = time.monotonic()
        if self._probe_result is not None:
            result, self._probe_result = self._probe_result, None
            self._model_probed(result)
        self._collect()
        if self._stops:
            if not self._closing:
                self._stopping()
        else:
            if breakers.due(self._breakers["model"], now):
                self._probe_model()
            if breakers.due(self._breakers["results"], now):
                self._probe_results()
            self._update_consumer()
            self._try_alone()
        self._find_hung(now)
        self._last_tick = now  # not before all of it went well: /healthz goes by this

    def _find_hung(self, now: float) -> None:
        for work in self._handlers.running():
            if work.hung or now <= work.due + HANG_MARGIN:
                continue
            work.hung = True
            self._hung.add(work)
            self._metrics.hangs.inc()
            say(logging.ERROR, "a handler is past its deadline", id=work.message.id)
            if not work.given_up:
                work.given_up = True
                excused = not self._breakers["model"].closed
                self._fail(work, TransientError("the handler passed its deadline"), excused)

    # --- the end

    def _stopping(self) -> None:
        now = time.monotonic()
        if not self._stop_by:
            say(logging.INFO, "stopping", in_flight=len(self._work))
            self._stop_by = now + self._settings.shutdown_grace
            for work in list(self._work.values()):
                if not work.started and not work.settling:
                    self._hand_back(work)
        self._release_waiting()
        if self._stops > 1:
            self._stop_by = min(self._stop_by, now)
        self._update_consumer()
        self._finish_stopping()

    def _finish_stopping(self) -> None:
        if not self._stops or not self._stop_by or self._closing:
            return
        late = time.monotonic() - self._stop_by
        if not self._link.up or (not self._work and not self._cancelling):
            self._close()
        elif late >= LAST_WORDS:
            say(logging.WARNING, "stopped with messages unsettled", in_flight=len(self._work))
            self._close()
        elif late >= 0:
            parked, self._parked = self._parked, {}
            for work in list(self._work.values()):
                if not work.settling or work in parked:
                    self._hand_back(work)

    def _close(self) -> None:
        self._closing = True
        self._link.close(lambda: say(logging.INFO, "stopped"))


def _suspect(delivery: Delivery) -> bool:
    return is_suspect(delivery.headers, redelivered=delivery.redelivered)


_NOTHING = message.Message(id="", id_generated=False, text="", metadata=None, extra={})
