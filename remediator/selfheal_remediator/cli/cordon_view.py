"""What `plan` and `status` show of how a node is, or would be, cordoned. Pure."""

from __future__ import annotations

from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import State
from selfheal_remediator.node.taints import is_cordoned, our_taint, taint_text, taint_to_set
from selfheal_remediator.taint_settings import TaintSettings


def cordon_plan(node: Node, action: Action | None, settings: TaintSettings | None) -> str:
    """The taint that the action sets on the node, empty = none."""
    cordons = action is not None and action.kind is Kind.CORDON
    taint = taint_to_set(node, settings) if cordons else None
    if settings is None or taint is None:
        return ""
    where = "beside the cordon" if settings.cordon else "instead of a cordon"
    return f"{taint_text(taint)} {where}"


def cordon_notes(node: Node, state: State) -> set[str]:
    """What is to be said of the cordon of a node that a remediator cordoned."""
    if not is_cordoned(node, state):
        return {"its taint was removed" if state.taint_only else "uncordoned by somebody else"}
    taint = our_taint(node, state)
    if taint is None:
        return {"its taint was removed, it is cordoned"} if state.taint else set()
    return {f"tainted {taint_text(taint)}" + (" instead of a cordon" if state.taint_only else "")}
