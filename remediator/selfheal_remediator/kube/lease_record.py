"""The Lease as it was last observed: by the watch, or from the answer to our own write.

Thread-safe. Annotations are passed on in the order of their versions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.lease import PAUSE_KEY, STOP_KEY, LeaseView
from selfheal_remediator.kube.observe_first import FIRST_START_KEY
from selfheal_remediator.threads.runtime import REAL, Runtime

#: Annotations at which what was ordered before is cancelled.
_STOPS = {PAUSE_KEY, STOP_KEY}


class LeaseRecord:
    """on_annotations(mapping): they changed; on_news: the Lease was observed."""

    def __init__(
        self,
        on_annotations: Callable[[Mapping[str, str]], None],
        on_news: Callable[[], None],
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._on_annotations, self._on_news = on_annotations, on_news
        self._monotonic = runtime.monotonic
        #: Also held while annotations are passed on: they arrive in the order of their versions.
        self._lock = runtime.rlock()
        self._view: LeaseView | None = None
        #: Monotonic times: since when nobody has renewed it, and when it was observed last.
        self._seen_at = self._observed_at = self._monotonic()
        self._first_start = ""
        self._listed = False
        #: Called when a pause may have begun and ended unobserved.
        self.on_gap: Callable[[], None] = _unheard

    # -- what is known ------------------------------------------------------------------

    @property
    def view(self) -> LeaseView | None:
        """The Lease as last observed, None = there is none."""
        with self._lock:
            return self._view

    def observed(self) -> tuple[LeaseView | None, float]:
        """The Lease, and the monotonic time since which it was not renewed."""
        with self._lock:
            return self._view, self._seen_at

    @property
    def first_start(self) -> str:
        """The installation's first start as last read from the Lease."""
        with self._lock:
            return self._first_start

    # -- what is observed ---------------------------------------------------------------

    def heard(self, change: Change[LeaseView]) -> None:
        """The watch reports a change."""
        with self._lock:
            known, old = self._view, change.old
            if change.new is None and known and old and known.uid != old.uid:
                return  # a Lease of before is gone: the one that is known was made since
            self.take_in(change.new, listed=change.restored)

    def listed(self, view: LeaseView | None, begun: float) -> None:
        """A complete list, begun at that monotonic time.

        What was listed counts even when its version is older: etcd may have been restored. But
        not a list that was begun before what is known was heard: it is only late.
        """
        with self._lock:
            if self._listed:
                self.on_gap()  # what it was since the watch before is not known
            self._listed = True
            current = begun > self._observed_at
            if view is not None or current:
                self.take_in(view, listed=current)

    def take_in(self, view: LeaseView | None, *, listed: bool = False) -> None:
        """The Lease as it is now, from the watch or from the answer to our own write.

        The watch may be behind our write: what it tells then is over, and a pause that it does
        not know of yet would be lifted for a moment.
        """
        with self._lock:
            if not listed and view and self._view and _older(view, self._view):
                if not _STOPS.isdisjoint(view.annotations.keys() - self._view.annotations.keys()):
                    self.on_gap()
                return
            old, self._view = self._view, view
            if view is not None:  # an uninstall empties it
                self._first_start = view.annotations.get(FIRST_START_KEY, self._first_start)
            self._observed_at = self._monotonic()
            renewed = view is None or old is None or _fingerprint(old) != _fingerprint(view)
            if renewed:
                self._seen_at = self._observed_at
            if (view.annotations if view else {}) != (old.annotations if old else {}):
                self._on_annotations(view.annotations if view else {})
        self._on_news()

    def forget(self, view: LeaseView | None) -> None:
        """The Lease that was this one was deleted.

        The watch may have reported the deletion before the answer to our write set it again.
        """
        with self._lock:
            if view and self._view and self._view.uid == view.uid:
                self.take_in(None)


def _unheard() -> None:
    """Nobody acts by the Lease's annotations."""


def _older(view: LeaseView, known: LeaseView) -> bool:
    """Whether it is the same Lease at an earlier time; versions are numbers that grow."""
    if view.uid != known.uid or not (view.version.isdigit() and known.version.isdigit()):
        return False
    return int(view.version) < int(known.version)


def _fingerprint(view: LeaseView) -> tuple[str, str, int]:
    return view.holder, view.renewed, view.transitions
