"""JSON patches (RFC 6902) for a Node, each guarded by tests on uid and resourceVersion. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from selfheal_remediator.kube.objects import DRAIN_KEY, Node
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import STATE_KEY, STEP_OBJECT_KEY, State
from selfheal_remediator.node.drain_request import UNTIL_KEY
from selfheal_remediator.node.taints import cordon_ops, uncordon_ops, untaint_ops
from selfheal_remediator.taint_settings import TaintSettings

SCALE_DOWN_KEY = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
Json = dict[str, Any]


def node_patch(
    action: Action,
    node: Node,
    *,
    scale_down_disabled: bool,
    taint: TaintSettings | None = None,
) -> list[Json]:
    """The patch that carries out the action on the node as it was observed.

    scale_down_disabled, taint: what a cordon sets beside.

    The server refuses it (422) if the node is another one or has changed since: the decision
    applies to exactly this resourceVersion, so no other fresh read is needed.
    """
    annotations = node.annotations
    ops: list[Json] = [
        _op("test", "/metadata/uid", action.uid),
        _op("test", "/metadata/resourceVersion", node.version),
    ]
    if not node.annotated:
        ops.append(_op("add", "/metadata/annotations", {}))
    state = action.state
    if action.kind is Kind.CORDON and state is not None:
        cordon, state = cordon_ops(node, state, taint)
        ops += cordon
        if _our_mark(annotations):
            state = replace(state, scale_down_mark=True)  # left by one that is gone: ours now
        if scale_down_disabled and SCALE_DOWN_KEY not in annotations:
            ops.append(_op("add", annotation_path(SCALE_DOWN_KEY), "true"))
            state = replace(state, scale_down_mark=True)
    if action.kind is Kind.UNCORDON:
        ops += uncordon_ops(node)
    if state is None or not state.phase.cordoned:
        # Whatever the action is: its annotation may be of a remediator that is gone, and nothing
        # knows any more what else that one set.
        ops += untaint_ops(node)
        ours = {SCALE_DOWN_KEY: _our_mark(annotations), STEP_OBJECT_KEY: True}
        ops += [
            {"op": "remove", "path": annotation_path(key)}
            for key, is_ours in ours.items()
            if is_ours and key in annotations
        ]
    return ops + _state_ops(state, annotations)


def _state_ops(state: State | None, annotations: Mapping[str, str]) -> list[Json]:
    if state is not None:
        return [_op("add", annotation_path(STATE_KEY), state.to_json())]
    if STATE_KEY in annotations:
        return [{"op": "remove", "path": annotation_path(STATE_KEY)}]
    return []


def _our_mark(annotations: Mapping[str, str]) -> bool:
    marked = '"scaleDownMark":true' in annotations.get(STATE_KEY, "")
    return marked and annotations.get(SCALE_DOWN_KEY) == "true"


def annotation_path(key: str) -> str:
    """The JSON pointer to an annotation."""
    return "/metadata/annotations/" + key.replace("~", "~0").replace("/", "~1")


def _op(op: str, path: str, value: object) -> Json:
    return {"op": op, "path": path, "value": value}


def withdrawal(node: Node) -> list[Json]:
    """The request of a drain is removed, if there is one."""
    keys = [key for key in (DRAIN_KEY, UNTIL_KEY) if key in node.annotations]
    return [{"op": "remove", "path": annotation_path(key)} for key in keys]
