"""One text, one model: its calls, the check of what it says, and when it is asked again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from selfheal_worker.model import context
from selfheal_worker.model.call_time import CallTime
from selfheal_worker.model.errors import (
    BadOutputError,
    ModelUnavailableError,
    OverloadedError,
    RefusedTextError,
    TextTooLongError,
    TransientError,
)
from selfheal_worker.model.limits import SHORTEST_PAUSE, LimitedError
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer, Origin, RepairRequest, Usage
from selfheal_worker.model.refusals import RefusalHistory
from selfheal_worker.model.turns import keep_pause
from selfheal_worker.runtime import REAL, Runtime
from selfheal_worker.task import answer as validated
from selfheal_worker.task.answer import InvalidAnswerError, ValidatedAnswer
from selfheal_worker.task.task import Task

#: What a model is asked to see whether it is there again.
PROBE_TEXT = "The delivery came on time and everything works."
#: Of a plug-in that found its model's answer invalid itself.
_NO_ANSWER = Answer("")


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


@dataclass(frozen=True, slots=True)
class Options:
    """How all models are asked. clamp: a number out of range becomes the range's end; shorten: of a
    text that is too long, head and tail are read; observe, before: as for `Chain`."""

    task: Task
    clamp: bool = False
    shorten: bool = False
    observe: Callable[[Call], None] = nothing
    before: Callable[[float], None] = nothing
    runtime: Runtime = REAL


class Analysis:
    """One text that one model is asked about. For the thread of the handler that works on it.

    whole: the text; sent: what of it fits into the model's context, as far as that is known; spent:
    the time for it; history: of its message, for a text that is refused.
    """

    def __init__(
        self,
        options: Options,
        member: Member,
        whole: str,
        sent: str,
        spent: CallTime,
        history: RefusalHistory,
    ) -> None:
        self._options = options
        self._member = member
        self._whole = whole
        self._sent = sent
        self._spent = spent
        self._history = history
        self._times_shortened = 0

    def reply(self, *, last: bool, degraded: bool) -> Reply:
        """What the model says. Raises `ModelError`. last: no other model is asked after it."""
        member, spent = self._member, self._spent
        while True:
            calls = _Calls(self._options, member, self._whole, spent)
            try:
                answer = self._answer(calls)
                member.refusals.taken(calls.begun)
                origin = member.origin_of(calls.answer, calls.origin)
                truncated = self._sent is not self._whole
                return Reply(answer, origin, degraded, calls.usage, truncated=truncated)
            except RefusedTextError as error:
                if not isinstance(error, context.CutError):  # that one is an answer
                    member.refusals.confirm(
                        error, calls.begun, spent.deadline, self._send_ours, self._history
                    )
                self._shorten_or_raise(error)
            except TransientError as error:
                _send_again_or_raise(error, member, spent, calls.begun, last=last)

    def _shorten_or_raise(self, error: RefusedTextError) -> None:
        if not self._options.shorten or not isinstance(error, TextTooLongError):
            raise error
        shorter = context.shorter(self._whole, self._sent, self._times_shortened)
        if shorter is None or self._spent.left() <= 0:
            raise error
        self._sent = shorter
        self._times_shortened += 1

    def _answer(self, calls: _Calls) -> ValidatedAnswer:
        """What the model says of what is sent."""
        repair_request = self._member.repair_request
        try:
            clamp = self._options.clamp and repair_request is None
            return calls.once(self._analyse, clamp=clamp)
        except InvalidAnswerError as error:
            if repair_request is None or self._spent.left() <= 0:
                raise BadOutputError(str(error)) from None
            return self._repaired(repair_request, calls, str(error))

    def _analyse(self) -> Answer:
        member = self._member
        answer = member.provider.analyse(self._sent, self._spent.deadline)
        return _in_full(answer, member, self._sent)

    def _repaired(
        self, repair_request: RepairRequest, calls: _Calls, problem: str
    ) -> ValidatedAnswer:
        """The model's answer when the request says what was wrong with the one before."""
        repair = partial(self._repair, repair_request, str(calls.answer.content), problem)
        try:
            return calls.once(repair, clamp=self._options.clamp)
        except InvalidAnswerError as again:
            raise BadOutputError(str(again)) from None
        except (RefusedTextError, LimitedError):
            # The text was taken; what the model made of it is too long, or filtered, beside it. Or
            # the limits leave no turn for another request.
            raise BadOutputError(problem) from None

    def _repair(self, repair_request: RepairRequest, before: str, problem: str) -> Answer:
        answer = repair_request.repair(self._sent, before, problem, self._spent.deadline)
        return _in_full(answer, self._member, self._sent)

    def _send_ours(self) -> None:
        """Have the model analyse a text that it surely takes."""
        with self._spent.turn(self._member.limits):
            keep_pause(self._member.provider.analyse(PROBE_TEXT, self._spent.deadline).pause)


class _Calls:
    """The calls about one text: each has a turn, is checked and observed, and its tokens are added
    up. For the thread that makes them. begun: when the last one was sent; answer, origin: what came
    of it, and from whom."""

    answer = _NO_ANSWER
    origin: Origin

    def __init__(self, options: Options, member: Member, text: str, spent: CallTime) -> None:
        self._options = options
        self._member = member
        self._text = text
        self._spent = spent
        self._now = options.runtime.monotonic
        self.begun = self._now()
        self.usage: Usage | None = None

    def once(self, call: Callable[[], Answer], *, clamp: bool) -> ValidatedAnswer:
        """One call. Raises `ModelError`, `InvalidAnswerError`."""
        with self._spent.turn(self._member.limits):
            self.begun = self._now()
            try:
                return self._observed(call, clamp=clamp)
            except InvalidAnswerError as error:
                invalid = error  # for the limits that is an answer
        raise invalid

    def _observed(self, call: Callable[[], Answer], *, clamp: bool) -> ValidatedAnswer:
        options = self._options
        answer: Answer | None = None
        ended: BaseException | None = None
        try:
            options.before(self._spent.deadline)
            answer = call()
            return validated.check(answer.content, self._text, options.task, clamp=clamp)
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
            seconds = self._now() - self.begun
            self.origin = self._member.origin
            options.observe(Call(self.origin, seconds, ended, usage))

    def _note(self, answer: Answer) -> None:
        keep_pause(answer.pause)
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
    left = spent.left()
    if error.retry_after is not None:
        pause = max(error.retry_after, SHORTEST_PAUSE)
        return pause <= (min(spent.seconds, spent.wait) if last else left / 2)
    return last and isinstance(error, OverloadedError) and left > 0 and spent.wait > 0
