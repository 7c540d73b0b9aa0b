"""The list and watch of one draining node's pods.

PodWatch runs in the thread `pods-NODE`, which also reads what decides whether the drain begins.
PodNews is what it posts to the main thread.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import partial
from operator import attrgetter

from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.filters import Surroundings
from selfheal_remediator.drain.node_pods import node_pod_from_json
from selfheal_remediator.drain.preflight import Departure, Preflight
from selfheal_remediator.drain.returns import CLOCK_TOLERANCE
from selfheal_remediator.drain.running import Callbacks, RunningDrain
from selfheal_remediator.kube.client import Collection
from selfheal_remediator.kube.informer import Change, Informer, WatchEvent
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.threads.pool import Post
from selfheal_remediator.threads.runtime import REAL, Event, Runtime


class PodNews:
    """What the watch says about one drain's pods. All methods run on the main thread."""

    def __init__(self, run: RunningDrain, preflight: Preflight, callbacks: Callbacks) -> None:
        self._run, self._preflight, self._callbacks = run, preflight, callbacks

    def changed(self, change: Change[Pod], *, listed: bool) -> None:
        """A pod changed; listed: a list from the server itself shows it."""
        drain, old, new = self._run.drain, change.old, change.new
        late = listed and new is not None and _was_there(new, drain)
        drain.pod_changed(old, new, late=late)
        if new is None and old is not None:
            self._preflight.rooms.pod_left(drain.uid, old.uid)
        self._run.news = True

    def known(self, around: Surroundings, no_room: str, *, sure: bool) -> None:
        """All pods are known, and what they need; no_room: why they fit nowhere else, empty = they
        do."""
        run = self._run
        if run.stop.is_set():
            return  # it was ended meanwhile
        if no_room:
            run.ended = True
            self._callbacks.no_room(run.drain, no_room)
            return
        run.drain.surroundings_changed(around)
        run.drain.synced = True
        run.listed(sure=sure)

    def listed_again(self, *, sure: bool) -> None:
        """All pods were listed once more; sure: not from a cache."""
        self._run.listed(sure=sure)


def _was_there(pod: Pod, drain: NodeDrain) -> bool:
    """Whether the pod was made before the drain began: a cache did not show it, it is no return."""
    return pod.created is None or pod.created < drain.started - CLOCK_TOLERANCE


class PodWatch:
    """See the module. `informer` is for the main thread, all else runs in its thread."""

    def __init__(
        self,
        pods: Collection,
        departure: Departure,
        drain: NodeDrain,
        preflight: Preflight,
        news: PodNews,
        post: Post,
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._departure, self._drain = departure, drain
        self._preflight, self._news, self._post = preflight, news, post
        self._source = _CachedFirst(pods)
        self.informer: Informer[Pod] = Informer(
            self._source,
            node_pod_from_json,
            attrgetter("id"),
            self._changed,
            departure.stop,
            thread="pods",
            name=f"pods-{departure.node}",
            what=f"pods of {departure.node}",
            on_sync=self._synced,
            runtime=runtime,
        )

    def _changed(self, change: Change[Pod]) -> None:
        listed = self._source.listing and not self._source.cached
        self._post(partial(self._news.changed, change, listed=listed))

    def _synced(self) -> None:
        sure = not self._source.cached
        if self._drain.synced:
            self._post(partial(self._news.listed_again, sure=sure))
            return
        pods = list(self.informer.items.values())
        around = self._preflight.surroundings(self._departure, pods)
        no_room = self._preflight.no_room(self._departure, pods, around)
        self._post(partial(self._news.known, around, no_room, sure=sure))


class _CachedFirst:
    """Lists from the server's watch cache at first: every eviction is guarded by the pod's uid."""

    def __init__(self, pods: Collection) -> None:
        self._pods = pods
        self._listed = False
        #: Whether the last list was from the cache; and whether it is being posted.
        self.cached = self.listing = True

    def pages(self) -> Iterator[tuple[list[Json], str]]:
        self.cached, self._listed, self.listing = not self._listed, True, True
        return self._pods.pages(cached=self.cached)

    def watch(self, version: str, stop: Event) -> Generator[WatchEvent, None, None]:
        self.listing = False
        return self._pods.watch(version, stop)

    def close(self) -> None:
        self._pods.close()
