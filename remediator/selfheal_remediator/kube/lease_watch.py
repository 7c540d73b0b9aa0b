"""The list and watch of the Lease, in the thread `lease-watch`: keeps a LeaseRecord up to date."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.informer import Reflector, Source
from selfheal_remediator.kube.lease import LeaseView, lease_from_json
from selfheal_remediator.kube.lease_record import LeaseRecord
from selfheal_remediator.threads import supervision

log = logging.getLogger(__name__)


class Closable(Source, Protocol):
    """A source whose watch can be ended from another thread."""

    def close(self) -> None: ...


class LeaseWatch:
    """synced: the Lease was listed once; on_sync: it was listed."""

    def __init__(
        self,
        source: Closable,
        record: LeaseRecord,
        on_sync: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._source, self._record, self._on_sync, self._stop = source, record, on_sync, stop
        self.synced = False
        self._reflector: Reflector[LeaseView] = Reflector(
            source, lease_from_json, _name, record.heard, self._listed, _failed, stop
        )

    def start(self) -> None:
        """Begin, in a thread of its own."""
        supervision.start("lease-watch", self._reflector.run, self._stop)

    def close(self) -> None:
        """End the watch under way."""
        self._source.close()

    def _listed(self) -> None:
        view = next(iter(self._reflector.items.values()), None)
        self._record.listed(view, self._reflector.last_list.begun)
        self.synced = True
        self._on_sync()


def _name(view: LeaseView) -> str:
    return view.name


def _failed(failure: ApiFailure) -> None:
    log.warning("lease watch: %s", failure)
