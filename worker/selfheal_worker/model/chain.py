"""One text, one answer: which of the models is asked, and what if it fails.

The first model is the active one. The others are asked in their order when those before fail, and
their answers are degraded. A model that keeps failing is left alone and probed in the background,
so that messages do not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from selfheal_worker.model import chain_failure, context
from selfheal_worker.model.analysis import Analysis, Call, Options, Reply, nothing
from selfheal_worker.model.call_time import CallTime, Unwatched, Watched
from selfheal_worker.model.errors import TextTooLongError
from selfheal_worker.model.limits import Concurrency
from selfheal_worker.model.member import Member
from selfheal_worker.model.probe import Probes
from selfheal_worker.model.provider import Origin
from selfheal_worker.model.refusals import NO_HISTORY, RefusalHistory
from selfheal_worker.runtime import REAL, Runtime
from selfheal_worker.task.task import Task


class Chain:
    """The chain of models. `ask` is called by many threads at once.

    observe gets each call, loaded each model that became warm; both in any thread.
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
        runtime: Runtime = REAL,
    ) -> None:
        if not members:
            raise ValueError("a chain needs a model")
        self.task = task
        self.members = tuple(members)
        self._options = Options(task, clamp, shorten, observe, before, runtime)
        self._probes = Probes(self.members, loaded, runtime)

    @property
    def active(self) -> Origin:
        """The first model."""
        return self.members[0].origin

    @property
    def abandoned_calls(self) -> int:
        """Calls past their deadline that still run in client libraries."""
        return sum(getattr(one.provider, "abandoned_calls", 0) for one in self.members)

    @property
    def loading(self) -> bool:
        """Whether a model has not been ready yet: to load it may take longer than any call."""
        return not all(member.warm for member in self.members)

    def wake(self, seconds: float) -> None:
        """Have at least one model ready and answering, each call within so many seconds.

        Raises the active one's `ModelError`.
        """
        errors = self._probes.begin_with(seconds)
        if len(errors) == len(self.members):
            raise errors[0]

    def probe_due(self) -> None:
        """Have the models that are away probed in the background, where that is due.

        `ask` does it too; this is for the time in which nothing is asked.
        """
        self._probes.probe_due()

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
        `LONGEST_TURN_WAIT`. watched learns how far it is, and may give it up. history: of the
        message, for a text that is refused.
        """
        errors: list[Exception | None] = []
        spent = CallTime(
            deadline,
            watched or Unwatched(),
            wait=wait,
            now=self._options.runtime.monotonic,
        )
        self._probes.warm_others()
        for at, member in enumerate(self.members):
            remaining = len(self.members) - 1 - at
            try:  # first: a model that is away has no room for it when it is back either
                sent = context.fitted(text, member.longest_text, shorten=self._options.shorten)
            except TextTooLongError as error:
                if len(self.members) == 1:
                    raise
                errors.append(error)
                continue
            # The last one is asked whatever its breaker says, but no message waits for it to load.
            if (remaining or not member.warm) and not self._probes.usable(member):
                errors.append(None)
                continue
            try:
                part = spent
                if len(self.members) > 1 or member.deadline is not None:
                    until = member.until(spent.deadline, remaining)
                    part = spent.part(until, last=not remaining)
                if not member.warm:
                    self._probes.wake(member, part.deadline, part.turn(member.limits))
                analysis = Analysis(self._options, member, text, sent, part, history)
                reply = analysis.reply(last=not remaining, degraded=at > 0)
            except Exception as error:
                if len(self.members) == 1:
                    raise
                errors.append(error)
                self._probes.failed(member, error)
            else:
                member.circuit.succeeded()
                return reply
        raise chain_failure.combined(errors)

    def patience(self, seconds: float) -> float:
        """For how long a message that has so many seconds may wait for each of the models."""
        return min(member.deadline or seconds for member in self.members)

    def concurrency(self) -> list[tuple[Origin, Concurrency]]:
        """How many calls of each model run, and how many may."""
        return [(member.origin, member.limits.used) for member in self.members]

    def release(self) -> None:
        """Who waits for a turn and was given up does so no longer."""
        for member in self.members:
            member.limits.wake()

    def close(self) -> None:
        """Let go of all models; whoever waits for a turn stops waiting."""
        for member in self.members:
            member.limits.close()
            member.provider.close()
