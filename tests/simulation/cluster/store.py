"""The objects of the cluster: what etcd and the API server's storage layer keep.

One resourceVersion for all objects, as in etcd; a write that changes nothing makes no new one
(apiserver's pkg/storage/etcd3/store.go, GuaranteedUpdate). Stored objects are never changed in
place: readers may keep them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.simulation.cluster import managed_fields, statuses
from tests.simulation.cluster.messages import Json, clone, stamp
from tests.simulation.cluster.resources import RESOURCES, Key
from tests.simulation.cluster.selectors import controller_of

FIRST_VERSION = 1000
#: Changes that are kept for watches; older ones are compacted.
HISTORY = 5000


class Stored(dict[str, Any]):
    """An object as stored, with its JSON once somebody needed it."""

    __slots__ = ("_text",)
    _text: bytes | None

    @property
    def text(self) -> bytes:
        """Its JSON."""
        known = getattr(self, "_text", None)
        if known is None:
            known = self._text = statuses.encode(self)
        return known


@dataclass(frozen=True, slots=True)
class Change:
    """One write. old None = created, new None = deleted.

    last: what a watch shows, for a deletion the last state with the deletion's version.
    by: who made it; at: Unix seconds.
    """

    version: int
    key: Key
    old: Stored | None
    new: Stored | None
    last: Stored
    by: str
    at: float


@dataclass(frozen=True, slots=True)
class Backup:
    """All objects as they were at a version."""

    version: int
    objects: Mapping[Key, Stored]


class View:
    """All objects at one version, for reading."""

    def __init__(self, version: int, objects: Mapping[Key, Stored]) -> None:
        self.version = version
        self._objects = objects

    def get(self, plural: str, namespace: str, name: str) -> Stored | None:
        """The object, None = there is none."""
        return self._objects.get((plural, namespace, name))

    def all(self, plural: str, namespace: str = "") -> list[Stored]:
        """Those of a kind (and namespace), in etcd's order."""
        found = sorted(
            key
            for key in self._objects
            if key[0] == plural and (not namespace or key[1] == namespace)
        )
        return [self._objects[key] for key in found]


def key_of(raw: Json) -> Key:
    """The key of an object by its kind."""
    resource = _BY_KIND[raw["kind"]]
    meta = raw["metadata"]
    return resource.plural, meta.get("namespace", "") if resource.namespaced else "", meta["name"]


_BY_KIND = {resource.kind: resource for resource in RESOURCES.values()}


class Store(View):
    """The present objects. clock: Unix seconds of the API server."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._now: dict[Key, Stored] = {}
        super().__init__(FIRST_VERSION, self._now)
        self.clock = clock
        self.compacted = FIRST_VERSION
        self.restores = 0
        self._history: list[Change] = []
        self._subscribers: list[Callable[[Change], None]] = []
        self._on_restore: list[Callable[[], None]] = []
        self._uids = 0
        #: Keys by plural; pods by node and by the uid of their controller.
        self._kinds: dict[str, dict[Key, None]] = {plural: {} for plural in RESOURCES}
        self._by_node: dict[str, dict[Key, None]] = {}
        self._by_owner: dict[str, dict[Key, None]] = {}

    # -- reading ------------------------------------------------------------------------

    def all(self, plural: str, namespace: str = "") -> list[Stored]:
        keys = self._kinds[plural]
        return [self._now[key] for key in sorted(keys) if not namespace or key[1] == namespace]

    def pods_on(self, node: str) -> list[Stored]:
        """The pods that are bound to a node."""
        return [self._now[key] for key in sorted(self._by_node.get(node, ()))]

    def owned_by(self, uid: str) -> list[Stored]:
        """The objects whose controller has this uid."""
        return [self._now[key] for key in sorted(self._by_owner.get(uid, ()))]

    def since(self, version: int) -> list[Change]:
        """The changes after a version; the caller compares it with `compacted`."""
        return self._history[bisect_right(self._history, version, key=lambda c: c.version) :]

    def at(self, version: int) -> View:
        """All objects as they were at a version that is not compacted."""
        assert self.compacted <= version <= self.version, version
        objects = dict(self._now)
        for change in reversed(self.since(version)):
            if change.old is None:
                del objects[change.key]
            else:
                objects[change.key] = change.old
        return View(version, objects)

    # -- writing ------------------------------------------------------------------------

    def create(self, raw: Json, by: str = "", *, manager: str = "") -> Stored:
        """Store a new object, with uid, creationTimestamp and generation. Raises Refused (409)."""
        key = key_of(raw)
        resource = RESOURCES[key[0]]
        if key in self._now:
            raise statuses.already_exists(resource, key[2])
        raw = clone(raw)
        raw.setdefault("apiVersion", resource.api_version)
        meta = raw["metadata"]
        if not resource.namespaced:
            meta.pop("namespace", None)
        meta["uid"] = self._new_uid()
        meta["creationTimestamp"] = stamp(self.clock())
        if resource.generation:
            meta["generation"] = 1
        managed_fields.take_in(None, raw, manager or by, self.clock())
        return self._commit(key, raw, by)

    def put(self, raw: Json, by: str = "world") -> Stored:
        """Create the object, or replace what is not metadata of its server's making."""
        key = key_of(raw)
        if key not in self._now:
            return self.create(raw, by)

        def replaced(there: Json) -> None:
            kept = {k: v for k, v in there["metadata"].items() if k in _SERVERS}
            there.clear()
            there.update(clone(raw))
            there["metadata"].update(kept)

        changed = self.change(key, replaced, by)
        assert changed is not None
        return changed

    def change(
        self,
        key: Key,
        edit: Callable[[Json], object],
        by: str = "world",
        *,
        manager: str = "",
        applied: bool = False,
    ) -> Stored | None:
        """Edit a copy of the object and store it; None = there is none (any more).

        Unchanged objects keep their resourceVersion. One that is being deleted goes when its last
        finalizer does. applied: as a server-side apply does, for managedFields.
        """
        before = self._now.get(key)
        if before is None:
            return None
        raw: Json = clone(before)
        edit(raw)
        return self.replace(key, raw, by, manager=manager, applied=applied)

    def replace(
        self, key: Key, raw: Json, by: str, *, manager: str = "", applied: bool = False
    ) -> Stored | None:
        """Store `raw` instead of the object that is there; see `change`."""
        before = self._now[key]
        meta = raw["metadata"]
        for name in ("uid", "resourceVersion", "creationTimestamp", "generation"):
            if name in before["metadata"]:
                meta[name] = before["metadata"][name]
        managed_fields.take_in(before, raw, manager or by, self.clock(), applied=applied)
        if raw == before:
            return before
        if RESOURCES[key[0]].generation and raw.get("spec") != before.get("spec"):
            meta["generation"] = int(meta.get("generation") or 0) + 1
        if _may_go(raw):
            self._remove(key, by)
            return None
        return self._commit(key, raw, by)

    def remove(self, key: Key, by: str = "world") -> None:
        """Delete the object at once, whatever it says of finalizers and grace."""
        if key in self._now:
            self._remove(key, by)

    def _remove(self, key: Key, by: str) -> None:
        before = self._now.pop(key)
        self._index(key, before, None)
        self.version += 1
        last = Stored(before)
        last["metadata"] = {**before["metadata"], "resourceVersion": str(self.version)}
        self._tell(Change(self.version, key, before, None, last, by, self.clock()))

    def _commit(self, key: Key, raw: Json, by: str) -> Stored:
        self.version += 1
        raw["metadata"]["resourceVersion"] = str(self.version)
        stored, before = Stored(raw), self._now.get(key)
        self._now[key] = stored
        self._index(key, before, stored)
        self._tell(Change(self.version, key, before, stored, stored, by, self.clock()))
        return stored

    def _new_uid(self) -> str:
        self._uids += 1
        return f"5e1f0000-0000-4000-8000-{self._uids:012x}"

    def _index(self, key: Key, old: Stored | None, new: Stored | None) -> None:
        kind = self._kinds[key[0]]
        if new is None:
            kind.pop(key, None)
        else:
            kind[key] = None
        for index, before, after in (
            (self._by_node, _node(key, old), _node(key, new)),
            (self._by_owner, _owner(old), _owner(new)),
        ):
            if before and before != after:
                index[before].pop(key, None)
            if after:
                index.setdefault(after, {})[key] = None

    # -- changes ------------------------------------------------------------------------

    def subscribe(self, tell: Callable[[Change], None]) -> None:
        """Tell of each change, in the order of the versions, as it is made."""
        self._subscribers.append(tell)

    def unsubscribe(self, tell: Callable[[Change], None]) -> None:
        """Tell it no more."""
        self._subscribers.remove(tell)

    def on_restore(self, tell: Callable[[], None]) -> None:
        """Tell when everything went back in time."""
        self._on_restore.append(tell)

    def _tell(self, change: Change) -> None:
        self._history.append(change)
        if len(self._history) > 2 * HISTORY:
            self.compact(self._history[-HISTORY].version)
        for tell in tuple(self._subscribers):
            tell(change)

    # -- etcd ---------------------------------------------------------------------------

    def compact(self, version: int | None = None) -> None:
        """Forget what was before a version (the present one): watches from earlier get 410."""
        version = self.version if version is None else version
        self._history = self.since(version)
        self.compacted = max(self.compacted, version)

    def backup(self) -> Backup:
        """Everything as it is, to be restored."""
        return Backup(self.version, dict(self._now))

    def restore(self, backup: Backup) -> None:
        """Go back in time: versions too. The API server starts again, so that all watches end."""
        self.version = self.compacted = backup.version
        self.restores += 1
        self._history.clear()
        self._by_node.clear()
        self._by_owner.clear()
        for keys_of_kind in self._kinds.values():
            keys_of_kind.clear()
        self._now.clear()
        self._now.update(backup.objects)
        for key, raw in self._now.items():
            self._index(key, None, raw)
        for tell in tuple(self._on_restore):
            tell()


#: Metadata that only the API server writes.
_SERVERS = (
    *("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"),
    *("deletionTimestamp", "deletionGracePeriodSeconds"),
)


def _may_go(raw: Json) -> bool:
    """Whether it is being deleted and nothing keeps it (generic/registry/store.go)."""
    meta = raw["metadata"]
    return (
        meta.get("deletionTimestamp") is not None
        and not meta.get("finalizers")
        and not meta.get("deletionGracePeriodSeconds")
    )


def _node(key: Key, raw: Stored | None) -> str:
    return str(raw["spec"].get("nodeName") or "") if raw and key[0] == "pods" else ""


def _owner(raw: Stored | None) -> str:
    owner = controller_of(raw) if raw else None
    return str(owner["uid"]) if owner else ""


def keys(raws: Iterable[Json]) -> list[Key]:
    """The keys of objects."""
    return [key_of(raw) for raw in raws]
