"""What `plan` and `status` read of a cluster: each list once, and what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from selfheal_remediator.controller.claims_reader import Claims as ExternalClaims
from selfheal_remediator.controller.claims_reader import ClaimsReader
from selfheal_remediator.controller.step_requests import attached_volumes
from selfheal_remediator.drain.filters import of_daemon_set
from selfheal_remediator.drain.preflight import DaemonSetFacts
from selfheal_remediator.drain.volume_claims import (
    DaemonSets,
    VolumeClaims,
    daemon_sets,
    read_volume_claims,
)
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.budgets import Budget, budget_from_json
from selfheal_remediator.kube.client import Collection, KubernetesApi
from selfheal_remediator.kube.decoding import Unread, decode_each
from selfheal_remediator.kube.objects import Json, Node, node_from_json
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.node.assessment import Attached
from selfheal_remediator.node.external_claims import MACHINE_ANNOTATION

T = TypeVar("T")


def read_all(
    collection: Collection, decode: Callable[[Json], T]
) -> tuple[list[T], tuple[Unread, ...]]:
    """The objects of a list, and those that cannot be read. Raises ApiFailure."""
    unread: list[Unread] = []
    found = [item for raws, _ in collection.pages() for item in decode_each(raws, decode, unread)]
    return found, tuple(unread)


class Reading:
    """One reading of a cluster. notes: what could not be read; unread_nodes: how many of them."""

    def __init__(self, api: KubernetesApi) -> None:
        self.api = api
        self.notes: list[str] = []
        self.unread_nodes = 0

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes. Raises ApiFailure."""
        found, unread = read_all(self.api.nodes(), node_from_json)
        self._note("node", unread)
        self.unread_nodes = len(unread)
        return tuple(found)

    @cached_property
    def budgets(self) -> tuple[Budget, ...]:
        """All PodDisruptionBudgets; none when they cannot be read."""
        try:
            found, unread = read_all(self.api.budgets(), budget_from_json)
        except ApiFailure as failure:
            self.notes.append(
                f"PodDisruptionBudgets cannot be read, so they are not counted: {failure}"
            )
            return ()
        self._note("PodDisruptionBudget", unread)
        return tuple(found)

    def external_claims(self, now: float) -> ExternalClaims | None:
        """Other remediators, and which nodes other systems are changing; None = it cannot be
        read."""
        machines = any(MACHINE_ANNOTATION in node.annotations for node in self.nodes)
        try:
            return ClaimsReader(self.api, lambda: now).read(machines_wanted=machines)
        except ApiFailure as failure:
            self.notes.append(
                "Leases cannot be read, so it is unknown whether other systems are changing nodes: "
                f"{failure}"
            )
            return None

    def attached(self, nodes: dict[str, str], now: float) -> dict[str, Attached]:
        """Which volumes are attached to these nodes (uid -> name)."""
        if not nodes:
            return {}
        try:
            found = attached_volumes(self.api, nodes)
        except ApiFailure as failure:
            self.notes.append(f"VolumeAttachments cannot be read: {failure}")
            return dict.fromkeys(nodes, Attached(readable=False))
        return {uid: Attached(text, now) for uid, text in found.items()}

    # -- of pods --------------------------------------------------------------------------

    @cached_property
    def daemon_sets(self) -> DaemonSets | ApiFailure:
        """All DaemonSets, or why they cannot be read."""
        try:
            found = daemon_sets(self.api.daemon_sets())
        except ApiFailure as failure:
            return failure
        self._note("DaemonSet", found.unread)
        return found

    def daemon_set_facts(self, pods: list[Pod], notes: set[str]) -> DaemonSetFacts:
        """What is known of the pods' DaemonSets; that they cannot be read is noted."""
        ours = frozenset(pod.owner_uid for pod in pods if of_daemon_set(pod))
        if not ours:
            return DaemonSetFacts()
        found = self.daemon_sets
        if isinstance(found, ApiFailure):
            notes.add(f"DaemonSets cannot be read, so it is unknown which pods stay: {found}")
            return DaemonSetFacts(frozenset(), unknown=ours)
        return DaemonSetFacts(found.known, unknown=ours if found.unread else frozenset())

    def volume_claims(self, pods: list[Pod], notes: set[str]) -> VolumeClaims:
        """The pods' claims; which cannot be read is noted."""
        found = read_volume_claims(self.api, pods)
        for (namespace, claim), why in found.failed.items():
            notes.add(f"claim {namespace}/{claim} cannot be read, so its pods stay: {why}")
        return found

    def _note(self, what: str, unread: tuple[Unread, ...]) -> None:
        self.notes += [f"{what} {item}" for item in unread]
