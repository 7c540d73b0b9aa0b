"""Who uncordoned a node, where the API says so. Pure.

An uncordon takes spec.unschedulable away, and with it its owner in managedFields: kubectl's and
most clients' patches leave nothing that tells who it was. Only a server-side apply of `false`
keeps its manager as the owner.
"""

from __future__ import annotations

import re

from selfheal_remediator.kube.objects import Node

#: How the names of field managers begin behind which a human sits.
_PEOPLE = (
    *("kubectl", "oc", "k9s", "lens", "openlens", "freelens", "headlamp", "dashboard"),
    *("kubernetes-dashboard", "mozilla", "curl", "rancher"),
)

#: Followed by nothing or by what begins another word: `oc` is one, `ocm-agent` is a controller.
_BY_HAND = re.compile(f"(?:{'|'.join(_PEOPLE)})(?![a-z0-9])")


def uncordoned_by_controller(node: Node) -> str:
    """The field manager that keeps the node uncordoned and is no human's tool, empty = unknown."""
    manager = node.unschedulable_by
    if node.unschedulable or not manager or _BY_HAND.match(manager.lower()):
        return ""
    return manager
