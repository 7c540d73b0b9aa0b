"""A watch: a stream of the changes after a resourceVersion (apiserver's pkg/storage/cacher).

A selector is part of it: an object that begins to match is ADDED, one that no longer does is
DELETED, with its last matching state and the change's version. Bookmarks come about once a minute
and two seconds before the end (cache_watcher.go, nextBookmarkTime). A watch from a version that is
not there yet is silent until the versions have caught up, without bookmarks too.

A real server sends no bookmark of the version that a watch began with. There versions always grow,
as kubelets renew their Leases every ten seconds; here they write none, so that bookmarks come all
the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from tests.simulation.cluster.messages import Json, Simulation
from tests.simulation.cluster.resources import Resource
from tests.simulation.cluster.statuses import JSON_HEADERS, encode
from tests.simulation.cluster.store import Change, Store, Stored

BOOKMARK_EVERY, BOOKMARK_BEFORE_END = 60.0, 2.0
#: minRequestTimeout: a watch without timeoutSeconds lives so long, up to twice.
SHORTEST = 1800.0
Fits = Callable[[Json], bool]


def event_line(kind: str, text: bytes) -> bytes:
    """One line of the body."""
    return b'{"type":"' + kind.encode() + b'","object":' + text + b"}\n"


class WatchStream:
    """See messages.Stream. `reset` breaks the connection; `pause` holds events back."""

    status = 200

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {**JSON_HEADERS, "Transfer-Encoding": "chunked"}
        self._chunks: deque[bytes] = deque()
        self._tell: list[Callable[[], None]] = []
        self._on_close: list[Callable[[], None]] = []
        self._finished = self._broken = False

    @property
    def ended(self) -> bool:
        """Whether nothing follows what is waiting."""
        return self._finished

    @property
    def broken(self) -> bool:
        """Whether the connection was reset."""
        return self._broken

    def next_chunk(self) -> bytes | None:
        """The next waiting chunk; None = none is waiting now."""
        return self._chunks.popleft() if self._chunks else None

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call it whenever a chunk has come, or the stream has ended."""
        self._tell.append(callback)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call it once, when the stream has ended from either side."""
        self._on_close.append(callback)

    def close(self) -> None:
        """The client hangs up."""
        self._chunks.clear()
        self.end()

    def end(self) -> None:
        """The server ends it properly."""
        if self._finished:
            return
        self._finished = True
        for callback in self._on_close:
            callback()
        self._notify()

    def reset(self) -> None:
        """The connection breaks: the client gets an error, and nothing of what is waiting."""
        self._chunks.clear()
        self._broken = True
        self.end()

    def push(self, chunk: bytes) -> None:
        """The server sends a chunk."""
        if not self._finished:
            self._chunks.append(chunk)
            self._notify()

    def _notify(self) -> None:
        for callback in tuple(self._tell):
            callback()


class Watch(WatchStream):
    """The stream of one collection. version: the last change that the client knows.

    timeout: seconds, as asked for by timeoutSeconds.
    """

    def __init__(
        self,
        simulation: Simulation,
        store: Store,
        resource: Resource,
        namespace: str,
        fits: Fits | None,
        *,
        version: int,
        bookmarks: bool,
        timeout: float,
    ) -> None:
        super().__init__()
        self._simulation, self._store = simulation, store
        self._resource, self._namespace, self._fits = resource, namespace, fits
        self._version, self._bookmarks = version, bookmarks
        self._deadline = simulation.now + timeout
        self._held: list[Change] | None = None
        self.on_close(self._forget)
        store.subscribe(self._take)
        for change in store.since(version):
            self._take(change)
        simulation.at(self._deadline, self.end)
        self._plan_bookmark()

    @property
    def plural(self) -> str:
        """What it is a watch of."""
        return self._resource.plural

    def _forget(self) -> None:
        self._store.unsubscribe(self._take)

    # -- events -------------------------------------------------------------------------

    def show(self, raws: list[Stored]) -> None:
        """Begin with these objects as ADDED (a watch from no version, or from 0)."""
        for raw in raws:
            self.push(event_line("ADDED", raw.text))

    def pause(self) -> None:
        """Hold back what comes, as a watch cache does that is behind."""
        if self._held is None:
            self._held = []

    def resume(self) -> None:
        """Send what was held back."""
        held, self._held = self._held or [], None
        for change in held:
            self._take(change)

    def skip_held(self) -> None:
        """Show only the last state of each object of what is held: a client that lists and
        watches again never sees what was between."""
        last = {change.key: change for change in self._held or ()}
        self._held = sorted(last.values(), key=lambda change: change.version)

    def _take(self, change: Change) -> None:
        if self._held is not None:
            self._held.append(change)
            return
        if change.version <= self._version or change.key[0] != self._resource.plural:
            return
        if self._namespace and change.key[1] != self._namespace:
            return
        self._version = change.version
        did = change.old is not None and self._wants(change.old)
        does = change.new is not None and self._wants(change.new)
        if does and change.new is not None:
            self.push(event_line("MODIFIED" if did else "ADDED", change.new.text))
        elif did and change.old is not None:
            self.push(event_line("DELETED", _with_version(change.old, change.version)))

    def _wants(self, raw: Stored) -> bool:
        return self._fits is None or self._fits(raw)

    # -- bookmarks ----------------------------------------------------------------------

    def _plan_bookmark(self) -> None:
        if not self._bookmarks:
            return
        now = self._simulation.now
        due, last = now + BOOKMARK_EVERY, self._deadline - BOOKMARK_BEFORE_END
        if last > now + 0.001:  # less would round to now, again and again
            due = min(due, last)
        if due < self._deadline:
            self._simulation.at(due, self._bookmark)

    def _bookmark(self) -> None:
        if self._finished:
            return
        if self._held is None and self._store.version >= self._version:
            self._version = self._store.version
            meta = {"resourceVersion": str(self._version), "creationTimestamp": None}
            resource = self._resource
            body = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
            self.push(event_line("BOOKMARK", encode(body)))
        self._plan_bookmark()


def _with_version(raw: Stored, version: int) -> bytes:
    meta = {**raw["metadata"], "resourceVersion": str(version)}
    return encode({**raw, "metadata": meta})


def failed_watch(status: bytes) -> WatchStream:
    """A watch that cannot begin: 200 with one ERROR event (cacher.go, newErrWatcher)."""
    stream = WatchStream()
    stream.push(event_line("ERROR", status))
    stream.end()
    return stream
