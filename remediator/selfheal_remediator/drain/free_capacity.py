"""Whether the pods of a draining node fit elsewhere: what is free on the other nodes, as read.

Checks run one at a time, in the threads of the drains. The room that a check found is reserved
until the pods have moved, so that two drains do not count on the same room.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from selfheal_remediator.drain.autoscaler import Autoscaler
from selfheal_remediator.drain.headroom import (
    ClaimTerms,
    Room,
    describe,
    expected,
    place,
    place_waiting,
    usable,
)
from selfheal_remediator.drain.population import read_population
from selfheal_remediator.drain.topology import Population
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.decoding import Unread, UnreadObjects, decode_each
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.kube.pods import Pod, pod_from_json
from selfheal_remediator.threads.runtime import REAL, Event, Runtime

log = logging.getLogger(__name__)

#: Seconds for which what was read of a node's pods is used again.
ROOM_KEPT = 60.0
#: Seconds after a pod left its node until its successor has been placed, or is pending.
ARRIVES_WITHIN = 10.0
#: Seconds for which a list of pending pods is used again, and how many of them count.
PENDING_KEPT = 5.0
MAX_PENDING = 1000


@dataclass(frozen=True, slots=True)
class Move:
    """The pods that are to leave a node. nodes: all that are known, the node itself too. reserves:
    the room is kept for them."""

    uid: str
    pods: tuple[Pod, ...]
    nodes: tuple[Node, ...]
    claims: ClaimTerms
    reserves: bool = True

    @property
    def others(self) -> list[Node]:
        """All nodes but the one that is left."""
        return [node for node in self.nodes if node.uid != self.uid]


@dataclass(slots=True)
class Reservation:
    """Room for a pod on a node (uid). left_at: when the pod was gone from its old node."""

    node: str
    pod: Pod
    left_at: float | None = None

    def counts(self, read_at: float) -> bool:
        """Whether the pod comes on top of what was read of the nodes at that time."""
        return self.left_at is None or read_at < self.left_at + ARRIVES_WITHIN


class Rooms:
    """What is free on the nodes, and what running drains are to put there. Thread-safe."""

    def __init__(
        self,
        api: KubernetesApi,
        clock: Callable[[], float] | None = None,
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._api, self._clock = api, clock or runtime.monotonic
        #: One check at a time; held during API requests.
        self._checking = runtime.lock()
        #: Pods on no node, and when they were read; only a check uses them, and the next two.
        self._pending: tuple[float, list[Pod]] | None = None
        self._reported = UnreadObjects()
        self._autoscaler = Autoscaler(api, self._clock)
        #: Guards what follows; never held during API requests, because the main loop takes it.
        self._lock = runtime.lock()
        self._rooms: dict[str, tuple[float, Room]] = {}
        self._reserved: dict[str, list[Reservation]] = {}
        self._forget_at = 0.0

    def check(self, move: Move, autoscaler: str, now: float, stop: Event) -> str:
        """Why the pods do not fit elsewhere, empty if they do (or an autoscaler adds nodes).

        Nodes are read one by one, those known already first, until all pods are placed. Only
        then is the capacity reserved. autoscaler: `drain.autoscaler`; now: seconds since the epoch.
        """
        if not move.pods or expected(autoscaler, move.others):
            return ""
        able = [node for node in move.others if usable(node)]
        around = read_population(self._api, move.pods, move.nodes, self._reserved_pods(move))
        with self._checking:
            try:
                placed, unplaced = self._placed(move, able, around, stop)
            except ApiFailure as failure:
                return f"pending pods cannot be listed, which may need the capacity: {failure}"
            with self._lock:
                if move.reserves and not unplaced and not stop.is_set():
                    self._reserved[move.uid] = [Reservation(uid, pod) for uid, pod in placed]
        if not unplaced or stop.is_set():
            return ""
        with self._checking:
            if expected(autoscaler, move.others, partial(self._autoscaler.runs, now)):
                return ""
        return describe(unplaced, len(able), around)

    def _reserved_pods(self, move: Move) -> list[tuple[Pod, Node]]:
        """The pods that other drains will move, and that have not been observed elsewhere yet."""
        nodes = {node.uid: node for node in move.nodes}
        with self._lock:
            now = self._clock()
            return [
                (item.pod, nodes[item.node])
                for items in self._reserved.values()
                for item in items
                if item.counts(now) and item.node in nodes
            ]

    def pod_left(self, uid: str, pod_uid: str) -> None:
        """A pod of this draining node is gone: its successor is on its way."""
        with self._lock:
            for item in self._reserved.get(uid, ()):
                if item.pod.uid == pod_uid and item.left_at is None:
                    item.left_at = self._clock()

    def release(self, uid: str) -> None:
        """The drain is over: only the pods that have left need room elsewhere."""
        with self._lock:
            moved = [item for item in self._reserved.pop(uid, ()) if item.left_at is not None]
            if moved:
                self._reserved[uid] = moved

    def _placed(
        self, move: Move, nodes: Iterable[Node], around: Population, stop: Event
    ) -> tuple[list[tuple[str, Pod]], list[Pod]]:
        """Where the pods fit (node's uid, pod), and those that fit nowhere. Raises ApiFailure."""
        with self._lock:
            self._forget(self._clock())
            known = set(self._rooms)
        waiting = self._competing(move)
        placed: list[tuple[str, Pod]] = []
        unplaced = list(move.pods)
        rooms: list[Room] = []
        for node in sorted(nodes, key=lambda node: node.uid not in known):
            if not unplaced or stop.is_set():
                break
            try:
                room = self._room(node)
            except ApiFailure as failure:
                log.warning(
                    "the free capacity of %s is unknown, so it counts as full: %s",
                    node.name,
                    failure,
                )
                continue
            for resident in room.there:
                around.add(resident, node)
            waiting = place_waiting(waiting, room)
            unplaced = _fill(room, unplaced, move.claims, around, placed)
            rooms.append(room)
        # What was placed may allow what was not: a pod beside another, the next one of a spread.
        moved = True
        while unplaced and moved and placed and not stop.is_set():
            before = len(unplaced)
            for room in rooms:
                unplaced = _fill(room, unplaced, move.claims, around, placed)
            moved = len(unplaced) < before
        return placed, unplaced

    def _competing(self, move: Move) -> list[Pod]:
        """Pods that are on no node yet and that the scheduler would place before ours.

        Raises ApiFailure.
        """
        now, pending = self._clock(), self._pending
        if pending is None or now - pending[0] >= PENDING_KEPT:
            raws = [raw for raws, _ in self._api.pending_pods().pages(cached=True) for raw in raws]
            unread: list[Unread] = []
            pods = decode_each(raws, pod_from_json, unread)
            self._reported.log(log, "pending pod", unread)
            waiting = [p for p in pods if not (p.node or p.gated or p.deletion or p.finished)]
            waiting.sort(key=lambda pod: pod.priority, reverse=True)
            pending = self._pending = (now, waiting[:MAX_PENDING])
        ours = {pod.uid for pod in move.pods}
        lowest = min(pod.priority for pod in move.pods)
        return [p for p in pending[1] if p.priority >= lowest and p.uid not in ours]

    def forget_old(self) -> None:
        """Keep nothing that no check would use: the pods of thousands of nodes may have been read
        for the last one."""
        now = self._clock()
        if now < self._forget_at:
            return
        self._forget_at, self._pending = now + ROOM_KEPT, None
        with self._lock:
            self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop what is too old, and what was read while a pod may have been on its way."""
        arrived = [
            item.left_at + ARRIVES_WITHIN
            for items in self._reserved.values()
            for item in items
            if item.left_at is not None and item.left_at + ARRIVES_WITHIN <= now
        ]
        fresh_since = max([now - ROOM_KEPT, *arrived])
        self._rooms = {uid: kept for uid, kept in self._rooms.items() if kept[0] >= fresh_since}
        oldest = min((read_at for read_at, _ in self._rooms.values()), default=now)
        for uid, items in list(self._reserved.items()):
            self._reserved[uid] = [item for item in items if item.counts(oldest)]
            if not self._reserved[uid]:
                del self._reserved[uid]

    def _room(self, node: Node) -> Room:
        """What is free there beside what other drains are to put there. Raises ApiFailure."""
        with self._lock:
            known = self._rooms.get(node.uid)
        if known is None:
            read_at = self._clock()
            known = (read_at, Room.of(node, read_pods(self._api, node.name, cached=True)))
        read_at, as_read = known
        with self._lock:
            self._rooms[node.uid] = known
            reserved = [
                item.pod
                for items in self._reserved.values()
                for item in items
                if item.node == node.uid and item.counts(read_at)
            ]
        room = replace(as_read.copy(), node=node)  # its labels and taints as they are now
        for pod in reserved:
            room.take(pod)
        return room


def _fill(
    room: Room,
    pods: list[Pod],
    claims: ClaimTerms,
    around: Population,
    placed: list[tuple[str, Pod]],
) -> list[Pod]:
    """Place those of the pods that fit there and add them to `placed`; returns the others."""
    unplaced = place(pods, room, claims, around)
    uids = {pod.uid for pod in unplaced}
    placed += [(room.node.uid, pod) for pod in pods if pod.uid not in uids]
    return unplaced


def read_pods(api: KubernetesApi, node: str, *, cached: bool = False) -> list[Pod]:
    """The node's pods; cached: as old as the API server's watch cache. Raises ApiFailure."""
    pages = api.pods_of(node).pages(cached=cached)
    return [pod_from_json(raw) for raws, _ in pages for raw in raws]
