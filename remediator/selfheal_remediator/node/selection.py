"""Which nodes the rules apply to, and which of them another system is changing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from selfheal_remediator.config import Config
from selfheal_remediator.kube.objects import FOREIGN_ANNOTATIONS, Node

OPT_OUT_LABEL = "selfheal.dev/exclude"
NO_MARKS: Mapping[str, str] = MappingProxyType({})
FOREIGN_TAINTS = (
    ("ToBeDeletedByClusterAutoscaler", "cluster-autoscaler removes it"),
    ("karpenter.sh/disrupted", "Karpenter disrupts it"),
    ("karpenter.sh/disruption", "Karpenter disrupts it"),
    ("medik8s.io/remediation", "medik8s remediates it"),
    ("remediation.medik8s.io/", "medik8s remediates it"),
    ("medik8s.io/drain", "medik8s drains it"),
    ("node.kubernetes.io/out-of-service", "it is marked out of service"),
)


def selected(node: Node, config: Config) -> bool:
    """Whether the rules apply to the node at all."""
    labels = node.labels
    if labels.get(OPT_OUT_LABEL) == "true":
        return False
    if node.control_plane and not config.control_plane:
        return False
    exclude = config.exclude_node_selector
    if exclude and all(labels.get(key) == value for key, value in exclude.items()):
        return False
    return all(labels.get(key) == value for key, value in config.node_selector.items())


def foreign_mark(node: Node, marks: Mapping[str, str] = NO_MARKS) -> str:
    """Which other system is changing the node; empty when none is (see Scope.marks)."""
    for taint in node.taints:
        for key, meaning in FOREIGN_TAINTS:
            if taint.key == key or (key.endswith("/") and taint.key.startswith(key)):
                return f"{meaning} (taint {taint.key})"
    for key, meaning in FOREIGN_ANNOTATIONS.items():
        if meaning and key in node.annotations:
            return f"{meaning} (annotation {key})"
    return marks.get(node.name, "")
