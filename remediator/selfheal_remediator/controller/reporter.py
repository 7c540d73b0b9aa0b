"""Events about nodes and about the remediator itself. Callable from any thread."""

from __future__ import annotations

from selfheal_remediator.kube.election import Leader
from selfheal_remediator.kube.events import EventWriter, NodeEvent, ObjectEvent


class Reporter:
    """owner: `namespace/name` of our Lease, which Events about ourselves are said of."""

    def __init__(self, events: EventWriter, owner: str, leader: Leader) -> None:
        self._events, self._owner, self._leader = events, owner, leader

    def of_node(self, node: str, uid: str, reason: str, message: str, warning: bool) -> None:
        """An Event on the Node."""
        self._events.record(NodeEvent(node, uid, reason, message, warning))

    def of_object(self, event: ObjectEvent) -> None:
        """An Event on an object in a namespace."""
        self._events.record(event)

    def of_itself(self, reason: str, text: str, *, warning: bool = False) -> None:
        """An Event on the Lease."""
        namespace, _, name = self._owner.partition("/")
        group, uid = "coordination.k8s.io/v1", self._leader.lease_uid
        self._events.record(
            ObjectEvent(group, "Lease", namespace, name, uid, reason, text, warning)
        )
