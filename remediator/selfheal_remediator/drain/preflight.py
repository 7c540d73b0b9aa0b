"""What is read before a drain begins: the pods' volumes and DaemonSets, and whether they fit
elsewhere. Runs in the threads that watch the pods; `plan` and `status` use the same functions.

What is not known then, and what pods that come later need, is looked up (see lookups.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from selfheal_remediator.config import Drain
from selfheal_remediator.drain.filters import Fate, Surroundings, of_daemon_set, sort_pod
from selfheal_remediator.drain.free_capacity import Move, Rooms
from selfheal_remediator.drain.running import Instructions
from selfheal_remediator.drain.volume_claims import (
    VolumeClaims,
    all_daemon_sets,
    read_volume_claims,
)
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.objects import Node, Taint
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.node.taints import taint_instead
from selfheal_remediator.threads.runtime import REAL, Event, Runtime

log = logging.getLogger(__name__)

DaemonSets = frozenset[tuple[str, str, str]]
DAEMON_SETS_KEPT = 60.0


@dataclass(frozen=True, slots=True)
class Departure:
    """A node (name, uid) that is to be drained; nodes: all; checked: its pods must fit elsewhere;
    stop: set when the drain was ended; reserves: the room that is found is kept for the drain."""

    node: str
    uid: str
    nodes: tuple[Node, ...]
    checked: bool
    stop: Event
    reserves: bool = True

    @property
    def others(self) -> list[Node]:
        """All nodes but the one that is drained."""
        return [node for node in self.nodes if node.uid != self.uid]

    @property
    def taint(self) -> Taint | None:
        """The taint that the node has instead of a cordon."""
        return next((taint_instead(node) for node in self.nodes if node.uid == self.uid), None)


@dataclass(frozen=True, slots=True)
class DaemonSetFacts:
    """See Surroundings."""

    existing: DaemonSets | None = None
    gone: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()


def surroundings(
    drain: Drain,
    departure: Departure,
    daemon_sets: DaemonSetFacts,
    claims: VolumeClaims,
    own_uid: str = "",
    taint: Taint | None = None,
) -> Surroundings:
    """What sorting the node's pods needs. claims: those of all its pods; taint: see Surroundings.
    Pure."""
    return Surroundings(
        drain,
        own_uid,
        daemon_sets.existing,
        claims.local(departure.others),
        frozenset(claims.failed),
        gone_daemon_sets=daemon_sets.gone,
        unknown_daemon_sets=daemon_sets.unknown,
        claim_terms=claims.terms,
        taint=taint,
    )


def no_room(
    rooms: Rooms, departure: Departure, pods: Iterable[Pod], around: Surroundings, now: float
) -> str:
    """Why the pods do not fit elsewhere, empty if they do (or it was not checked).

    Only those that are to go need room, and of them not those that are going already.
    """
    if not departure.checked:
        return ""
    going = tuple(
        pod
        for pod in pods
        if pod.deletion is None and sort_pod(pod, around, now).fate is Fate.EVICT
    )
    move = Move(
        departure.uid, going, departure.nodes, around.claim_terms, reserves=departure.reserves
    )
    return rooms.check(move, around.drain.autoscaler, now, departure.stop)


class Preflight:
    """See the module. Thread-safe."""

    def __init__(
        self,
        api: KubernetesApi,
        instructions: Instructions,
        own_uid: str,
        clock: Callable[[], float],
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._api, self._instructions, self.runtime = api, instructions, runtime
        self._own_uid, self._clock = own_uid, clock
        self.forget()

    def forget(self) -> None:
        """What was read in one term of leadership is not believed in the next."""
        self.rooms = Rooms(self._api, runtime=self.runtime)
        self._daemon_sets = DaemonSetList(self._api, runtime=self.runtime)

    def initial(self, departure: Departure) -> Surroundings:
        """What is known before anything was read."""
        drain = self._instructions.config.drain
        return Surroundings(drain, self._own_uid, taint=departure.taint)

    def surroundings(self, departure: Departure, pods: list[Pod]) -> Surroundings:
        """Facts for sorting the pods."""
        wanted = frozenset(
            (pod.namespace, pod.owner_name, pod.owner_uid) for pod in pods if of_daemon_set(pod)
        )
        known, gone = self._daemon_sets.known(wanted)
        found = read_volume_claims(self._api, pods)
        for claim, failure in found.failed.items():
            log.warning("claim %s/%s on %s: %s", *claim, departure.node, failure)
        facts = DaemonSetFacts(known, gone)
        drain = self._instructions.config.drain
        return surroundings(drain, departure, facts, found, self._own_uid, departure.taint)

    def no_room(self, departure: Departure, pods: list[Pod], around: Surroundings) -> str:
        """See no_room; what it needs is reserved until the drain is over."""
        return no_room(self.rooms, departure, pods, around, self._clock())


class DaemonSetList:
    """The DaemonSets as listed last. Thread-safe: several drains that begin share one list."""

    def __init__(self, api: KubernetesApi, *, runtime: Runtime = REAL) -> None:
        self._api, self._monotonic = api, runtime.monotonic
        self._lock = runtime.lock()
        #: When the list was begun, by the monotonic clock, and what it shows.
        self._listed: tuple[float, DaemonSets] | None = None

    def known(self, wanted: DaemonSets) -> tuple[DaemonSets, frozenset[str]]:
        """Those that exist, and the uids of the wanted ones that do not.

        What was listed a while ago is believed of those that it shows only.
        """
        with self._lock:
            kept = self._listed
            fresh = kept is not None and self._monotonic() - kept[0] < DAEMON_SETS_KEPT
            if kept is not None and fresh and wanted <= kept[1]:
                return kept[1], frozenset()
            if not wanted:
                return frozenset(), frozenset()
            begun = self._monotonic()
            try:
                found = all_daemon_sets(self._api)
            except ApiFailure as failure:
                log.warning("DaemonSets cannot be listed, so each one is read: %s", failure)
                return frozenset(), frozenset()
            self._listed = (begun, found.known)
            return found.known, found.gone(wanted)
