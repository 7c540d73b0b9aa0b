"""`uncordon --all`: before an uninstall, uncordon what this installation cordoned.

Nobody else would: a node that stays cordoned keeps its annotation and takes no pods for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

from selfheal_remediator.cli.reading import read_all
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.lease import STOP_FOR_KEY, STOP_KEY, LeaseView
from selfheal_remediator.kube.objects import Json, Node, node_from_json
from selfheal_remediator.kube.observe_first import FIRST_START_KEY
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import EXCLUDE_KEY, STATE_KEY, Unreadable, read_state
from selfheal_remediator.node.drain_conditions import STRATEGIC, removals, status_patch
from selfheal_remediator.node.patches import node_patch, withdrawal
from selfheal_remediator.node.taints import is_cordoned
from selfheal_remediator.strict import LIFECYCLE_CONDITIONS

#: Seconds for which the running remediator stays stopped afterwards: its pods end meanwhile.
STOPPED_AFTER = 60.0
#: Seconds between two passes over all nodes.
PAUSE = 1.0
#: So many passes must find nothing: a write of the leader may have been under way.
CLEAN_PASSES = 2


@dataclass(slots=True)
class Result:
    """Nodes uncordoned, nodes whose annotation only was removed, and what is left (and why): of
    conditions only the conditions of a drain are left."""

    uncordoned: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For machines; conditions only where there are any."""
        return {key: value for key, value in asdict(self).items() if value or key != "conditions"}

    @property
    def text(self) -> str:
        """For people."""
        done, cleared = len(self.uncordoned), len(self.cleared)
        lines = [f"{done} nodes uncordoned, {cleared} annotations removed"]
        lines += [f"{node} is left: {why}; uncordon it by hand" for node, why in self.left.items()]
        kinds = " and ".join(LIFECYCLE_CONDITIONS)
        lines += [
            f"{node}: its conditions {kinds} are left: {why}"
            for node, why in self.conditions.items()
        ]
        return "\n".join(lines)


def stop(api: KubernetesApi, lease: LeaseView, seconds: float, *, forget: bool = False) -> None:
    """Stop the running remediator from changing anything for so long. Raises ApiFailure.

    forget: the next installation starts from scratch, with observeFirst.
    """
    path = (
        f"/apis/coordination.k8s.io/v1/namespaces/{quote(lease.namespace)}/leases/"
        f"{quote(lease.name)}"
    )
    annotations = {
        STOP_KEY: time_text(api.runtime.time() + seconds),
        STOP_FOR_KEY: str(math.ceil(seconds)),
    }
    if forget:
        annotations[FIRST_START_KEY] = ""
    body = {"metadata": {"annotations": annotations}}
    answer = api.write("PATCH", path, body, content_type="application/merge-patch+json")
    if not answer.ok:
        raise answer.failure()


def uncordon_all(api: KubernetesApi, owner: str, timeout: float) -> Result:
    """Uncordon and clear the nodes that carry `owner`'s annotation, until none remains. A drain
    that was requested of them is withdrawn: the next installation would begin it again.

    Nodes that a person excluded stay cordoned, and are reported.
    """
    result, clock = Result(), api.runtime.monotonic
    ends = clock() + timeout
    clean = 0
    while True:
        try:
            nodes, unread = read_all(api.nodes(), node_from_json)
            found = _pass(api, nodes, owner, result)
            result.left |= {item.id: item.problem for item in unread}
        except ApiFailure as failure:
            result.left, found = {"(all nodes)": f"they cannot be read: {failure}"}, True
        clean = 0 if found else clean + 1
        # What cannot be read stays so: it is reported, not waited for.
        if clean >= CLEAN_PASSES or clock() + PAUSE > ends:
            return result
        api.runtime.sleep(PAUSE)


def _pass(api: KubernetesApi, nodes: Iterable[Node], owner: str, result: Result) -> bool:
    """Change each node that is the owner's; whether there was any."""
    result.left, result.conditions = {}, {}
    found = False
    for node in nodes:
        try:
            state = read_state(node)
        except Unreadable as error:
            result.left[node.name] = f"annotation {STATE_KEY}: {error}"
            continue
        if state is None and (written := removals(node)):
            refusal = _take_back(api, node, written)
            found = found or refusal is None or refusal.status != 403  # this one does not pass
            if refusal is not None:
                result.conditions[node.name] = str(refusal)
        if state is None or state.by != owner:
            continue
        if state.phase.cordoned and EXCLUDE_KEY in node.annotations:
            result.left[node.name] = f"excluded: {node.annotations[EXCLUDE_KEY]}"
            continue
        found = True
        cordoned = state.phase.cordoned and is_cordoned(node, state)
        kind = Kind.UNCORDON if state.phase.cordoned else Kind.CLEAR
        action = Action(kind, node.name, node.uid, None, "", "")
        failure = _change(api, action, node)
        if failure:
            result.left[node.name] = failure
        else:
            names = result.uncordoned if cordoned else result.cleared
            names += [] if node.name in names else [node.name]
    return found


def _take_back(api: KubernetesApi, node: Node, conditions: list[Json]) -> ApiFailure | None:
    """Remove the conditions of a drain; why they could not be removed, None = they were."""
    path, body = f"/api/v1/nodes/{quote(node.name)}/status", status_patch(node, conditions)
    try:
        answer = api.write("PATCH", path, body, content_type=STRATEGIC)
    except ApiFailure as failure:
        return failure
    return None if answer.ok or answer.status == 404 else answer.failure()


def _change(api: KubernetesApi, action: Action, node: Node) -> str:
    """Make the change; why it could not be made, empty = it was."""
    try:
        patch = node_patch(action, node, scale_down_disabled=False) + withdrawal(node)
        answer = api.patch_node(node.name, patch)
    except ApiFailure as failure:
        return str(failure)
    return "" if answer.ok or answer.status == 404 else str(answer.failure())
