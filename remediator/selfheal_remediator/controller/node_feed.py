"""The watch of Nodes and what follows from it.

`changed`, `listed`, `failed` and `count_unread` are called in the thread `nodes`, and only post;
`age` may be asked from any thread; all else runs on the main thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter

from selfheal_remediator.config import PODS_HUNG, Config
from selfheal_remediator.controller.mode import Mode
from selfheal_remediator.controller.node_writer import NodeWriter
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.healing.runner import Healer
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.informer import WATCH_LOST, Change, Informer
from selfheal_remediator.kube.objects import Node, node_from_json
from selfheal_remediator.metrics import Metrics
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.threads.pool import Post
from selfheal_remediator.threads.runtime import REAL, Event, Runtime

log = logging.getLogger(__name__)


class NodeFeed:
    """See the module."""

    def __init__(
        self,
        api: KubernetesApi,
        planner: Planner,
        writer: NodeWriter,
        healer: Healer,
        mode: Mode,
        post: Post,
        metrics: Metrics,
        clock: Callable[[], float],
        stop: Event,
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._planner, self._writer, self._healer, self._mode = planner, writer, healer, mode
        self._post, self._metrics, self._clock = post, metrics, clock
        self.informer: Informer[Node] = Informer(
            api.nodes(),
            node_from_json,
            attrgetter("name"),
            self.changed,
            stop,
            thread="nodes",
            what="nodes",
            on_sync=self.listed,
            on_failure=self.failed,
            on_unread_gone=self.count_unread,
            runtime=runtime,
        )
        #: Whether all nodes were listed in this term of leadership, and whether ever.
        self.synced = False
        self.known_once = False
        #: The request for a list of nodes that has to be answered before anything is done.
        self._list_wanted = 0

    def age(self) -> float:
        """Seconds since the watch's last sign of life."""
        return self.informer.silent_for

    def silent(self) -> str:
        """Why what is known of nodes cannot be gone by, empty = it can."""
        age = self.age()
        return f"the node watch is silent for {age:.0f}s" if age > WATCH_LOST else ""

    def list_again(self) -> None:
        """What a predecessor did a moment ago may not have come by the watch yet, and the limits
        have to count it: all nodes are read again before anything is done."""
        self.synced = False
        self._list_wanted = self.informer.ask_relist()

    # -- in the thread `nodes` -----------------------------------------------------------

    def changed(self, change: Change[Node]) -> None:
        """A node changed."""
        self._post(partial(self.node_changed, change, self.informer.left_out))

    def failed(self, _failure: ApiFailure) -> None:
        """Nodes, or one of them, cannot be read."""
        self.count_unread()

    def count_unread(self) -> None:
        """Other nodes than before cannot be read."""
        self._post(partial(self._planner.leave_out, self.informer.left_out))

    def listed(self) -> None:
        """All nodes were read."""
        self.count_unread()
        nodes, last = tuple(self.informer.items.values()), self.informer.last_list
        self._post(partial(self._went_back, nodes, last.version))
        self._post(partial(self.all_known, last.answers))

    # -- in the main thread --------------------------------------------------------------

    def node_changed(self, change: Change[Node], unread: int = 0) -> None:
        """Take in a change of one node; unread: how many cannot be read."""
        self._planner.leave_out(unread)
        self._planner.apply(change, self._clock())
        if change.new is not None:
            self._writer.node_seen(change.new, restored=change.restored)
        elif change.old is not None:
            self._healer.healing.node_gone(change.key)
            self._writer.node_gone(change.old.uid)

    def _went_back(self, nodes: Iterable[Node], version: int) -> None:
        """Take in what is listed older than it is known, after a restore of etcd."""
        for node in self._planner.listed(nodes, version, self._clock()):
            log.warning("%s is older than it was: etcd was restored", node.name)
            self._writer.node_seen(node, restored=True)

    def all_known(self, answers: int) -> None:
        """A list has ended; answers: the last request for one that it answers."""
        if not self.known_once:
            self.known_once = True
            log.info("%d nodes known", len(self._planner.entries))
            warn_of_unknown_conditions(self._planner, self._mode.config)
        # A list that was under way at a takeover does not show what the predecessor did last.
        self.synced = answers >= self._list_wanted
        self._metrics.api.relists.labels("nodes").inc()


def warn_of_unknown_conditions(planner: Planner, config: Config) -> None:
    """Of rules about conditions that no node has."""
    known = {name for entry in planner.entries.values() for name in entry.node.conditions}
    missing = sorted({rule.condition for rule in config.all_rules} - known - {PODS_HUNG})
    if missing and known:
        log.warning(
            "no node has the conditions %s (of the rules); those that exist: %s",
            ", ".join(missing),
            ", ".join(sorted(known)),
        )
