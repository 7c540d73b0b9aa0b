"""What `plan` and `status` read of a cluster: each list once, and what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

from selfheal_remediator.drain.volume_claims import DaemonSets, daemon_sets
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.budgets import Budget, budget_from_json
from selfheal_remediator.kube.client import Collection, KubernetesApi
from selfheal_remediator.kube.decoding import Unread, decode_each
from selfheal_remediator.kube.objects import Json, Node, node_from_json

T = TypeVar("T")


def read_all(
    collection: Collection, decode: Callable[[Json], T]
) -> tuple[list[T], tuple[Unread, ...]]:
    """The objects of a list, and those that cannot be read. Raises ApiFailure."""
    unread: list[Unread] = []
    found = [item for raws, _ in collection.pages() for item in decode_each(raws, decode, unread)]
    return found, tuple(unread)


class Reading:
    """One reading of a cluster. notes: what could not be read."""

    def __init__(self, api: KubernetesApi) -> None:
        self.api = api
        self.notes: list[str] = []

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes. Raises ApiFailure."""
        found, unread = read_all(self.api.nodes(), node_from_json)
        self._note("node", unread)
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

    @cached_property
    def daemon_sets(self) -> DaemonSets | ApiFailure:
        """All DaemonSets, or why they cannot be read."""
        try:
            found = daemon_sets(self.api.daemon_sets())
        except ApiFailure as failure:
            return failure
        self._note("DaemonSet", found.unread)
        return found

    def _note(self, what: str, unread: tuple[Unread, ...]) -> None:
        self.notes += [f"{what} {item}" for item in unread]
