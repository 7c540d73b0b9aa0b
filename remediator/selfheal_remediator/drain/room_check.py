"""Checks whether the pods of a cordoned node, which fitted nowhere else, fit by now.

Begun on the main thread, one at a time; the reads are made in a thread `worker-lookups`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from selfheal_remediator.drain.node_pods import node_pod_from_json
from selfheal_remediator.drain.preflight import Departure, Preflight
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.threads.pool import Post, Purpose, Workers

log = logging.getLogger(__name__)

#: Takes the node's uid, and whether its pods fit; None = that could not be read.
Found = Callable[[str, bool | None], None]


class RoomCheckRun:
    """See the module."""

    def __init__(
        self, api: KubernetesApi, preflight: Preflight, workers: Workers, post: Post, found: Found
    ) -> None:
        self._api, self._preflight = api, preflight
        self._workers, self._post, self._found = workers, post, found
        self.under_way = False

    def begin(self, node: Node, nodes: tuple[Node, ...]) -> None:
        """Check the node; nodes: all."""
        self.under_way = True
        stop = self._preflight.runtime.event()
        departure = Departure(node.name, node.uid, nodes, True, stop, reserves=False)
        self._workers.submit(partial(self._run, departure), Purpose.LOOKUPS, "rooms")

    def _run(self, departure: Departure) -> None:
        fits: bool | None = None
        try:
            fits = self._fits(departure)
        except ApiFailure as failure:
            log.warning("%s: whether its pods fit elsewhere: %s", departure.node, failure)
        finally:
            self._post(partial(self._ended, departure.uid, fits))

    def _fits(self, departure: Departure) -> bool:
        """Raises ApiFailure."""
        pages = self._api.pods_of(departure.node).pages(cached=True)
        pods = [node_pod_from_json(raw) for raws, _ in pages for raw in raws]
        around = self._preflight.surroundings(departure, pods)
        return not self._preflight.no_room(departure, pods, around)

    def _ended(self, uid: str, fits: bool | None) -> None:
        self.under_way = False
        self._found(uid, fits)
