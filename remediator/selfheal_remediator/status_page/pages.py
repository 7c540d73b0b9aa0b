"""The page as bytes, rendered at most once a second, whoever asks for it. For any thread."""

from __future__ import annotations

from selfheal_remediator.status_page.html import render
from selfheal_remediator.status_page.snapshot import Snapshot
from selfheal_remediator.threads.runtime import REAL, Runtime


class Pages:
    """See the module: many readers must not take the time of the main thread."""

    def __init__(self, *, runtime: Runtime = REAL) -> None:
        #: Also held while a page is rendered: the others wait for that one.
        self._lock = runtime.lock()
        self._made: tuple[Snapshot, int] | None = None
        self._page = b""

    def page(self, snapshot: Snapshot, now: float) -> bytes:
        """`now` by the clock of the snapshot."""
        with self._lock:
            if self._made is None or self._made[0] is not snapshot or self._made[1] != int(now):
                self._page = render(snapshot, now).encode()
                self._made = (snapshot, int(now))
            return self._page
