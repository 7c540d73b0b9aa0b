"""Has the status of nodes say how far their drains are: `drain.lifecycleConditions`.

All methods run on the main thread, but for `_send`, which runs in a thread `worker-lookups`: no
cordon waits for it. What a node's conditions say is compared with its annotation, so that the next
leader makes up for what this one did not write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.controller.mode import Mode
from selfheal_remediator.controller.node_writer import NodeWriter
from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.objects import Json, Node, node_from_json
from selfheal_remediator.kube.responses import is_conflict
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.drain_conditions import STRATEGIC, changes, status_patch
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Post, Purpose, Workers

log = logging.getLogger(__name__)

#: Seconds until what is not written is tried again: first, and longest.
FIRST_RETRY, LONGEST_RETRY = 0.5, 60.0


@dataclass(slots=True)
class _Retry:
    failures: int
    at: float


class DrainStatus:
    """See the module."""

    def __init__(
        self,
        api: KubernetesApi,
        planner: Planner,
        writer: NodeWriter,
        authority: Authority,
        mode: Mode,
        workers: Workers,
        post: Post,
        clock: Callable[[], float],
    ) -> None:
        self._api, self._planner, self._writer = api, planner, writer
        self._authority, self._mode = authority, mode
        self._workers, self._post, self._clock = workers, post, clock
        self._expected = partial(supervision.expected, "worker", runtime=workers.runtime)
        #: The term in which all nodes were compared; None = they are to be.
        self._term: int | None = None
        self._under_way: set[str] = set()
        self._retries: dict[str, _Retry] = {}

    def follow(self, changed: Iterable[str], now: float) -> None:
        """Write what the nodes (uids) that changed do not say yet; in dry run none is drained."""
        config = self._mode.config
        if not config.drain.lifecycle_conditions or config.dry_run:
            self._term = None
            self._retries.clear()
            return
        nodes = {*changed, *(uid for uid, one in self._retries.items() if one.at <= now)}
        if self._term != self._authority.term:
            self._term, nodes = self._authority.term, set(self._planner.entries)
            self._retries.clear()
        for uid in sorted(nodes):
            self._compare(uid, now)

    @property
    def wake(self) -> float | None:
        """When something is tried again, but for what is under way."""
        waiting = self._retries.keys() - self._under_way
        return min((self._retries[uid].at for uid in waiting), default=None)

    def _compare(self, uid: str, now: float) -> None:
        if uid in self._under_way:
            return  # compared again afterwards
        entry, found = self._planner.entries.get(uid), self._missing(uid, now)
        if entry is None or not found:
            self._retries.pop(uid, None)
            return
        self._under_way.add(uid)
        body = status_patch(entry.actual, found)
        send = partial(self._send, entry.actual, body, self._authority.term)
        # Not among the changes that protect: writes that hang would hold up cordons.
        self._workers.submit(send, Purpose.LOOKUPS, "node statuses")

    def _missing(self, uid: str, now: float) -> list[Json]:
        """What the node does not say yet. After a change that is under way it is among those that
        changed."""
        entry = self._planner.entries.get(uid)
        if entry is None or entry.pending is not None:
            return []
        return changes(entry.actual, self._planner.owner, now)

    def _send(self, node: Node, body: Json, term: int) -> None:
        """Whatever happens, it is posted."""
        path = f"/api/v1/nodes/{quote(node.name)}/status"
        authority, now = self._authority, self._clock()
        try:
            # Before the check: what is stopped after it is not sent either.
            begun = self._api.fence()
            may_send = authority.may_act(now) and authority.may_send(Kind.NOTE, now)
            if term != authority.term or not may_send:
                raise NotLeader
            with self._expected(f"the status of node {node.name}"):
                answer = self._api.write("PATCH", path, body, content_type=STRATEGIC, begun=begun)
                if not answer.ok:
                    raise answer.failure()
                after = node_from_json(answer.json())
        except ApiFailure as failure:
            self._post(partial(self._failed, node, failure))
        else:
            self._post(partial(self._written, after))

    def _written(self, node: Node) -> None:
        self._under_way.discard(node.uid)
        self._writer.take_in(node)
        if self._missing(node.uid, self._clock()):
            # It changed meanwhile. Or somebody changes what we write: not the same again at once.
            self._try_again(node.uid)
        else:
            self._retries.pop(node.uid, None)

    def _failed(self, node: Node, failure: ApiFailure) -> None:
        self._under_way.discard(node.uid)
        changed = failure.status == 404 or is_conflict(failure)
        expected = isinstance(failure, NotLeader) or changed
        level = logging.INFO if expected else logging.WARNING
        log.log(level, "%s: the conditions of its drain are not written: %s", node.name, failure)
        self._try_again(node.uid)

    def _try_again(self, uid: str) -> None:
        failures = self._retries[uid].failures + 1 if uid in self._retries else 1
        delay = delay_after(failures, first=FIRST_RETRY, longest=LONGEST_RETRY)
        self._retries[uid] = _Retry(failures, self._clock() + delay)
