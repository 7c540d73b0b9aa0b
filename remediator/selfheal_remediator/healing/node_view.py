"""What pod healing must know of nodes, and what it says of them to the rules for nodes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from selfheal_remediator.config import PODS_HUNG, Config
from selfheal_remediator.healing.plan import Finding
from selfheal_remediator.kube.objects import Condition
from selfheal_remediator.node.annotation import EXCLUDE_KEY, Phase
from selfheal_remediator.node.entry import Entry
from selfheal_remediator.node.selection import foreign_mark, selected

#: What is done to a node beside its pods, by phase.
_HANDLED = {
    Phase.DRAINING: "it is being drained",
    Phase.DRAINED: "it is being drained",
    Phase.REPAIRING: "it is being repaired",
    Phase.VERIFYING: "it is being verified",
}


def node_trouble(entry: Entry | None, marks: Mapping[str, str]) -> str:
    """Why the pods of the node are left alone, empty = they are not.

    marks: external claims on a node, by its name (see Scope).
    """
    if entry is None:
        return "it is gone"
    node, state = entry.node, entry.state
    cordoned = state is not None and state.phase.cordoned
    if node.deleting:
        return "it is being deleted"
    if not node.ready:
        return "it is not ready, so the state of its pods is unknown"
    handled = _HANDLED.get(state.phase) if state is not None else None
    if handled is not None:
        return handled
    if node.unschedulable and not cordoned:
        return "it was cordoned by somebody else, who may drain it"
    return foreign_mark(node, marks)


def node_path(entry: Entry | None, config: Config, marks: Mapping[str, str]) -> bool:
    """Whether the rules would drain the node if many of its pods are unhealthy."""
    if entry is None or EXCLUDE_KEY in entry.node.annotations:
        return False
    drains = any(
        rule.condition == PODS_HUNG and rule.action == "drain" and "True" in rule.status
        for rule in config.rules_for(entry.node.labels)
    )
    return drains and selected(entry.node, config) and not foreign_mark(entry.node, marks)


def reported_of_nodes(
    before: Mapping[str, Condition],
    findings: Mapping[str, Finding],
    cordoned: Iterable[str],
    now: float,
    *,
    known: bool = True,
) -> dict[str, Condition]:
    """The condition PodsHung by node: True with a finding, False where there was one.

    cordoned: nodes that are cordoned because of it; a new leader must be able to report its end.
    known: whether everything that can be known is known; otherwise nothing is reported as over.
    """
    reported = {}
    for name in {*before, *findings, *cordoned}:
        finding, last = findings.get(name), before.get(name)
        status = "True" if finding is not None else "False"
        if last is not None and (last.status == status or (finding is None and not known)):
            reported[name] = last
            continue
        if finding is None and not known:
            continue
        text = (
            finding.text if finding is not None else "no pods of several owners are unhealthy here"
        )
        reason = "UnhealthyHereHealthyElsewhere" if finding is not None else "PodsWell"
        reported[name] = Condition(PODS_HUNG, status, reason, text[:200], now, now)
    return reported
