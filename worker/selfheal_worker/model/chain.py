"""One text, one answer: which of the models is asked, within which limits, and what if it fails.

The first model is the active one. The others are asked in their order when those before fail, and
their answers are degraded. A model that keeps failing is left alone and looked at again in the
background, so that messages do not wait for it.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from selfheal_worker.logs import say
from selfheal_worker.model import breaker as breakers
from selfheal_worker.model import chain_failure, context
from selfheal_worker.model.breaker import Breaker
from selfheal_worker.model.call_time import CallTime, Unwatched, Watched
from selfheal_worker.model.errors import (
    BadOutputError,
    ModelAccessError,
    ModelError,
    ModelUnavailableError,
    OverloadedError,
    RefusedTextError,
    TextTooLongError,
    TransientError,
)
from selfheal_worker.model.failure_effects import BreakerEffect, breaker_effect
from selfheal_worker.model.limits import SHORTEST_PAUSE, Concurrency, LimitedError, Limits
from selfheal_worker.model.provider import (
    LONGEST_LOAD,
    Answer,
    Origin,
    Provider,
    RepairRequest,
    Usage,
)
from selfheal_worker.model.refusals import NO_HISTORY, RefusalHistory, Refusals
from selfheal_worker.randomness import RANDOM
from selfheal_worker.task import answer as validated
from selfheal_worker.task.answer import InvalidAnswerError, ValidatedAnswer
from selfheal_worker.task.task import Task

#: What a model is asked to see whether it is there again.
PROBE_TEXT = "The delivery came on time and everything works."
# How many deadlines the look at a model that is warm may take, if its server need not load it:
# warm-up, name look-up and call, and the turns for them.
_PROBE_DEADLINES = 5


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model, for the metrics; seconds it took, and how it ended."""

    origin: Origin
    seconds: float
    error: BaseException | None
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Reply:
    """A checked answer and whose it is; degraded: not the active model's. usage: of all calls."""

    validated: ValidatedAnswer
    origin: Origin
    degraded: bool = False
    usage: Usage | None = None
    # The text did not fit into the model's context: its head and its tail were read.
    truncated: bool = False


def nothing(*_: object) -> None:
    """What is done where nobody wants to know."""


class Member:
    """One model of the chain.

    deadline: seconds for one call, None where only the message's counts. version: what the model
    must be (the beginning is enough), or, for models that have none of their own, what it is.
    longest_text: bytes that surely fit into its context, None where that is not known.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        limits: Limits | None = None,
        deadline: float | None = None,
        version: str = "",
        key: str = "",
        longest_text: int | None = None,
    ) -> None:
        self.longest_text = longest_text
        self.provider = provider
        # Found out once: to ask whether something is of a protocol takes as long as a message does.
        self.repair_request = provider if isinstance(provider, RepairRequest) else None
        self.limits = limits or Limits()
        self.deadline = deadline
        self.key = key
        self.warm = False
        self.load_seconds = 0.0
        self.breaker = Breaker()
        self.refusals = Refusals()
        self._version = version
        self._waking = threading.Lock()

    @property
    def origin(self) -> Origin:
        """The model as results and metrics name it; its version is known when it is warm."""
        provider = self.provider
        return Origin(provider.name, provider.model, provider.version or self._version)

    def origin_of(self, answer: Answer) -> Origin:
        """The model that gave an answer. Raises `ModelUnavailableError` if it must be another."""
        found = self.provider.version if answer.version is None else answer.version
        self._check_version(found)
        origin = self.origin
        return replace(origin, version=found or origin.version, fingerprint=answer.fingerprint)

    def wake(self, deadline: float | None = None) -> bool:
        """Warm it up; whether it has become warm by that. Raises `ModelError`.

        deadline: until when another thread is waited for that is doing it, None for ever.
        """
        was_warm = self.warm
        left = -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
        if not self._waking.acquire(timeout=left):
            raise self.still_loading()
        try:
            if self.warm and not was_warm:
                return False
            begun = time.monotonic()
            self.provider.warm_up()
            self._check_version(self.provider.version)
            if not was_warm:
                self.load_seconds = time.monotonic() - begun
                self.warm = True
            return not was_warm
        finally:
            self._waking.release()

    def still_loading(self) -> ModelUnavailableError:
        """What to raise where nobody waits for it any longer."""
        return ModelUnavailableError(f"model '{self.provider.model}' is still loading")

    def _check_version(self, found: str) -> None:
        if self._version and found and not found.startswith(self._version):
            raise ModelUnavailableError(
                f"models.{self.key}.version is {self._version}, but the model has {found}; "
                "give the server that version back, or change the value"
            )

    def until(self, deadline: float, remaining: int) -> float:
        """When this model must have answered, so that each of its heirs has a part of the time."""
        now = time.monotonic()
        share = now + (deadline - now) / (remaining + 1)
        return share if self.deadline is None else min(share, now + self.deadline)


class Chain:
    """The chain of models. `ask` is called by many threads at once.

    observe is told of each call, loaded of each model that became warm; both from any thread.
    before is called before each call that a message caused, with its deadline (faults on purpose).
    """

    def __init__(
        self,
        members: Sequence[Member],
        task: Task,
        *,
        clamp: bool = False,
        shorten: bool = False,
        observe: Callable[[Call], None] = nothing,
        loaded: Callable[[Origin, float], None] = nothing,
        before: Callable[[float], None] = nothing,
    ) -> None:
        if not members:
            raise ValueError("a chain needs a model")
        self.task = task
        self._members = tuple(members)
        self._clamp = clamp
        self._shorten = shorten
        self._observe = observe
        self._loaded = loaded
        self._before = before
        self._lock = threading.Lock()

    @property
    def active(self) -> Origin:
        """The first model."""
        return self._members[0].origin

    @property
    def abandoned_calls(self) -> int:
        """Calls past their deadline that still run in client libraries."""
        return sum(getattr(one.provider, "abandoned_calls", 0) for one in self._members)

    @property
    def loading(self) -> bool:
        """Whether a model has not been ready yet: to load it may take longer than any call."""
        return not all(member.warm for member in self._members)

    def wake(self, seconds: float) -> None:
        """Have at least one model ready and answering, each call within so many seconds.

        Raises the active one's `ModelError`.
        """
        errors: list[Exception] = []
        for member in self._members:
            try:
                self._probe_within(member, seconds)
            except Exception as error:  # noqa: BLE001 a plug-in's fault is a model that is away
                errors.append(error)
            else:
                break
        for member in self._members:
            if not member.warm and member.breaker.closed:
                self._change(member, _opened)
        self._warm_the_rest()
        if len(errors) == len(self._members):
            raise errors[0]

    def ask(
        self,
        text: str,
        deadline: float,
        *,
        wait: float | None = None,
        watched: Watched | None = None,
        history: RefusalHistory = NO_HISTORY,
    ) -> Reply:
        """Have text analysed by time.monotonic() == deadline. Raises `ModelError`.

        What it waits for a model's turn is no part of that: at most `wait` seconds, by default
        `LONGEST_TURN_WAIT`. watched is told how far it is, and may give it up. history: of the
        message, for a text that is refused.
        """
        errors: list[Exception | None] = []
        spent = CallTime(deadline, watched or Unwatched(), wait=wait)
        self._warm_the_rest()
        for at, member in enumerate(self._members):
            remaining = len(self._members) - 1 - at
            try:  # first: a model that is away has no room for it when it is back either
                sent = context.fitted(text, member.longest_text, shorten=self._shorten)
            except TextTooLongError as error:
                if len(self._members) == 1:
                    raise
                errors.append(error)
                continue
            # The last one is asked whatever its breaker says, but no message waits for it to load.
            if (remaining or not member.warm) and not self._usable(member):
                errors.append(None)
                continue
            try:
                part = spent.part(member.until(spent.deadline, remaining), last=not remaining)
                reply = self._reply(
                    member, text, sent, part, history, last=not remaining, degraded=at > 0
                )
            except Exception as error:
                if len(self._members) == 1:
                    raise
                errors.append(error)
                self._failed(member, error)
            else:
                self._change(member, breakers.succeeded)
                return reply
        raise chain_failure.combined(errors)

    def patience(self, seconds: float) -> float:
        """For how long a message that has so many seconds may wait for each of the models."""
        return min(member.deadline or seconds for member in self._members)

    def concurrency(self) -> list[tuple[Origin, Concurrency]]:
        """How many calls of each model run, and how many may."""
        return [(member.origin, member.limits.used) for member in self._members]

    def release(self) -> None:
        """Who waits for a turn and was given up does so no longer."""
        for member in self._members:
            member.limits.wake()

    def close(self) -> None:
        """Let go of all models; who waits for a turn is told."""
        for member in self._members:
            member.limits.close()
            member.provider.close()

    # --- one model

    def _reply(
        self,
        member: Member,
        text: str,
        sent: str,
        spent: CallTime,
        history: RefusalHistory,
        *,
        last: bool,
        degraded: bool,
    ) -> Reply:
        """sent: what of the text fits into the model's context, as far as that is known."""
        if not member.warm:
            self._wake(member, spent.deadline)
        times = 0
        while True:
            begun = time.monotonic()
            try:
                with spent.turn(member.limits):
                    begun = time.monotonic()
                    said, asked = self._answer(member, sent, spent.deadline, text)
                member.refusals.taken(begun)
                if asked.answer.pause is not None:
                    member.limits.pause(asked.answer.pause)
                origin = member.origin_of(asked.answer)
                return Reply(said, origin, degraded, asked.usage, truncated=sent is not text)
            except RefusedTextError as error:
                if not isinstance(error, context.CutError):  # that one is an answer
                    member.refusals.confirm(
                        error,
                        begun,
                        spent.deadline,
                        lambda: self._send_ours(member, spent),
                        history,
                    )
                if not self._shorten or not isinstance(error, TextTooLongError):
                    raise
                shorter = context.shorter(text, sent, times)
                if shorter is None or time.monotonic() >= spent.deadline:
                    raise
                sent, times = shorter, times + 1
            except TransientError as error:
                _send_again_or_raise(error, member, spent, begun, last=last)

    def _answer(
        self, member: Member, text: str, deadline: float, whole: str
    ) -> tuple[ValidatedAnswer, _Asked]:
        """What the model says of text: whole, or what of that fits into its context; and the calls
        that it took."""
        repair_request = member.repair_request
        asked = _Asked(self, member, whole, deadline)
        try:
            said = asked.once(
                lambda: _in_full(member.provider.analyse(text, deadline), member, text),
                clamp=self._clamp and repair_request is None,
            )
        except InvalidAnswerError as error:
            if repair_request is None or time.monotonic() >= deadline:
                raise BadOutputError(str(error)) from None
            before, problem = asked.content, str(error)
            try:
                said = asked.once(
                    lambda: _in_full(
                        repair_request.repair(text, before, problem, deadline), member, text
                    ),
                    clamp=self._clamp,
                )
            except InvalidAnswerError as again:
                raise BadOutputError(str(again)) from None
            except RefusedTextError:
                # The text was taken; what the model made of it is too long, or filtered, beside it.
                raise BadOutputError(problem) from None
        return said, asked

    def _send_ours(self, member: Member, spent: CallTime) -> None:
        with spent.turn(member.limits):
            member.provider.analyse(PROBE_TEXT, spent.deadline)

    def _wake(self, member: Member, deadline: float | None = None) -> None:
        if member.wake(deadline):
            self._loaded(member.origin, member.load_seconds)

    def _probe(self, member: Member, seconds: float, probe: int) -> None:
        """Whether a model is there: warm, and, where it was warm before, answering.

        Its limits hold for that too, and the pause that its server asked for.
        """
        was_warm = member.warm
        try:
            with member.limits.turn(time.monotonic() + seconds):
                self._wake(member, time.monotonic() + _probe_seconds(seconds))
            if was_warm:
                self._try(member, seconds)
        except BaseException as error:
            self._probed(member, probe, error)
            raise
        self._probed(member, probe, None)

    def _try(self, member: Member, seconds: float) -> None:
        """Have a model answer that was warmed up just now, if its limit leaves a turn for that."""
        try:
            with member.limits.turn(time.monotonic() + seconds):
                member.origin_of(member.provider.analyse(PROBE_TEXT, time.monotonic() + seconds))
        except LimitedError as error:
            if error.paused:
                raise

    def _probe_within(self, member: Member, seconds: float) -> None:
        """As `_probe`, but a model that loads for longer keeps nobody from asking the others.

        One that was warm may have to be loaded again by its server.
        """
        alone = len(self._members) == 1
        probe = self._begin_probe(member, seconds, _always if alone else _none_under_way)
        if probe is None:
            raise member.still_loading()
        if alone:
            self._probe(member, seconds, probe)
            return
        patience = _PROBE_DEADLINES * seconds if member.warm else seconds
        try:
            error = self._probe_in_background(member, seconds, probe).get(timeout=patience)
        except queue.Empty:
            raise member.still_loading() from None
        if error is not None:
            raise error

    def _begin_probe(
        self, member: Member, seconds: float, may: Callable[[Breaker, float], bool]
    ) -> int | None:
        """Mark a model as being probed; the probe's number, None where it may not begin."""
        with self._lock:
            now = time.monotonic()
            if not may(member.breaker, now):
                return None
            member.breaker = breakers.probing(member.breaker, now + _probe_seconds(seconds))
            return member.breaker.probe

    def _probed(self, member: Member, probe: int, error: BaseException | None) -> None:
        """A probe ended, well without an error; one that was replaced changes nothing."""
        self._change(
            member,
            lambda before: breakers.probed(
                before,
                time.monotonic(),
                succeeded=error is None,
                probe=probe,
                chance=RANDOM.random(),
                access=isinstance(error, ModelAccessError),
            ),
        )

    def _probe_in_background(
        self, member: Member, seconds: float, probe: int
    ) -> queue.SimpleQueue[Exception | None]:
        """Look in the background at a model that is marked as looked at; then say how it went."""
        ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

        def look() -> None:
            try:
                self._probe(member, seconds, probe)
            except Exception as error:  # noqa: BLE001 said, and tried again when it is due
                why = _why(error)
                say(logging.DEBUG, "a model is still away", model=member.origin.name, why=why)
                ended.put(error)
            else:
                say(logging.INFO, "a model of the chain is ready", model=member.origin.name)
                ended.put(None)

        try:
            threading.Thread(target=look, daemon=True).start()
        except RuntimeError as error:  # the machine has no thread to spare
            self._probed(member, probe, error)
            ended.put(ModelUnavailableError(f"it could not be looked at: {error}"))
        return ended

    # --- the models' breakers; only a chain has them, the loop has one for all

    def _usable(self, member: Member) -> bool:
        seconds = member.deadline or 60.0
        probe = self._begin_probe(member, seconds, breakers.due)
        if probe is None:
            return member.breaker.closed
        self._probe_in_background(member, seconds, probe)
        return False

    def _warm_the_rest(self) -> None:
        """Fallbacks that were never ready are looked at while the others answer."""
        for member in self._members[1:]:
            if not member.warm:
                self._usable(member)

    def _failed(self, member: Member, error: Exception) -> None:
        effect = breaker_effect(error, math.inf, fallback=True)
        if effect is BreakerEffect.NONE:
            return  # it was not asked, or it is the text
        away = effect is BreakerEffect.OPENS
        before, after = self._change(
            member,
            lambda now: breakers.failed(now, time.monotonic(), away=away, chance=RANDOM.random()),
        )
        if before.closed and not after.closed:
            say(
                logging.WARNING,
                "a model fails; the next one of the chain answers",
                model=member.origin.name,
                why=_why(error),
            )

    def _change(
        self, member: Member, change: Callable[[Breaker], Breaker]
    ) -> tuple[Breaker, Breaker]:
        """Read, change and write a breaker under one lock; its states before and after."""
        with self._lock:
            before = member.breaker
            member.breaker = change(before)
            return before, member.breaker


class _Asked:
    """The calls about one text: each is checked, observed, and its tokens added up."""

    def __init__(self, chain: Chain, member: Member, text: str, deadline: float) -> None:
        self._chain = chain
        self._member = member
        self._text = text
        self._deadline = deadline
        self.content = ""
        self.usage: Usage | None = None
        self.answer = Answer("")

    def once(self, call: Callable[[], Answer], *, clamp: bool) -> ValidatedAnswer:
        """One call. Raises `ModelError`, `InvalidAnswerError`."""
        chain = self._chain
        begun = time.monotonic()
        answer: Answer | None = None
        ended: BaseException | None = None
        try:
            chain._before(self._deadline)
            answer = call()
            return validated.check(answer.content, self._text, chain.task, clamp=clamp)
        except InvalidAnswerError as error:
            ended = BadOutputError(str(error))
            raise
        except BaseException as error:
            ended = error
            raise
        finally:
            if answer is not None:
                self._note(answer)
            usage = answer.usage if answer else None
            seconds = time.monotonic() - begun
            chain._observe(Call(self._member.origin, seconds, ended, usage))

    def _note(self, answer: Answer) -> None:
        self.content = answer.content if isinstance(answer.content, str) else str(answer.content)
        self.answer = answer
        if answer.usage is not None:
            self.usage = answer.usage if self.usage is None else self.usage + answer.usage


def _in_full(answer: Answer, member: Member, text: str) -> Answer:
    """An answer, if it is about all of the text. Raises `CutError`."""
    room = getattr(member.provider, "context_tokens", None)
    if answer.usage is not None and context.was_cut(text, answer.usage.input_tokens, room):
        raise context.CutError(
            f"the model read {answer.usage.input_tokens} tokens, less than the text has; raise the "
            "server's context (MODEL_CONTEXT_TOKENS), or set MODEL_TEXT_TOO_LONG=shorten"
        )
    return answer


def _send_again_or_raise(
    error: TransientError, member: Member, spent: CallTime, begun: float, *, last: bool
) -> None:
    """Return if a call that failed is sent again when its model has a turn for it."""
    if isinstance(error, LimitedError):
        raise error
    if isinstance(error, OverloadedError) and member.limits.starved:
        raise ModelUnavailableError(f"{error}, and to every call before") from error
    if not _may_wait(error, spent, last=last):
        raise error
    spent.refused(begun)


def _may_wait(error: TransientError, spent: CallTime, *, last: bool) -> bool:
    """Whether a call that failed so may be sent again when its model has a turn for it.

    That is the server's overload, and no fault of the text. Where another model is asked next, only
    a short pause that the server asked for is waited for.
    """
    left = spent.deadline - time.monotonic()
    if error.retry_after is not None:
        pause = max(error.retry_after, SHORTEST_PAUSE)
        return pause <= (min(spent.seconds, spent.wait) if last else left / 2)
    return last and isinstance(error, OverloadedError) and left > 0 and spent.wait > 0


def _always(_: Breaker, __: float) -> bool:
    return True


def _none_under_way(breaker: Breaker, now: float) -> bool:
    return breaker.state is not breakers.State.PROBING or breakers.due(breaker, now)


def _opened(before: Breaker) -> Breaker:
    return Breaker(breakers.State.OPEN, probe=before.probe) if before.closed else before


def _probe_seconds(seconds: float) -> float:
    """How long a probe may take until it is replaced; seconds: one call's deadline."""
    return LONGEST_LOAD + _PROBE_DEADLINES * seconds


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, ModelError) else type(error).__name__
