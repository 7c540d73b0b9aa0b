"""Watches the release's ConfigMap and objects, and has missing ones made again.

A `Restorer` is there for the whole process; its watches and its state last for one term of
leadership. The methods marked so run in the watches' threads (`restore`) or in a worker, all others
on the main thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from selfheal_remediator.config import Restore
from selfheal_remediator.failures import NotLeader
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.informer import Change, Informer
from selfheal_remediator.restore.engine import Action, Restoring, Task
from selfheal_remediator.restore.errand import Outcome, Result, carry_out
from selfheal_remediator.restore.live import Live, live_of
from selfheal_remediator.restore.notices import Notice, Notices
from selfheal_remediator.restore.release import KINDS, Kind, Release, release_from_json
from selfheal_remediator.threads.pool import Post, Purpose, Workers
from selfheal_remediator.threads.runtime import Event


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What restoring needs of the controller. tell: publishes a notice; ended: counts an action by
    its task and outcome; state: publishes how many objects are missing, and what differs."""

    tell: Callable[[Notice], None]
    ended: Callable[[str, str], None]
    state: Callable[[int, Mapping[str, int]], None]


class Restorer:
    """See the module. namespace: the release's, which is ours."""

    def __init__(
        self,
        api: KubernetesApi,
        namespace: str,
        workers: Workers,
        post: Post,
        callbacks: Callbacks,
        clock: Callable[[], float],
    ) -> None:
        self._api, self._namespace, self._clock = api, namespace, clock
        self._workers, self._post, self._callbacks = workers, post, callbacks
        self._notices = Notices(callbacks.tell)
        #: What is followed: the settings, and whether changes are only dry runs.
        self._followed = (Restore(), False)
        self._restoring: Restoring | None = None
        self._config_map: Informer[Release] | None = None
        self._watches: dict[str, Informer[Live]] = {}

    def follow(self, settings: Restore, *, leading: bool) -> None:
        """Watch while this process leads and the configuration wants it."""
        wanted, followed = leading and settings.enabled, (settings, self._api.dry_run)
        if wanted and self._restoring is not None and followed == self._followed:
            return
        self._end()
        self._followed = followed
        if not wanted:
            return
        restoring = Restoring(settings.grace_period, settings.correct_drift)
        self._restoring = restoring
        self._config_map = Informer(
            self._api.config_map_watch(self._namespace, settings.config_map),
            release_from_json,
            attrgetter("key"),
            partial(self._release_changed, restoring),
            self._workers.runtime.event(),
            thread="restore",
            what=f"ConfigMap {settings.config_map}",
            runtime=self._workers.runtime,
        )
        self._config_map.start()

    def _end(self) -> None:
        """Nothing more is heard or done."""
        if self._config_map is None:
            return
        self._config_map.end()
        for watch in self._watches.values():
            watch.end()
        self._restoring = self._config_map = None
        self._watches = {}
        self._callbacks.state(0, {})

    def advance(self, now: float, *, stopped: bool) -> float:
        """Begin what is due; stopped: only what takes our ConfigMap away as an owner, or whoever
        ends restoring meanwhile loses the object with it. Returns when to be called again."""
        restoring = self._restoring
        if restoring is None:
            return float("inf")
        actions = restoring.decide(now)
        drift = restoring.drift(now)
        self._notices.observed(restoring, drift)
        fields = Counter(
            field
            for differences in drift.values()
            for field in {difference.field for difference in differences}
        )
        self._callbacks.state(restoring.missing(), fields)
        if stopped:
            actions = [action for action in actions if action.task is Task.RELEASE]
        self._begin(restoring, actions)
        return restoring.wake(now)

    def _begin(self, term: Restoring, actions: Sequence[Action]) -> None:
        try:
            begun = self._api.fence()
        except NotLeader:
            return  # the term ends in a moment
        for action in actions:
            term.began(action)
            errand = partial(self._carry_out, term, action, begun)
            self._workers.submit(errand, Purpose.LOOKUPS, "restores")

    # -- in the watches' threads -----------------------------------------------------------

    def _release_changed(self, term: Restoring, change: Change[Release]) -> None:
        self._post(partial(self._take_release, term, change.new))

    def _object_changed(self, term: Restoring, ended: Event, change: Change[Live]) -> None:
        if change.old != change.new:  # a status changes often
            self._post(partial(self._take_object, term, ended, change.old, change.new))

    def _all_listed(self, term: Restoring, ended: Event, kind: Kind) -> None:
        self._post(partial(self._take_list, term, ended, kind))

    # -- in a worker -----------------------------------------------------------------------

    def _carry_out(self, term: Restoring, action: Action, begun: object) -> None:
        result = carry_out(self._api, action, begun)
        self._post(partial(self._ended, term, action, result))

    # -- on the main thread ----------------------------------------------------------------

    def _take_release(self, term: Restoring, release: Release | None) -> None:
        if term is not self._restoring:
            return
        term.release = release
        if release is None:
            return
        kinds = {wanted.kind.name for wanted in release.objects.values()}
        for kind in self._watches.keys() - kinds:  # its API may go, as KEDA's
            self._watches.pop(kind).end()
            term.forget(kind)
        for kind in kinds:
            self._watch(term, release, KINDS[kind])

    def _watch(self, term: Restoring, release: Release, kind: Kind) -> None:
        if kind.name in self._watches:
            return
        selectors, ended = {"labelSelector": release.selector}, self._workers.runtime.event()
        watch: Informer[Live] = Informer(
            self._api.objects(kind.api, kind.plural, release.namespace, selectors),
            live_of(kind),
            attrgetter("key"),
            partial(self._object_changed, term, ended),
            ended,
            thread="restore",
            what=f"the release's {kind.plural}",
            on_sync=partial(self._all_listed, term, ended, kind),
            runtime=self._workers.runtime,
        )
        self._watches[kind.name] = watch
        watch.start()

    def _take_object(
        self, term: Restoring, ended: Event, old: Live | None, new: Live | None
    ) -> None:
        if ended.is_set():
            return
        if new is not None:
            term.live[new.key] = new
        elif old is not None:
            term.live.pop(old.key, None)

    def _take_list(self, term: Restoring, ended: Event, kind: Kind) -> None:
        if not ended.is_set():
            term.listed.add(kind.name)

    def _ended(self, term: Restoring, action: Action, result: Result) -> None:
        if term is not self._restoring:
            return
        term.ended(action, self._clock(), dry_run=result.outcome is Outcome.DRY_RUN)
        self._callbacks.ended(action.task.value, result.outcome.value)
        self._notices.ended(action, result)
