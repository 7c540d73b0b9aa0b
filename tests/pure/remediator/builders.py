"""Nodes, pods and rules for the tests, with all that does not matter filled in."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from selfheal_remediator.config import Config, Rule
from selfheal_remediator.kube.objects import Capacity, Condition, Node
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.node.annotation import STATE_KEY, State
from selfheal_remediator.node.assessment import Assessment, Scope
from selfheal_remediator.node.conditions import NodeHistory, observe
from selfheal_remediator.node.evaluate import assess

OWNER = "here/remediator"
NOW = 1_800_000_000.0


def rule(**more: Any) -> Rule:
    """A rule about `Fault`, at once, drain."""
    return Rule.model_validate({"condition": "Fault", "for": 0, "action": "drain", **more})


def config(*rules: Rule, **more: Any) -> Config:
    """A configuration with these rules."""
    return Config.model_validate(more).model_copy(update={"rules": rules or (rule(),)})


def condition(
    status: str,
    kind: str = "Fault",
    reason: str = "Why",
    transition: float | None = NOW - 100,
    heartbeat: float | None = NOW,
) -> Condition:
    """A condition as its writer left it."""
    return Condition(kind, status, reason, "", transition, heartbeat)


READY = Condition("Ready", "True", "KubeletReady", "", NOW - 9999, NOW)


def node(name: str = "n", *conditions: Condition, **more: Any) -> Node:
    """A ready node with these conditions."""
    state = more.pop("state", None)
    annotations: Mapping[str, str] = more.pop("annotations", {})
    if state is not None:
        annotations = {**annotations, STATE_KEY: state.to_json()}
    values: dict[str, Any] = {
        "uid": f"uid-{name}",
        "version": "1",
        "labels": {},
        "annotations": annotations,
        "unschedulable": False,
        "taints": (),
        "conditions": {item.type: item for item in (READY, *conditions)},
        "boot_id": "boot-1",
        "deleting": False,
        "created": None,
        "allocatable": Capacity(1000, 2**30, 110),
    }
    return Node(name=name, **{**values, **more})


def look(found: Node, scope: Scope, now: float = NOW, since: float | None = None) -> Assessment:
    """Assess the node as seen unchanged since `since`."""
    begun = now if since is None else since
    history = observe(NodeHistory(), None, found, scope.config.rules, begun)
    return assess(found, history, scope, now)


def scope(*rules: Rule, **more: Any) -> Scope:
    """The scope of one remediator."""
    return Scope(config(*rules, **more), OWNER)


def cordoned(state: State, *conditions: Condition, **more: Any) -> Node:
    """A node that we cordoned."""
    return node("n", *conditions, unschedulable=True, state=state, **more)


def pod(name: str = "p", **more: Any) -> Pod:
    """A running pod of a ReplicaSet on node `n`."""
    values: dict[str, Any] = {
        "namespace": "default",
        "uid": f"uid-{name}",
        "version": "1",
        "node": "n",
        "labels": {"app": "web"},
        "owner_kind": "ReplicaSet",
        "owner_name": "rs",
        "owner_uid": "rs-uid",
        "owner_api": "apps/v1",
        "phase": "Running",
        "deletion": None,
        "grace": 30,
        "finalizers": (),
        "mirror": False,
        "empty_dir": False,
        "claims": (),
        "priority": 0,
        "keep_reason": "",
        "pinned": False,
        "ready": True,
        "requests": Capacity(100, 2**20, 1),
        "node_selector": {},
        "tolerations": (),
    }
    return Pod(name=name, **{**values, **more})


def datetime_text(seconds: float) -> str:
    """A time as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def with_condition(found: Node, item: Condition) -> Node:
    """The node with one condition replaced."""
    return replace(found, conditions={**found.conditions, item.type: item})
