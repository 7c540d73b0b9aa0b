"""List and watch: keeps what is known of a collection equal to what the API server says.

`Informer` is how every collection is watched: a `Reflector`, which lists and watches, with a thread
of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Generic, Protocol

from selfheal_remediator.failures import ApiFailure, Expired, Malformed
from selfheal_remediator.kube.decoding import UnreadObjects, text_at
from selfheal_remediator.kube.json_values import as_name
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import understood
from selfheal_remediator.kube.store import Change, ObjectStore, T, WatchEvent, differences
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.runtime import REAL, Event, Runtime
from selfheal_remediator.threads.supervision import Unexpected

__all__ = ["Change", "Informer", "Reflector", "WatchEvent", "Watched", "differences"]
__all__ += ["version_number"]

log = logging.getLogger(__name__)


def version_number(version: str) -> int:
    """A resourceVersion for comparing: of one collection the later one is higher."""
    return int(version) if version.isdigit() else 0


class Source(Protocol):
    """Where a reflector lists and watches."""

    def pages(self) -> Iterator[tuple[list[Json], str]]:
        """Pages of raw objects, each with the list's resourceVersion. Raises ApiFailure."""

    def watch(self, version: str, stop: Event) -> Generator[WatchEvent, None, None]:
        """Events since `version` until the server ends it, or until it is closed. Raises
        ApiFailure, Expired."""


class Watched(Source, Protocol):
    """A source whose watch another thread can end (collection.Collection)."""

    def close(self) -> None:
        """End the watch under way, if there is one."""


#: If a watch gave no sign of life for so long (seconds), nothing is started on its data.
WATCH_LOST = 120.0

#: A watch that ends after so long (seconds) without a sign of life had not even a bookmark, which
#: comes once a minute: everything is read again. Less than transport.WATCH_SILENCE, which ends it.
WATCH_MUTE = 75.0

#: Between these (seconds) is what `timeoutSeconds` asks for, after which a server ends a watch. One
#: that fails, or ends sooner, was ended by something else: the server or its etcd may have been
#: started again, and then with an older state.
WATCH_SECONDS = (240, 300)

#: A version that expires again and again is reported so often (seconds).
EXPIRED_EVERY = 60.0


#: A watch that ends sooner (seconds) is tried again with a growing delay.
SHORTEST_WATCH = 1.0


class RelistRequests:
    """Requests to have everything read again, from any thread. Each has a number."""

    def __init__(self, *, runtime: Runtime = REAL) -> None:
        self._last = 0
        self._again = runtime.event()

    def ask(self) -> int:
        """One more; returns its number."""
        self._last += 1
        self._again.set()
        return self._last

    @property
    def pending(self) -> bool:
        """Whether one was made and no list has begun since."""
        return self._again.is_set()

    def begin(self) -> int:
        """A list begins: returns the last request, which it answers."""
        self._again.clear()
        return self._last


@dataclass(slots=True)
class Position:
    """Where a watch is. version: the last one that was processed: a broken watch continues from
    there, not from its start, otherwise old events would be reported again; None = list everything.
    heard: the last one that was heard of, kept also when everything is to be read. doubtful: the
    server may be an older one than that was heard from. restored: it is known to be.
    watching_since: when the watch under way began, by the monotonic clock.
    """

    version: str | None = None
    heard: str = ""
    doubtful: bool = False
    restored: bool = False
    watching_since: float = float("inf")

    def listed(self, version: str, *, agrees: bool) -> bool:
        """A list shows this version; agrees: each object that it `covers` is as it was heard of.
        Returns whether the server went back in time."""
        restored = self.restored or self.is_ahead_of(version) or not agrees
        self.heard, self.doubtful, self.restored = version, False, False
        return restored

    def covers(self, raw: Json) -> bool:
        """Whether the object, as it is listed now, was to be heard of already."""
        changed = version_number(text_at(raw, "resourceVersion"))
        return 0 < changed <= version_number(self.heard)

    def is_ahead_of(self, version: str) -> bool:
        """Whether what was heard of comes only after this version."""
        return 0 < version_number(version) < version_number(self.heard)


@dataclass(frozen=True, slots=True)
class LastList:
    """The last complete list. begun: monotonic time at which it was begun; version: it shows
    everything in; answers: the last request for a list that it answers."""

    begun: float = 0.0
    version: int = 0
    answers: int = 0


def _nothing() -> None:
    """Each object was passed on already."""


class Reflector(Generic[T]):
    """Keeps `items` equal to a collection and tells `on_change` about each difference.

    `on_sync` is called after each complete list. Runs until `stop` is set; every failure is
    reported to `on_failure` and tried again with jittered backoff (0.2 s to 10 s), also what the
    callbacks raise. After a 410 all is listed at once, after the next one with backoff.

    An object that cannot be read is reported to `on_failure` once and is in `unread`; what was
    read of it before still counts. `on_unread_gone` is called when one was deleted of which nothing
    ever was.
    """

    def __init__(
        self,
        source: Source,
        decode: Callable[[Json], T],
        key: Callable[[T], str],
        on_change: Callable[[Change[T]], None],
        on_sync: Callable[[], None],
        on_failure: Callable[[ApiFailure], None],
        stop: Event,
        *,
        on_unread_gone: Callable[[], None] = _nothing,
        runtime: Runtime = REAL,
    ) -> None:
        self._source, self._stop, self._runtime = source, stop, runtime
        self._on_change, self._on_sync, self._on_failure = on_change, on_sync, on_failure
        self._store: ObjectStore[T] = ObjectStore(decode, key, on_failure)
        #: Monotonic time of the last sign of life of the watch (event, bookmark, list).
        self.last_contact = runtime.monotonic()
        self.last_list = LastList()
        self.requests = RelistRequests(runtime=runtime)
        self._position = Position()
        self._on_unread_gone = on_unread_gone

    @property
    def items(self) -> Mapping[str, T]:
        """What is known, by key."""
        return self._store.items

    @property
    def unread(self) -> UnreadObjects:
        """What cannot be read."""
        return self._store.unread

    @property
    def left_out(self) -> int:
        """How many objects cannot be read and are not known from before."""
        return self._store.left_out

    def ask_relist(self) -> int:
        """Have everything read again; `Informer.end_stale_watch` ends the watch under way.

        Returns the request's number: it is answered by a list that was begun after it, which
        `last_list.answers` says while on_sync is called. A list that was under way does not
        answer it.
        """
        return self.requests.ask()

    @property
    def relist_pending(self) -> bool:
        """Whether a complete read was asked for and has not begun."""
        return self.requests.pending

    def run(self) -> None:
        """List, then watch, until `stop` is set."""
        failures, reported_at = 0, float("-inf")
        while not self._stop.is_set():
            failure = self._list_and_watch()
            lived = self._runtime.monotonic() - self._position.watching_since >= SHORTEST_WATCH
            if lived:
                failures = 0
            if isinstance(failure, Expired | Unexpected | Malformed):
                self._position.version = None  # a watch would end at the same event again
            fresh = failure is None or isinstance(failure, Expired)
            if self.requests.pending or (lived and fresh):
                continue  # it was ended for a list, or has ended as every watch does
            failures += 1
            if isinstance(failure, Expired):
                if failures == 1:
                    continue  # once is how a watch ends; again and again is a broken server
                if self._runtime.monotonic() - reported_at >= EXPIRED_EVERY:
                    reported_at = self._runtime.monotonic()
                    self._on_failure(failure)
            elif failure is not None:
                self._on_failure(failure)
            self._stop.wait(supervision.backoff(failures, self._runtime.random))

    def _list_and_watch(self) -> ApiFailure | None:
        """Until the watch ends; returns what ended it or kept it from beginning, None = itself."""
        self._position.watching_since = float("inf")
        try:
            with supervision.expected("watch", "this list and watch", runtime=self._runtime):
                if self._position.doubtful:
                    self._check_version()
                while self._position.version is None or self.requests.pending:
                    self._position.version = None  # until it is read: a failed list is tried again
                    self._position.version = self.relist()
                began = self._position.watching_since = self._runtime.monotonic()
                self._position.doubtful = True  # unless it ends as it should
                try:
                    self._watch(self._position.version)
                    lasted = self._runtime.monotonic() - began
                    self._position.doubtful = lasted < WATCH_SECONDS[0]
                finally:
                    if self._runtime.monotonic() - max(began, self.last_contact) >= WATCH_MUTE:
                        # Not even a bookmark: a server that went back in time (etcd was restored)
                        # tells nothing until its versions have caught up with ours.
                        self._position.version = None
        except ApiFailure as failure:
            return failure
        return None

    def _check_version(self) -> None:
        """Have everything read again where the server does not know what we heard of.

        etcd was restored from a backup then. A watch from a version that is still to come tells
        nothing until the versions have caught up, and the changes until then never
        (https://github.com/kubernetes/kubernetes/issues/107457). client-go reads everything after
        each watch that failed (https://github.com/kubernetes/kubernetes/issues/107133); here the
        first page of a list, which is never stale, tells whether that is needed: by its version or,
        where that has caught up, by an object that changed up to ours and is not as we know it.
        (After `etcdutl snapshot restore --bump-revision` a watch from our version gets a 410.)
        """
        if self._position.version is None or self.requests.pending:
            return  # it is
        position = self._position
        for raws, version in self._source.pages():
            agrees = self._store.agrees(filter(position.covers, raws))
            if position.is_ahead_of(version) or not agrees:
                position.version, position.restored = None, True
            break
        position.doubtful = False

    def relist(self) -> str:
        """Read everything again in pages; returns the resourceVersion to watch from."""
        begun, asked, version = self._runtime.monotonic(), self.requests.begin(), ""
        listing = self._store.listing(self._position.covers)
        for raws, page_version in self._source.pages():
            version = page_version
            listing.add(raws)
            raws.clear()
        changes = self._store.replace(listing)
        restored = self._position.listed(version, agrees=listing.agrees)
        self.last_list = LastList(begun, version_number(version), asked)
        self.last_contact = self._runtime.monotonic()
        for change in changes:
            self._on_change(replace(change, restored=True) if restored else change)
        self._on_sync()
        return version

    def _watch(self, version: str) -> None:
        # Closed here, whatever ends it: the connection must not last until it is collected.
        with closing(self._source.watch(version, self._stop)) as events:
            for event in events:
                self._process(event)

    def _process(self, event: WatchEvent) -> None:
        self.last_contact = self._runtime.monotonic()
        if event.type == "ERROR":
            raise ApiFailure.from_status(event.raw)
        with understood("an event of a watch"):
            seen = as_name(event.raw["metadata"]["resourceVersion"])
        if event.type != "BOOKMARK":
            left_out = self.left_out
            for change in self._store.apply(event):
                self._on_change(change)
            if event.type == "DELETED" and self.left_out < left_out:
                self._on_unread_gone()
        self._position.version = self._position.heard = seen


def _reported(_failure: ApiFailure) -> None:
    """The log is enough."""


class Informer(Reflector[T]):
    """A reflector that runs in a thread of its own from `start` until `stop` is set.

    thread: the thread's bounded label for logs and metrics; name: its own name, where that differs;
    what: of what it is, for the log, which shows each failure. The callbacks run in the thread; all
    else is for any thread.
    """

    def __init__(
        self,
        source: Watched,
        decode: Callable[[Json], T],
        key: Callable[[T], str],
        on_change: Callable[[Change[T]], None],
        stop: Event,
        *,
        thread: str,
        what: str,
        name: str = "",
        on_sync: Callable[[], None] = _nothing,
        on_failure: Callable[[ApiFailure], None] = _reported,
        on_unread_gone: Callable[[], None] = _nothing,
        runtime: Runtime = REAL,
    ) -> None:
        super().__init__(
            source,
            decode,
            key,
            on_change,
            on_sync,
            self._failed,
            stop,
            on_unread_gone=on_unread_gone,
            runtime=runtime,
        )
        self._watched, self._tell_failure = source, on_failure
        self._thread, self._name, self._what = thread, name, what

    def start(self) -> None:
        """Begin to list and watch."""
        supervision.start(
            self._thread, self.run, self._stop, name=self._name, runtime=self._runtime
        )

    def end(self) -> None:
        """Stop for good; what the thread is passing on in this moment still arrives."""
        self._stop.set()
        self.end_watch()

    def end_watch(self) -> None:
        """End the watch under way, if there is one: another follows unless `stop` is set."""
        self._watched.close()

    def end_stale_watch(self) -> bool:
        """While a list is wanted, end the watch under way (it may have begun only just now);
        returns whether one was wanted."""
        if not self.relist_pending:
            return False
        self.end_watch()
        return True

    @property
    def silent_for(self) -> float:
        """Seconds since the last sign of life of the API server."""
        return self._runtime.monotonic() - self.last_contact

    def _failed(self, failure: ApiFailure) -> None:
        log.warning("%s: %s", self._what, failure)
        self._tell_failure(failure)
