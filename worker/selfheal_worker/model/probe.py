"""Whether the models of a chain answer: each is warmed up, and probed again once it has failed."""

from __future__ import annotations

import logging
import math
import queue
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

from selfheal_worker.logs import say
from selfheal_worker.model import breaker as breakers
from selfheal_worker.model.analysis import PROBE_TEXT
from selfheal_worker.model.breaker import Breaker
from selfheal_worker.model.errors import ModelAccessError, ModelError, ModelUnavailableError
from selfheal_worker.model.failure_effects import BreakerEffect, breaker_effect
from selfheal_worker.model.limits import LimitedError
from selfheal_worker.model.load_time import LONGEST_LOAD
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Origin
from selfheal_worker.model.turns import keep_pause
from selfheal_worker.runtime import REAL, Queue, Runtime

# How many deadlines the probe of a model that is warm may take, if its server need not load it:
# warm-up, name look-up and call, and the turns for them.
_PROBE_DEADLINES = 5


class Probes:
    """The models of a chain and their breakers. For any thread; `_probe_and_report` runs in a
    `model-probe` thread. Only a chain needs the breakers: the worker has one for all models."""

    def __init__(
        self,
        members: Sequence[Member],
        loaded: Callable[[Origin, float], None],
        runtime: Runtime = REAL,
    ) -> None:
        """loaded: as for `Chain`."""
        self._members = members
        self._loaded = loaded
        self._runtime = runtime

    def wake(self, member: Member, deadline: float, turn: AbstractContextManager[None]) -> None:
        """Warm a model up. Raises `ModelError`; deadline and turn: as for `Member.wake`."""
        seconds = member.wake(deadline, turn)
        if seconds is not None:
            self._loaded(member.origin, seconds)

    def begin_with(self, seconds: float) -> list[Exception]:
        """Probe the models one after the other until one answers; returns why those before it do
        not."""
        errors: list[Exception] = []
        for member in self._members:
            try:
                self._probe_within(member, seconds)
            except Exception as error:  # noqa: BLE001 a plug-in's fault is a model that is away
                errors.append(error)
            else:
                break
        for member in self._members:
            if not member.warm:
                member.circuit.change(_opened_if_closed)
        self.warm_others()
        return errors

    def usable(self, member: Member) -> bool:
        """Whether a model may be asked. If its probe is due, that is begun in the background."""
        seconds = member.deadline or 60.0
        probe = member.circuit.begin_probe(_probe_seconds(seconds), breakers.due)
        if probe is None:
            return member.circuit.closed
        self._probe_in_background(member, seconds, probe)
        return False

    def warm_others(self) -> None:
        """Fallbacks that were never ready are probed while the others answer."""
        for member in self._members[1:]:
            if not member.warm:
                self.usable(member)

    def probe_due(self) -> None:
        """Models that are away are probed also while no message comes."""
        if len(self._members) == 1:
            return  # the worker's own breaker sees to it
        for member in self._members:
            if not member.circuit.closed:
                self.usable(member)

    def failed(self, member: Member, error: Exception) -> None:
        """A call of a model failed with this error."""
        effect = breaker_effect(error, math.inf, fallback=True)
        if effect is BreakerEffect.NONE:
            return  # it was not called, or the text is at fault
        away = effect is BreakerEffect.OPENS
        if member.circuit.failed(_why(error), away=away):
            say(
                logging.WARNING,
                "a model fails; the next one of the chain answers",
                model=member.origin.name,
                why=_why(error),
            )

    # --- one probe

    def _probe(self, member: Member, seconds: float, probe: int) -> None:
        """Warm a model up; one that was warm before also has to answer a text of ours. Raises what
        it fails with.

        The probe keeps to the model's limits and to a pause that its server requested. A single
        model that was only paused counts as there when the pause is over: the next message shows
        it, and no text of ours uses up the quota. In a chain the others answer meanwhile, so a
        text of ours is sent instead of risking a message.
        """
        was_warm = member.warm
        alone = len(self._members) == 1
        try:
            if was_warm and alone and member.limits.only_paused(member.deadline or seconds):
                member.limits.check_pause()
                _note_end(member, probe, None)
                return
            now = self._runtime.monotonic()
            self.wake(member, now + _probe_seconds(seconds), member.limits.turn(now + seconds))
            if was_warm:
                _have_answered(member, seconds, self._runtime)
        except BaseException as error:
            _note_end(member, probe, error)
            raise
        _note_end(member, probe, None)

    def _probe_within(self, member: Member, seconds: float) -> None:
        """As `_probe`, but waits no longer than `seconds` for a model of a chain: meanwhile the
        others can be called. One that was warm gets longer: its server may have to load it again.
        """
        alone = len(self._members) == 1
        may = None if alone else _may_begin
        probe = member.circuit.begin_probe(_probe_seconds(seconds), may)
        if probe is None:
            raise member.still_loading()
        if alone:
            self._probe(member, seconds, probe)
            return
        patience = _PROBE_DEADLINES * seconds if member.warm else seconds
        try:
            ended = self._probe_in_background(member, seconds, probe)
            error: Exception | None = ended.get(timeout=patience)
        except queue.Empty:
            raise member.still_loading() from None
        if error is not None:
            raise error

    def _probe_in_background(self, member: Member, seconds: float, probe: int) -> Queue:
        """Probe a model that is marked as being probed in the background. The queue gets how that
        ended: None if the model is there, else the exception."""
        ended = self._runtime.queue()
        report = partial(self._probe_and_report, member, seconds, probe, ended)
        try:
            self._runtime.start("model-probe", report)
        except RuntimeError as error:  # the machine has no thread to spare
            _note_end(member, probe, error)
            ended.put(ModelUnavailableError(f"it could not be probed: {error}"))
        return ended

    def _probe_and_report(self, member: Member, seconds: float, probe: int, ended: Queue) -> None:
        try:
            self._probe(member, seconds, probe)
        except Exception as error:  # noqa: BLE001 logged, and tried again when it is due
            why = _why(error)
            say(logging.DEBUG, "a model is still away", model=member.origin.name, why=why)
            ended.put(error)
        else:
            say(logging.INFO, "a model of the chain is ready", model=member.origin.name)
            ended.put(None)


def _have_answered(member: Member, seconds: float, runtime: Runtime) -> None:
    """Have a model answer that was warmed up just now, if its limit leaves a turn for that."""
    try:
        with member.limits.turn(runtime.monotonic() + seconds):
            answer = member.provider.analyse(PROBE_TEXT, runtime.monotonic() + seconds)
            keep_pause(answer.pause)
            member.origin_of(answer, member.origin)
    except LimitedError as error:
        if error.paused:
            raise


def _note_end(member: Member, probe: int, error: BaseException | None) -> None:
    """A probe ended; error: None = it succeeded. One that was replaced meanwhile changes
    nothing."""
    access = isinstance(error, ModelAccessError)
    member.circuit.probed("", succeeded=error is None, probe=probe, access=access)


def _may_begin(breaker: Breaker, now: float) -> bool:
    """Whether a probe may begin: none is under way, or it has taken too long."""
    return breaker.state is not breakers.State.PROBING or breakers.due(breaker, now)


def _opened_if_closed(before: Breaker) -> Breaker:
    """A closed breaker opens, and its first probe is due at once."""
    return Breaker(breakers.State.OPEN, probe=before.probe) if before.closed else before


def _probe_seconds(seconds: float) -> float:
    """How long a probe may take until it is replaced; seconds: one call's deadline."""
    return LONGEST_LOAD + _PROBE_DEADLINES * seconds


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, ModelError) else type(error).__name__
