"""Settings of the taint that cordoned nodes get: part of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from selfheal_remediator.names import ALLOWED_KEY, ALLOWED_VALUE, is_label_key, is_label_value
from selfheal_remediator.strict import Strict

#: Whose taints are not ours to set: by them other systems are recognised (node/selection.py).
_DOMAINS = ("kubernetes.io", "k8s.io", "karpenter.sh", "medik8s.io")
_NAMES = ("ToBeDeletedByClusterAutoscaler", "DeletionCandidateOfClusterAutoscaler")


class TaintSettings(Strict):
    """A taint of our own on each node that we cordon, beside the cordon or instead of it."""

    key: str
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule"] = "NoSchedule"
    #: Whether the node is cordoned as well; False = the taint alone keeps pods away.
    cordon: bool = True

    @field_validator("key")
    @classmethod
    def _is_ours(cls, key: str) -> str:
        if not is_label_key(key):
            raise ValueError(
                f"{key!r:.100} is not the key of a taint, such as example.com/cordoned; allowed "
                f"are {ALLOWED_KEY}"
            )
        domain = key.rpartition("/")[0]
        if key in _NAMES or any(f".{domain}".endswith(f".{other}") for other in _DOMAINS):
            raise ValueError(f"{key} belongs to another system: choose a key of your own domain")
        return key

    @field_validator("value")
    @classmethod
    def _is_value(cls, value: str) -> str:
        if not is_label_value(value):
            raise ValueError(
                f"{value!r:.100} is not the value of a taint; allowed are {ALLOWED_VALUE}"
            )
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
