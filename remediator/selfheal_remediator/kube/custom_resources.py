"""The names of our own custom resources."""

from __future__ import annotations

GROUP = "selfheal.dev"


VERSION = "v1alpha1"


PLURAL = "healingpolicies"


KIND = "HealingPolicy"
