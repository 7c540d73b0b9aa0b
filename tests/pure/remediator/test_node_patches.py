"""A patch changes the node that was read, as it was read, or nothing."""

from dataclasses import replace
from typing import Any

import pytest

from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import (
    STATE_KEY,
    STEP_OBJECT_KEY,
    Phase,
    State,
    parse_state,
)
from selfheal_remediator.node.patches import SCALE_DOWN_KEY, node_patch
from selfheal_remediator.taint_settings import TaintSettings
from tests.pure.remediator import json_patch
from tests.pure.remediator.builders import OWNER

STATE = State(Phase.CORDONED, OWNER, condition="Fault")


def _raw(**annotations: str) -> dict[str, Any]:
    meta = {"name": "n", "uid": "u", "resourceVersion": "5", "annotations": annotations}
    return {"metadata": meta, "spec": {}}


def _action(kind: Kind, state: State | None = STATE) -> Action:
    return Action(kind, "n", "u", state, "", "")


def _done(
    kind: Kind,
    raw: dict[str, Any],
    state: State | None = STATE,
    taint: TaintSettings | None = None,
) -> dict[str, Any]:
    node = node_from_json(raw)
    patch = node_patch(_action(kind, state), node, scale_down_disabled=True, taint=taint)
    return json_patch.apply(raw, patch)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("change", [{"uid": "another"}, {"resourceVersion": "6"}])
def test_another_node_or_a_changed_one_is_refused(kind: Kind, change: dict[str, str]) -> None:
    patch = node_patch(_action(kind), node_from_json(_raw()), scale_down_disabled=True)
    raw = _raw()
    raw["metadata"].update(change)
    with pytest.raises(json_patch.TestFailed):
        json_patch.apply(raw, patch)


def test_cordon_and_uncordon_leave_no_trace() -> None:
    raw = _raw(theirs="x")
    cordoned = _done(Kind.CORDON, raw)
    assert cordoned["spec"] == {"unschedulable": True}
    assert cordoned["metadata"]["annotations"][SCALE_DOWN_KEY] == "true"
    assert parse_state(cordoned["metadata"]["annotations"][STATE_KEY]) == replace(
        STATE, scale_down_mark=True
    )
    assert _done(Kind.UNCORDON, cordoned, None) == {**raw, "spec": {}}


TAINT = TaintSettings(key="example.com/bad")


@pytest.mark.parametrize("phase", [None, *(phase for phase in Phase if not phase.cordoned)])
@pytest.mark.parametrize("kind", [kind for kind in Kind if not kind.limited])
def test_all_that_was_set_ends_with_the_cordon(kind: Kind, phase: Phase | None) -> None:
    """Also when the next leader only notes something on a node whose remediator is gone, and that
    a person uncordoned: nothing knows any more what was set."""
    noted = _raw(**{STEP_OBJECT_KEY: "occurrence created", "theirs": "x"})
    theirs = replace(STATE, by="there/gone")
    cordoned = _done(Kind.CORDON, noted, theirs, TAINT)
    marks = cordoned["metadata"]["annotations"].keys()
    assert marks == {STEP_OBJECT_KEY, "theirs", SCALE_DOWN_KEY, STATE_KEY}
    assert cordoned["spec"]["taints"]
    after = None if phase is None else State(phase, OWNER, condition="Fault")
    done = _done(kind, cordoned, after)
    assert done["metadata"]["annotations"].keys() - {STATE_KEY} == {"theirs"}
    assert not done["spec"].get("taints")


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase.cordoned])
def test_while_it_is_cordoned_all_of_it_stays(phase: Phase) -> None:
    noted = _raw(**{STEP_OBJECT_KEY: "occurrence created"})
    cordoned = _done(Kind.CORDON, noted, STATE, TAINT)
    state = parse_state(cordoned["metadata"]["annotations"][STATE_KEY])
    done = _done(Kind.NOTE, cordoned, replace(state, phase=phase))
    assert done["metadata"]["annotations"].keys() == cordoned["metadata"]["annotations"].keys()
    assert done["spec"] == cordoned["spec"]


def test_a_mark_of_somebody_else_stays() -> None:
    cordoned = _done(Kind.CORDON, _raw(**{SCALE_DOWN_KEY: "true"}))
    back = _done(Kind.UNCORDON, cordoned, None)
    assert back["metadata"]["annotations"] == {SCALE_DOWN_KEY: "true"}


def test_a_node_without_annotations() -> None:
    raw = _raw()
    del raw["metadata"]["annotations"]
    assert STATE_KEY in _done(Kind.NOTE, raw)["metadata"]["annotations"]


def test_cancel_keeps_the_node_as_the_human_left_it() -> None:
    cordoned = _done(Kind.CORDON, _raw())
    del cordoned["spec"]["unschedulable"]
    after = _done(Kind.CANCEL, cordoned, replace(STATE, phase=Phase.CANCELLED))
    assert after["spec"] == {}
    assert SCALE_DOWN_KEY not in after["metadata"]["annotations"]
