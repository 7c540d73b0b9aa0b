"""Our taint on a node: which of its taints that is, and whether the node is still cordoned. Pure.

The annotation has the taint's mark. A taint with another key, value or effect is never ours: it is
neither changed nor removed.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

from selfheal_remediator.kube.objects import Node, Taint
from selfheal_remediator.node.annotation import State, known_state
from selfheal_remediator.taint_settings import TaintSettings

Json = dict[str, Any]


def taint_text(taint: Taint) -> str:
    """As kubectl writes it: `key=value:effect`."""
    value = f"={taint.value}" if taint.value else ""
    return f"{taint.key}{value}:{taint.effect}"


def taint_mark(taint: Taint) -> str:
    """The taint, short enough for a node's annotation."""
    return f"{zlib.crc32(taint_text(taint).encode()):08x}"


def taint_of(settings: TaintSettings) -> Taint:
    """The taint that is configured."""
    return Taint(settings.key, settings.value, settings.effect)


def taint_to_set(node: Node, settings: TaintSettings | None) -> Taint | None:
    """The taint that a cordon of this node sets; None = none is configured, or somebody else's is
    in its place, which stays."""
    if settings is None or _blocked(node, settings):
        return None
    return taint_of(settings)


def how_cordoned(node: Node, settings: TaintSettings | None) -> str:
    """How a cordon of this node is done, for people."""
    taint = taint_to_set(node, settings)
    if settings is None or taint is None:
        return "cordoned"
    with_it = "cordoned, with the taint" if settings.cordon else "cordoned by taint"
    return f"{with_it} {taint_text(taint)}"


def our_taint(node: Node, state: State | None) -> Taint | None:
    """The one that the state is about, None = there is none, or somebody took it away."""
    if state is None or not state.taint:
        return None
    return next((taint for taint in node.taints if taint_mark(taint) == state.taint), None)


def is_cordoned(node: Node, state: State) -> bool:
    """Whether the node is still cordoned in the way that the state says: nobody has ended it."""
    if state.taint_only:
        return our_taint(node, state) is not None
    return node.unschedulable


def cordoned_by(owner: str, node: Node) -> bool:
    """Whether this remediator cordoned the node, and it still is."""
    state = known_state(node)
    if state is None or not state.phase.cordoned or state.by != owner:
        return False
    return is_cordoned(node, state)


def taint_instead(node: Node) -> Taint | None:
    """The taint by which alone we cordoned the node; None = it is cordoned otherwise, or not."""
    state = known_state(node)
    return our_taint(node, state) if state is not None and state.taint_only else None


def taint_planned(node: Node, settings: TaintSettings | None) -> Taint | None:
    """The same of a node as it would be, were it cordoned by these settings now."""
    state = known_state(node)
    if settings is None or settings.cordon or (state is not None and state.phase.cordoned):
        return taint_instead(node)
    return taint_of(settings)


def taken(node: Node, settings: TaintSettings | None) -> str:
    """Why the node cannot be cordoned by our taint alone: somebody else's is in its place."""
    if settings is None or settings.cordon or not _blocked(node, settings):
        return ""
    return f"somebody else set the taint {settings.key} with the effect {settings.effect}"


def _in_place(node: Node, settings: TaintSettings) -> Taint | None:
    """The taint on the node that ours would replace: a node has one of each key and effect."""
    place = (settings.key, settings.effect)
    return next((taint for taint in node.taints if (taint.key, taint.effect) == place), None)


def _blocked(node: Node, settings: TaintSettings) -> bool:
    """Whether what is in the place of ours is not one that is left of an earlier cordon of ours."""
    return _in_place(node, settings) not in (None, our_taint(node, known_state(node)))


def cordon_ops(
    node: Node, state: State, settings: TaintSettings | None
) -> tuple[list[Json], State]:
    """JSON patch operations that cordon the node, and the state with what they do.

    A taint that is left of an earlier cordon of ours goes. Where somebody else's taint is in the
    place of ours it stays, and the node is cordoned.
    """
    left = our_taint(node, known_state(node))
    wanted = taint_to_set(node, settings)
    if settings is None or wanted is None:
        return [*_without(node, left), _CORDON], replace(state, taint="", taint_only=False)
    changes = [] if left == wanted else [*_without(node, left), *_with(node, wanted)]
    ops = [*changes, _CORDON] if settings.cordon else changes
    return ops, replace(state, taint=taint_mark(wanted), taint_only=not settings.cordon)


def uncordon_ops(node: Node) -> list[Json]:
    """JSON patch operations that uncordon the node; somebody else's cordon beside ours stays."""
    state = known_state(node)
    foreign = state is not None and state.phase.cordoned and state.taint_only
    if not node.unschedulable or foreign:
        return []
    return [{"op": "remove", "path": "/spec/unschedulable"}]


def untaint_ops(node: Node) -> list[Json]:
    """JSON patch operations that remove our taint, if the node has it."""
    return _without(node, our_taint(node, known_state(node)))


_CORDON: Json = {"op": "add", "path": "/spec/unschedulable", "value": True}


def _with(node: Node, taint: Taint) -> list[Json]:
    value = {"key": taint.key, "effect": taint.effect}
    if taint.value:
        value["value"] = taint.value
    if not node.taints:
        return [{"op": "add", "path": "/spec/taints", "value": [value]}]
    return [{"op": "add", "path": "/spec/taints/-", "value": value}]


def _without(node: Node, taint: Taint | None) -> list[Json]:
    """Only this one goes: what is at its place is tested."""
    if taint is None:
        return []
    path = f"/spec/taints/{node.taints.index(taint)}"
    return [
        {"op": "test", "path": f"{path}/key", "value": taint.key},
        {"op": "test", "path": f"{path}/effect", "value": taint.effect},
        {"op": "remove", "path": path},
    ]
