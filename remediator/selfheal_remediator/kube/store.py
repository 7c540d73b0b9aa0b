"""The objects of one collection, as they were listed and watched. Pure.

What cannot be read is kept apart; what was read of it before still counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from selfheal_remediator.failures import Malformed
from selfheal_remediator.kube.decoding import Unread, UnreadObjects, decode_each
from selfheal_remediator.kube.objects import Json


class Item(Protocol):
    """What a store can keep: something with a uid."""

    @property
    def uid(self) -> str: ...


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


class Listing(Generic[T]):
    """A list that is being read, page by page. known: what is known from before: an object that is
    still the same is kept once, or a list of thousands would need their memory twice.

    heard: whether an object, as it is now, was to be heard of before; agrees: all such objects are
    as they are known."""

    def __init__(
        self,
        decode: Callable[[Json], T],
        key: Callable[[T], str],
        known: Mapping[str, T],
        heard: Callable[[Json], bool],
    ) -> None:
        self._decode, self._key, self._known, self._heard = decode, key, known, heard
        self.found: dict[str, T] = {}
        self.unread: list[Unread] = []
        self.agrees = True

    def add(self, raws: Iterable[Json]) -> None:
        """One page."""
        for raw, item in decode_each(raws, self._with_raw, self.unread):
            key = self._key(item)
            known = self._known.get(key)
            if known is not None and known == item:
                self.found[key] = known
                continue
            self.found[key] = item
            self.agrees = self.agrees and not self._heard(raw)

    def _with_raw(self, raw: Json) -> tuple[Json, T]:
        return raw, self._decode(raw)


class ObjectStore(Generic[T]):
    """`items` by key, and what is `unread`. on_unread: called with each that is new.

    left_out: how many objects cannot be read and are not known from before.
    """

    def __init__(
        self,
        decode: Callable[[Json], T],
        key: Callable[[T], str],
        on_unread: Callable[[Malformed], None],
    ) -> None:
        self._decode, self._key, self._on_unread = decode, key, on_unread
        self.items: dict[str, T] = {}
        self.unread = UnreadObjects()
        self._left_out: set[str] = set()

    @property
    def left_out(self) -> int:
        """See the class."""
        return len(self._left_out)

    def listing(self, heard: Callable[[Json], bool]) -> Listing[T]:
        """Begin to read everything; heard: see Listing."""
        return Listing(self._decode, self._key, self.items, heard)

    def replace(self, listing: Listing[T]) -> list[Change[T]]:
        """Everything was read: returns what has changed.

        What cannot be read now still is as it was read last. Raises Malformed.
        """
        fresh, unread = listing.found, listing.unread
        nameless = [item for item in unread if not item.uid]
        if nameless and not fresh:
            raise Malformed(nameless[0].problem)  # no list of an API server
        uids = {item.uid for item in unread}
        for key, item in self.items.items():
            # One that does not say which it is can be any that is missing.
            if key not in fresh and (nameless or item.uid in uids):
                fresh[key] = item
        known = {item.uid for item in fresh.values()} if unread else set()
        self._left_out = {item.key for item in unread if item.uid not in known}
        for new in self.unread.replace(unread):
            self._on_unread(Malformed(str(new)))
        changes = list(differences(self.items, fresh))
        self.items = fresh
        return changes

    def agrees(self, raws: Iterable[Json]) -> bool:
        """Whether each of these objects that can be read is as it is known."""
        found = decode_each(raws, self._decode, [])
        return all(self.items.get(self._key(item)) == item for item in found)

    def apply(self, event: WatchEvent) -> Iterator[Change[T]]:
        """An event of the watch: what it changes; each is in `items` when it comes.

        Raises Malformed when it does not say which object it is: all are listed then.
        """
        try:
            item = self._decode(event.raw)
        except Malformed as failure:
            yield from self._apply_unread(event.type, Unread.of(event.raw, failure), failure)
            return
        self._readable_or_gone(item.uid)
        key = self._key(item)
        old = self.items.get(key)
        if event.type == "DELETED":
            self.items.pop(key, None)
            if old is not None:
                yield Change(key, old, None)
            return
        self.items[key] = item
        if old is not None and old.uid != item.uid:
            self._readable_or_gone(old.uid)
            yield Change(key, old, None)
            old = None
        yield Change(key, old, item)

    def _apply_unread(self, kind: str, unread: Unread, failure: Malformed) -> Iterator[Change[T]]:
        if not unread.uid:
            raise failure
        if kind != "DELETED":
            if self.unread.add(unread):
                if all(item.uid != unread.uid for item in self.items.values()):
                    self._left_out.add(unread.key)
                self._on_unread(Malformed(str(unread)))
            return
        self._readable_or_gone(unread.uid)
        for key, old in list(self.items.items()):
            if old.uid == unread.uid:
                del self.items[key]
                yield Change(key, old, None)

    def _readable_or_gone(self, uid: str) -> None:
        self.unread.discard(uid)
        self._left_out.discard(uid)
