"""Label selectors as settings have them: matchLabels and matchExpressions of Kubernetes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from selfheal_remediator.names import LabelKey, Labels, LabelValue
from selfheal_remediator.strict import Strict


class Requirement(Strict):
    """One of matchExpressions."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[LabelValue, ...] = ()

    @model_validator(mode="after")
    def _has_values(self) -> Requirement:
        wanted = self.operator in ("In", "NotIn")
        if wanted and not self.values:
            raise ValueError(f"operator {self.operator} needs values")
        if not wanted and self.values:
            raise ValueError(f"operator {self.operator} allows no values")
        return self

    def matches(self, labels: Mapping[str, str]) -> bool:
        """As the API server matches labels: NotIn also where there is no such label."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


class NodeSelector(Strict):
    """All requirements must match; an empty selector matches every node."""

    match_labels: Labels = Field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels is selected."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )

    def includes(self, other: NodeSelector) -> bool:
        """Whether it certainly selects each node that the other one does: it requires nothing
        that the other one does not."""
        return self._requirements() <= other._requirements()

    def _requirements(self) -> set[tuple[str, str, frozenset[str]]]:
        labels = {(key, "In", frozenset([value])) for key, value in self.match_labels.items()}
        return labels | {
            (item.key, item.operator, frozenset(item.values)) for item in self.match_expressions
        }
