"""The watch of all PodDisruptionBudgets, while a drain needs them.

It begins with the first pod that a budget refuses. All methods run on the main thread; the watch
itself runs in the thread `budgets` and posts what it hears.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter

from selfheal_remediator.drain.running import RunningDrain
from selfheal_remediator.kube.budgets import Budget, budget_from_json
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.informer import Change, Informer
from selfheal_remediator.threads.pool import Post
from selfheal_remediator.threads.runtime import REAL, Event, Runtime

#: So long (seconds) after the last drain needed it the watch ends.
BUDGETS_KEPT = 60.0


class BudgetWatch:
    """running: the drains under way, by their nodes' uids."""

    def __init__(
        self,
        api: KubernetesApi,
        post: Post,
        running: Mapping[str, RunningDrain],
        clock: Callable[[], float],
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._runtime = runtime
        self._api, self._post, self._running, self._clock = api, post, running, clock
        self._known: dict[str, Budget] = {}
        self._informer: Informer[Budget] | None = None
        self._unused_since: float | None = None

    def begin(self, run: RunningDrain) -> None:
        """A drain begins: it hears what is known already."""
        for budget in self._known.values():
            run.drain.budget_changed(budget, self._clock())

    def need(self) -> None:
        """A budget refused an eviction: watch them all, if that is not done yet."""
        if self._informer is not None:
            return
        stop = self._runtime.event()
        self._informer = Informer(
            self._api.budgets(),
            budget_from_json,
            attrgetter("id"),
            partial(self._heard, stop),
            stop,
            thread="budgets",
            what="PodDisruptionBudgets",
            runtime=self._runtime,
        )
        self._informer.start()

    def _heard(self, stop: Event, change: Change[Budget]) -> None:
        """In the thread of the watch."""
        self._post(partial(self._changed, stop, change))

    def _changed(self, stop: Event, change: Change[Budget]) -> None:
        budget = change.new or change.old
        if budget is None or stop.is_set():
            return  # of a watch that was ended: a later one may already have reported more
        if change.new is None:
            self._known.pop(budget.uid, None)
        else:
            self._known[budget.uid] = budget
        for run in self._running.values():
            run.drain.budget_changed(budget, self._clock(), gone=change.new is None)
            run.news = True

    def end_unused(self, now: float) -> None:
        """End the watch once no drain has needed it for a while."""
        if self._informer is None:
            return
        if any(not run.drain.after or run.drain.evictions for run in self._running.values()):
            self._unused_since = None
        elif self._unused_since is None:
            self._unused_since = now
        elif now - self._unused_since > BUDGETS_KEPT:
            self.end()

    def end(self) -> None:
        """No drain believes what it heard of budgets: nobody would tell that one is gone."""
        if self._informer is not None:
            self._informer.end()
        self._informer = self._unused_since = None
        self._known.clear()
        for run in self._running.values():
            run.drain.budgets.known.clear()
