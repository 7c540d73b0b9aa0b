"""Compares the ladder that a plan showed with the steps that were begun."""

from __future__ import annotations

import re
from collections.abc import Iterator

from selfheal_remediator.config import Config
from selfheal_remediator.node.annotation import Phase, State
from tests.simulation.cluster.messages import Json
from tests.simulation.plans.finding import Finding
from tests.simulation.plans.record import NodeRecord
from tests.simulation.plans.scene import ACTS, PLANNED

#: What a plan says of a node whose next step is not due.
_WAITING = re.compile("waiting for recovery|waiting until detached|not reported since")
#: Seconds after a step has ended in which it may still help.
_HELPS_WITHIN = 400.0


def steps(item: Json, node: NodeRecord, last: Json | None, config: Config) -> Iterator[Finding]:
    """The steps in their order: each begins when the one before it has ended and did not help.
    last: the node in the last plan."""
    ladder = item.get("ladder")
    if ladder is None or item["action"] not in ("drain", "cordon"):
        return
    begun, ended = _begun_and_ended(node)
    drained, over = node.first(Phase.DRAINED, after=PLANNED), _over(node)
    for number, step in enumerate(ladder["steps"], 1):
        previous = drained if number == 1 else ended.get(number - 1)
        subject, kind = f"{item['node']} step {number}", f"step: {step['kind']}"
        if previous is None or (over is not None and over <= previous + 0.01):
            if number in begun:  # else it was not its turn, and nothing is known of it
                yield Finding(kind, subject, "not begun", f"at {begun[number][0]:.0f}")
        elif number in begun:
            yield Finding(kind, subject, "in order", _how(step, *begun[number], previous, config))
        else:
            yield Finding(kind, subject, "in order", _why_not(previous, over, last))
    most = max(begun, default=0)
    if most > len(ladder["steps"]):
        yield Finding("step: more", item["node"], str(len(ladder["steps"])), str(most))
    if node.back(ACTS) is not None and node.gone is None:
        shown = "verified" if ladder["verify"] else "not verified"
        verified = node.first(Phase.VERIFYING, after=PLANNED)
        did = "verified" if verified else "not verified"
        yield Finding("step: verify", item["node"], shown, did)


def _begun_and_ended(node: NodeRecord) -> tuple[dict[int, tuple[float, State]], dict[int, float]]:
    """When each step was begun, with the annotation then, and when it had ended."""
    begun: dict[int, tuple[float, State]] = {}
    ended: dict[int, float] = {}
    for when, state in node.states:
        if state is not None and state.steps and state.phase is Phase.REPAIRING:
            begun.setdefault(state.steps, (when, state))
            if state.step_ended:
                ended.setdefault(state.steps, when)
    return begun, ended


def _how(step: Json, when: float, state: State, previous: float, config: Config) -> str:
    """How a step was begun: it has to be the one that was shown, and its timeout that one."""
    if when < previous:
        return "too early"
    rules = [*config.rules, *(rule for group in config.groups for rule in group.rules or ())]
    same = [one for rule in rules for one in rule.then if one.mark == state.step]
    limits = {one.wait if one.wait is not None else one.timeout for one in same}
    kinds = {one.kind for one in same}
    right = step["kind"] in kinds and step["timeout"] in limits
    return "in order" if right else f"{kinds} with {limits}"


def _over(node: NodeRecord) -> float | None:
    """When nothing more of the ladder was to be done: it recovered, failed, or is gone."""
    times = [node.first(Phase.REPAIR_FAILED, after=PLANNED), node.back(ACTS), node.gone]
    return min((when for when in times if when is not None), default=None)


def _why_not(previous: float, over: float | None, last: Json | None) -> str:
    """What became of a step that was not begun though the one before it has ended. It may have
    helped meanwhile; or the last plan says what the next one waits for."""
    if over is not None and over - previous < _HELPS_WITHIN:
        return "in order"
    waits = last is not None and (last["limit"] or _WAITING.search(last["why"]))
    return "in order" if waits else "not begun"
