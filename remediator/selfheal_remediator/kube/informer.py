"""List and watch: keeps what is known of a collection equal to what the API server says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from selfheal_remediator.failures import ApiFailure, Expired, Malformed
from selfheal_remediator.kube.decoding import Unread, UnreadObjects, decode_each
from selfheal_remediator.kube.objects import Json, as_name
from selfheal_remediator.kube.responses import understood
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.supervision import Unexpected


class Item(Protocol):
    """What a reflector can keep: something with a uid."""

    @property
    def uid(self) -> str: ...


def version_number(version: str) -> int:
    """A resourceVersion for comparing: of one collection the later one is higher."""
    return int(version) if version.isdigit() else 0


T = TypeVar("T", bound=Item)


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One object changed. `new` None = deleted; `old` None = first observed.

    restored: the server itself went back in time (etcd was restored), so `new` counts though its
    version is lower than one that is known.
    """

    key: str
    old: T | None
    new: T | None
    restored: bool = False


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One decoded line of a watch; `raw` is the object (for ERROR: a Status)."""

    type: str
    raw: Json


class Source(Protocol):
    """Where a reflector lists and watches (client.Collection)."""

    def pages(self) -> Iterator[tuple[list[Json], str]]:
        """Pages of raw objects, each with the list's resourceVersion. Raises ApiFailure."""

    def watch(self, version: str, stop: threading.Event) -> Iterator[WatchEvent]:
        """Events since `version` until the server ends it. Raises ApiFailure, Expired."""


def differences(old: Mapping[str, T], new: Mapping[str, T]) -> Iterable[Change[T]]:
    """What a relist changed, deletes included; a same key with another uid is a delete first."""
    for key, before in old.items():
        after = new.get(key)
        if after is None or after.uid != before.uid:
            yield Change(key, before, None)
    for key, after in new.items():
        known = old.get(key)
        if known is None or known.uid != after.uid:
            yield Change(key, None, after)
        elif known != after:
            yield Change(key, known, after)


#: If a watch gave no sign of life for so long (seconds), nothing is started on its data.
WATCH_LOST = 120.0


#: A version that expires again and again is reported so often (seconds).
EXPIRED_EVERY = 60.0


#: A watch that ends sooner (seconds) is tried again with a growing delay.
SHORTEST_WATCH = 1.0


class Reflector(Generic[T]):
    """Keeps `items` equal to a collection and tells `on_change` about each difference.

    `on_sync` is called after each complete list. Runs until `stop` is set; every failure is
    reported to `on_failure` and tried again with jittered backoff (0.2 s to 10 s), also what the
    callbacks raise. After a 410 all is listed at once, after the next one with backoff.

    An object that cannot be read is reported to `on_failure` once and is in `unread`; what was
    read of it before still counts.
    """

    def __init__(
        self,
        source: Source,
        decode: Callable[[Json], T],
        key: Callable[[T], str],
        on_change: Callable[[Change[T]], None],
        on_sync: Callable[[], None],
        on_failure: Callable[[ApiFailure], None],
        stop: threading.Event,
    ) -> None:
        self._source, self._decode, self._key = source, decode, key
        self._on_change, self._on_sync, self._on_failure = on_change, on_sync, on_failure
        self._stop = stop
        self.items: dict[str, T] = {}
        #: What cannot be read.
        self.unread = UnreadObjects()
        #: Monotonic time of the last sign of life of the watch (event, bookmark, list).
        self.last_contact = time.monotonic()
        #: Monotonic time at which the last complete list was begun.
        self.list_begun = 0.0
        #: The version that the last complete list shows everything in.
        self.list_version = 0
        #: The last request for a list (see ask_relist) that the last complete list answers.
        self.answers = 0
        self._asked = 0
        self._watching_since = float("inf")
        self._again = threading.Event()
        #: The last version that was processed: a broken watch continues from there, not from its
        #: start, otherwise old events would be reported again. None = list everything.
        self._version: str | None = None
        #: The last version that was heard of, kept also when everything is to be read.
        self._heard = ""

    def ask_relist(self) -> int:
        """Have everything read again; the caller also ends the watch under way.

        Returns the request's number: it is answered by a list that was begun after it, which
        `answers` says while on_sync is called. A list that was under way does not answer it.
        """
        self._asked += 1
        self._again.set()
        return self._asked

    @property
    def relist_pending(self) -> bool:
        """Whether a complete read was asked for and has not begun."""
        return self._again.is_set()

    def run(self) -> None:
        """List, then watch, until `stop` is set."""
        failures, reported_at = 0, float("-inf")
        while not self._stop.is_set():
            failure = self._list_and_watch()
            lived = time.monotonic() - self._watching_since >= SHORTEST_WATCH
            if lived:
                failures = 0
            if isinstance(failure, Expired | Unexpected | Malformed):
                self._version = None  # a watch would end at the same event again
            fresh = failure is None or isinstance(failure, Expired)
            if self._again.is_set() or (lived and fresh):
                continue  # it was ended for a list, or has ended as every watch does
            failures += 1
            if isinstance(failure, Expired):
                if failures == 1:
                    continue  # once is how a watch ends; again and again is a broken server
                if time.monotonic() - reported_at >= EXPIRED_EVERY:
                    reported_at = time.monotonic()
                    self._on_failure(failure)
            elif failure is not None:
                self._on_failure(failure)
            self._stop.wait(supervision.backoff(failures))

    def _list_and_watch(self) -> ApiFailure | None:
        """Until the watch ends; returns what ended it or kept it from beginning, None = itself."""
        self._watching_since = float("inf")
        try:
            with supervision.expected("watch", "this list and watch"):
                while self._version is None or self._again.is_set():
                    self._again.clear()
                    self._version = None  # until it is read: a list that fails is tried again
                    self._version = self.relist()
                self._watching_since = time.monotonic()
                try:
                    self._watch(self._version)
                finally:
                    if (
                        time.monotonic() - max(self._watching_since, self.last_contact)
                        >= WATCH_LOST
                    ):
                        # Not even a bookmark: a server that went back in time (etcd was restored)
                        # tells nothing until its versions have caught up with ours.
                        self._version = None
        except ApiFailure as failure:
            return failure
        return None

    def relist(self) -> str:
        """Read everything again in pages; returns the resourceVersion to watch from."""
        fresh: dict[str, T] = {}
        unread: list[Unread] = []
        version = ""
        begun, asked = time.monotonic(), self._asked
        for raws, page_version in self._source.pages():
            version = page_version
            for item in decode_each(raws, self._decode, unread):
                fresh[self._key(item)] = item
            raws.clear()
        self._keep_unread(fresh, unread)
        restored = 0 < version_number(version) < version_number(self._heard)
        self._heard = version
        changes = list(differences(self.items, fresh))
        self.items = fresh
        self.list_begun, self.answers = begun, asked
        self.list_version = version_number(version)
        self.last_contact = time.monotonic()
        for change in changes:
            self._on_change(replace(change, restored=True) if restored else change)
        self._on_sync()
        return version

    def _keep_unread(self, fresh: dict[str, T], unread: list[Unread]) -> None:
        """What cannot be read now still is as it was read last. Raises Malformed."""
        nameless = [item for item in unread if not item.uid]
        if nameless and not fresh:
            raise Malformed(nameless[0].problem)  # no list of an API server
        uids = {item.uid for item in unread}
        for key, item in self.items.items():
            # One that does not say which it is can be any that is missing.
            if key not in fresh and (nameless or item.uid in uids):
                fresh[key] = item
        for new in self.unread.replace(unread):
            self._on_failure(Malformed(str(new)))

    def _watch(self, version: str) -> None:
        for event in self._source.watch(version, self._stop):
            self.last_contact = time.monotonic()
            if event.type == "ERROR":
                raise ApiFailure.from_status(event.raw)
            with understood("an event of a watch"):
                seen = as_name(event.raw["metadata"]["resourceVersion"])
            if event.type != "BOOKMARK":
                self._apply(event)
            self._version = self._heard = seen

    def _apply(self, event: WatchEvent) -> None:
        try:
            item = self._decode(event.raw)
        except Malformed as failure:
            self._apply_unread(event.type, Unread.of(event.raw, failure), failure)
            return
        self.unread.discard(item.uid)
        key = self._key(item)
        old = self.items.get(key)
        if event.type == "DELETED":
            self.items.pop(key, None)
            if old is not None:
                self._on_change(Change(key, old, None))
            return
        self.items[key] = item
        if old is not None and old.uid != item.uid:
            self._on_change(Change(key, old, None))
            old = None
        self._on_change(Change(key, old, item))

    def _apply_unread(self, kind: str, unread: Unread, failure: Malformed) -> None:
        """Raises Malformed when it does not say which object it is: all are listed then."""
        if not unread.uid:
            raise failure
        if kind != "DELETED":
            if self.unread.add(unread):
                self._on_failure(Malformed(str(unread)))
            return
        self.unread.discard(unread.uid)
        for key, old in list(self.items.items()):
            if old.uid == unread.uid:
                del self.items[key]
                self._on_change(Change(key, old, None))
