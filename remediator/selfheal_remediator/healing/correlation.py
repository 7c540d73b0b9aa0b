"""Whether unhealthy pods of several owners point to their node. Pure.

One evaluation over what all policies observe at one moment: its findings bind every policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from selfheal_remediator.healing.plan import Finding

#: Owners whose pods must be unhealthy on a node before it is the node's problem.
OWNERS = 2


@dataclass(frozen=True, slots=True)
class Observation:
    """An unhealthy pod as one policy observes it.

    owner: uid of the topmost controller. evidence: beyond doubt, and the owner's pods on other
    nodes are healthy; what is not evidence yet does not begin a finding, but keeps one.
    """

    node: str
    owner: str
    text: str
    evidence: bool


def correlate(
    before: Mapping[str, Finding], observed: Iterable[Observation], now: float, *, complete: bool
) -> dict[str, Finding]:
    """The findings by node, from unhealthy pods under all policies.

    A finding begins with evidence from several owners. It ends when the pods of fewer owners are
    unhealthy on the node, whatever becomes of their siblings elsewhere meanwhile, and not while
    some policy's pods are not known (`complete` False): an unobserved pod has not recovered.
    """
    evidence: dict[str, dict[str, str]] = {}
    unhealthy: dict[str, set[str]] = {}
    for item in observed:
        unhealthy.setdefault(item.node, set()).add(item.owner)
        if item.evidence:
            evidence.setdefault(item.node, {})[item.owner] = item.text
    findings = {}
    for node in {*before, *evidence}:
        known, owners = before.get(node), evidence.get(node, {})
        if len(owners) >= OWNERS:
            findings[node] = Finding(node, known.since if known else now, _text(owners))
        elif known and (not complete or len(unhealthy.get(node, ())) >= OWNERS):
            findings[node] = known
    return findings


def _text(owners: Mapping[str, str]) -> str:
    named = ", ".join(sorted(owners.values())[:5])
    return f"pods of {len(owners)} owners are unhealthy here and healthy elsewhere: {named}"
