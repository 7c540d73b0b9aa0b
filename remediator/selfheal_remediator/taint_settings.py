"""Settings of the taint that cordoned nodes get: part of the configuration."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from selfheal_remediator.strict import Strict

_NAME = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_KEY = re.compile(rf"({_LABEL}(\.{_LABEL})*/)?{_NAME}")
_VALUE = re.compile(f"({_NAME})?")
#: Whose taints are not ours to set: by them other systems are recognised (node/selection.py).
_DOMAINS = ("kubernetes.io", "k8s.io", "karpenter.sh", "medik8s.io")
_NAMES = ("ToBeDeletedByClusterAutoscaler", "DeletionCandidateOfClusterAutoscaler")


class TaintSettings(Strict):
    """A taint of our own on each node that we cordon, beside the cordon or instead of it."""

    key: str = Field(max_length=317)
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule"] = "NoSchedule"
    #: Whether the node is cordoned as well; False = the taint alone keeps pods away.
    cordon: bool = True

    @field_validator("key")
    @classmethod
    def _is_ours(cls, key: str) -> str:
        if _KEY.fullmatch(key) is None:
            raise ValueError(
                f"{key!r:.100} is not the key of a taint, such as example.com/cordoned"
            )
        domain = key.rpartition("/")[0]
        if key in _NAMES or any(f".{domain}".endswith(f".{other}") for other in _DOMAINS):
            raise ValueError(f"{key} belongs to another system: choose a key of your own domain")
        return key

    @field_validator("value")
    @classmethod
    def _is_value(cls, value: str) -> str:
        if _VALUE.fullmatch(value) is None:
            raise ValueError(f"{value!r:.100} is not the value of a taint (as a label's)")
        return value

    @field_validator("effect", mode="before")
    @classmethod
    def _evicts_nothing(cls, effect: object) -> object:
        if effect == "NoExecute":
            raise ValueError(
                "NoExecute deletes pods without regard to PodDisruptionBudgets and limits; "
                "allowed are NoSchedule and PreferNoSchedule: action: drain evicts the pods"
            )
        return effect

    @model_validator(mode="after")
    def _keeps_pods_away(self) -> TaintSettings:
        if not self.cordon and self.effect != "NoSchedule":
            raise ValueError(
                f"effect: {self.effect} with cordon: false keeps no pod away: set effect: "
                "NoSchedule, or cordon: true"
            )
        return self
