"""PodDisruptionBudgets as small values. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from selfheal_remediator.kube.json_values import (
    as_name,
    as_object,
    as_objects,
    as_text,
    as_whole,
    interned,
    texts,
)
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import understood


@dataclass(frozen=True, slots=True)
class Budget:
    """The part of a PodDisruptionBudget that a drain needs."""

    namespace: str
    name: str
    uid: str
    version: str
    match_labels: Mapping[str, str]
    match_expressions: tuple[tuple[str, str, tuple[str, ...]], ...]
    selects: bool
    allowed: int
    healthy: int
    desired: int
    expected: int
    current: bool
    always_allow_unhealthy: bool
    #: minAvailable is a number: then `expected` counts all pods that there are, finished ones, too
    #: (getExpectedPodCount in pkg/controller/disruption/disruption.go).
    counts_pods: bool = False

    @property
    def id(self) -> str:
        """`namespace/name`, for people."""
        return f"{self.namespace}/{self.name}"

    @property
    def label_selector(self) -> str:
        """Which pods it covers, as a query of the API names them."""
        labels = [f"{key}={value}" for key, value in self.match_labels.items()]
        return ",".join([*labels, *(_query(*item) for item in self.match_expressions)])

    def covers(self, pod: Pod) -> bool:
        """Whether the budget's selector matches the pod (policy/v1: empty selects all)."""
        if not self.selects or pod.namespace != self.namespace:
            return False
        labels = pod.labels
        if any(labels.get(key) != value for key, value in self.match_labels.items()):
            return False
        return all(
            _expression_matches(labels, key, operator, values)
            for key, operator, values in self.match_expressions
        )


def _expression_matches(
    labels: Mapping[str, str], key: str, operator: str, values: tuple[str, ...]
) -> bool:
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False


def _query(key: str, operator: str, values: tuple[str, ...]) -> str:
    """A requirement of matchExpressions; the API server has checked the operator."""
    match operator:
        case "Exists":
            return key
        case "DoesNotExist":
            return f"!{key}"
        case _:
            return f"{key} {operator.lower()} ({','.join(values)})"


@understood("a PodDisruptionBudget")
def budget_from_json(raw: Json) -> Budget:
    """A PodDisruptionBudget from the API's JSON. Raises Malformed."""
    meta = as_object(raw["metadata"])
    spec, status = as_object(raw.get("spec")), as_object(raw.get("status"))
    selector = as_object(spec.get("selector"))
    return Budget(
        namespace=sys.intern(as_name(meta["namespace"])),
        name=as_name(meta["name"]),
        uid=as_name(meta["uid"]),
        version=as_text(meta.get("resourceVersion")),
        match_labels=interned(as_object(selector.get("matchLabels"))),
        match_expressions=tuple(
            (
                as_name(item["key"]),
                as_name(item["operator"]),
                texts(item.get("values")),
            )
            for item in as_objects(selector.get("matchExpressions"))
        ),
        selects=spec.get("selector") is not None,
        allowed=as_whole(status.get("disruptionsAllowed")),
        healthy=as_whole(status.get("currentHealthy")),
        desired=as_whole(status.get("desiredHealthy")),
        expected=as_whole(status.get("expectedPods")),
        current=as_whole(status.get("observedGeneration")) >= as_whole(meta.get("generation")),
        always_allow_unhealthy=as_text(spec.get("unhealthyPodEvictionPolicy")) == "AlwaysAllow",
        counts_pods=isinstance(spec.get("minAvailable"), int),
    )
