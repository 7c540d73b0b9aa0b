"""One module writes a node's phase; what it writes is in its table, and the table in the docs."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from selfheal_remediator.config import Rule
from selfheal_remediator.node import lifecycle
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.lifecycle import TRANSITIONS, Occurrence
from tests.pure.remediator.builders import NOW, OWNER, condition, node

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "remediator" / "selfheal_remediator"
RULE = Rule.model_validate({"condition": "Fault", "for": 0, "action": "drain"})
STATE = State(Phase.CORDONED, OWNER, "Fault", "True", action="drain", cordons=(1,))

STEPS: dict[Callable[[State], State], Phase] = {
    lambda state: lifecycle.draining(state, NOW): Phase.DRAINING,
    lambda state: lifecycle.drained(state, NOW): Phase.DRAINED,
    lambda state: lifecycle.not_drained(state, NOW): Phase.CORDONED,
    lambda state: lifecycle.orphaned(state, NOW): Phase.CORDONED,
    lambda state: lifecycle.repairing(state, "mark", "boot", NOW): Phase.REPAIRING,
    lambda state: lifecycle.repair_failed(state, NOW): Phase.REPAIR_FAILED,
    lambda state: lifecycle.verifying(state, "boot", NOW): Phase.VERIFYING,
    lambda state: lifecycle.not_verified(state, NOW, failed=True): Phase.CORDONED,
    lambda state: lifecycle.withdrawn(state, NOW): Phase.CORDONED,
    lambda state: lifecycle.healed(state, NOW): Phase.HEALED,
    lambda state: lifecycle.suspect(state, NOW): Phase.SUSPECT,
    lambda state: lifecycle.cancelled(state, NOW): Phase.CANCELLED,
    lifecycle.seen_again: Phase.SEEN,
    lambda state: lifecycle.kept_for_flaps(state, (1,)): Phase.HEALED,
    lambda state: lifecycle.seen(_occurrence(state), NOW): Phase.SEEN,
    lambda state: lifecycle.noted(_occurrence(state), NOW): Phase.NOTED,
    lambda state: lifecycle.cordoned(_occurrence(state), NOW): Phase.CORDONED,
}


def _occurrence(before: State | None) -> Occurrence:
    bad = node("n", condition("True"))
    name = next(iter(bad.conditions))
    rule = RULE.model_copy(update={"condition": name})
    return Occurrence(bad, rule, OWNER, before, NOW - 60, NOW - 50, (1,))


@pytest.mark.parametrize("before", Phase)
@pytest.mark.parametrize(("step", "after"), STEPS.items())
def test_a_step_leads_to_its_phase_or_is_refused(
    before: Phase, step: Callable[[State], State], after: Phase
) -> None:
    state = replace(STATE, phase=before)
    if after in TRANSITIONS[before]:
        assert step(state).phase is after
    else:
        with pytest.raises(ValueError, match=f"{after.value} after {before.value}"):
            step(state)


def test_a_node_that_is_out_of_service_is_not_cordoned_as_if_it_were_in_service() -> None:
    """What is written of the cordon under way (its boot, its flaps) would be lost."""
    for phase in (Phase.DRAINING, Phase.DRAINED):
        assert not TRANSITIONS[phase] & {Phase.DRAINING, Phase.NOTED}
    assert Phase.NOTED not in TRANSITIONS[Phase.CORDONED]


def test_a_step_ends_only_where_one_was_begun() -> None:
    for phase in Phase:
        state = replace(STATE, phase=phase, steps=1)
        if phase in (Phase.REPAIRING, Phase.VERIFYING):
            after = lifecycle.step_ended(state, NOW, failed=True)
            assert (after.phase, after.step_ended, after.step_failed) == (phase, int(NOW), True)
            assert not after.step_runs
        elif phase not in TRANSITIONS[phase]:
            with pytest.raises(ValueError, match="cannot become"):
                lifecycle.step_ended(state, NOW, failed=True)


def test_of_a_node_in_service_no_ladder_is_written_down() -> None:
    begun = lifecycle.repairing(replace(STATE, phase=Phase.DRAINED), "mark", "boot", NOW)
    ended = lifecycle.step_ended(begun, NOW, failed=True)
    after = lifecycle.healed(ended, NOW)
    assert (after.steps, after.step, after.step_began, after.step_ended) == (0, "", 0, 0)
    assert (after.step_failed, after.step_boot, after.unverified) == (False, "", False)


def test_the_first_annotation_names_the_cordon() -> None:
    state = lifecycle.cordoned(_occurrence(None), NOW)
    assert (state.since, state.first_seen, state.cordons) == (
        int(NOW),
        int(NOW) - 50,
        (1, int(NOW)),
    )
    assert state.boot_id == _occurrence(None).node.boot_id


def test_no_other_module_writes_a_phase() -> None:
    """But the annotation's parser, which reads it."""
    allowed = {PACKAGE / "node" / "lifecycle.py", PACKAGE / "node" / "annotation.py"}
    found = []
    for path in set(PACKAGE.rglob("*.py")) - allowed:
        for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(item, ast.Call):
                continue
            function = ast.unparse(item.func)
            replaced = function.endswith("replace") and any(k.arg == "phase" for k in item.keywords)
            if replaced or function == "State":
                found.append(f"{path.name}:{item.lineno}")
    assert not found


def test_the_page_draws_what_the_table_allows() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    diagram = page.split("### Node phase", 1)[1].split("```")[1]
    drawn = re.findall(r"^ *(\S+) --> (\S+?):? ", diagram, re.M)
    assert drawn
    for before, after in drawn:
        if after == "[*]":
            continue  # the annotation may go in each phase
        assert Phase(after) in TRANSITIONS[None if before == "[*]" else Phase(before)]
    in_service = {phase.value for phase in Phase if not phase.cordoned}
    missing = {
        (before.value, after.value)
        for before, allowed in TRANSITIONS.items()
        if before is not None and before.cordoned
        for after in allowed - {before}
        if (before.value, after.value) not in drawn
    }
    assert not missing, "each step of a cordoned node is drawn"
    assert in_service <= {after for _, after in drawn}
