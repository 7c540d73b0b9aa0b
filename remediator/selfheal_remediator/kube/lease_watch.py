"""The list and watch of the Lease, in the thread `lease-watch`: keeps a LeaseRecord up to date."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from selfheal_remediator.kube.informer import Informer, Watched
from selfheal_remediator.kube.lease import LeaseView, lease_from_json
from selfheal_remediator.kube.lease_record import LeaseRecord
from selfheal_remediator.threads.runtime import REAL, Event, Runtime


class LeaseWatch:
    """synced: the Lease was listed once; on_sync: it was listed."""

    def __init__(
        self,
        source: Watched,
        record: LeaseRecord,
        on_sync: Callable[[], None],
        stop: Event,
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._record, self._on_sync = record, on_sync
        self.synced = False
        self.informer: Informer[LeaseView] = Informer(
            source,
            lease_from_json,
            attrgetter("name"),
            record.heard,
            stop,
            thread="lease-watch",
            what="lease watch",
            on_sync=self._listed,
            runtime=runtime,
        )

    def read_again(self) -> None:
        """Have the Lease listed, from any thread: what the watch tells of it is too old."""
        self.informer.ask_relist()
        self.informer.end_stale_watch()

    def _listed(self) -> None:
        view = next(iter(self.informer.items.values()), None)
        self._record.listed(view, self.informer.last_list.begun)
        self.synced = True
        self._on_sync()
