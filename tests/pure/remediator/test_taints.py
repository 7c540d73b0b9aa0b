"""Our taint comes and goes with our cordon; other people's taints are never touched."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.cli.cordon_view import cordon_plan
from selfheal_remediator.config import Config
from selfheal_remediator.drain.filters import Fate, Surroundings, sort_pod
from selfheal_remediator.drain.headroom import usable
from selfheal_remediator.drain.lookups import questions
from selfheal_remediator.drain.requests import still_draining
from selfheal_remediator.kube.objects import Node, Taint, node_from_json
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State, read_state
from selfheal_remediator.node.patches import node_patch
from selfheal_remediator.node.taints import cordoned_by, is_cordoned, our_taint, taint_mark
from selfheal_remediator.taint_settings import TaintSettings
from tests.pure.remediator import json_patch
from tests.pure.remediator.builders import (
    NOW,
    OWNER,
    condition,
    look,
    node,
    pod,
    rule,
    scope,
)

Json = dict[str, Any]
STATE = State(Phase.CORDONED, OWNER, condition="Fault", status="True", action="drain")
BESIDE = TaintSettings.model_validate({"key": "example.com/bad", "value": "yes"})
INSTEAD = TaintSettings.model_validate({"key": "example.com/bad", "value": "yes", "cordon": False})
OURS: Json = {"key": "example.com/bad", "effect": "NoSchedule", "value": "yes"}
#: Somebody else's: the same key with another effect, or another value.
OTHER_EFFECT: Json = {**OURS, "effect": "NoExecute"}
OTHER_VALUE: Json = {**OURS, "value": "no"}

KEYS = st.sampled_from(["example.com/bad", "gpu", "node.kubernetes.io/unschedulable"])
FOREIGN = st.builds(
    lambda key, value, effect: {
        "key": key,
        "effect": effect,
        **({"value": value} if value else {}),
    },
    KEYS,
    st.sampled_from(["", "no", "yes"]),
    st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"]),
)
#: As the API server has them: one of each key and effect.
TAINTS = st.lists(FOREIGN, max_size=5, unique_by=lambda one: (one["key"], one["effect"]))
SETTINGS = st.sampled_from([None, BESIDE, INSTEAD])


def raw(taints: list[Json] | None = None, **spec: Any) -> Json:
    meta = {"name": "n", "uid": "u", "resourceVersion": "5", "annotations": {"theirs": "x"}}
    return {"metadata": meta, "spec": {**({"taints": taints} if taints else {}), **spec}}


def done(
    kind: Kind, before: Json, state: State | None = STATE, taint: TaintSettings | None = None
) -> Json:
    """The node after the change; the API server leaves out what is empty."""
    seen = node_from_json(before)
    action = Action(kind, "n", "u", state, "", "")
    patch = node_patch(action, seen, scale_down_disabled=True, taint=taint)
    after = json_patch.apply(before, patch)
    if not after["spec"].get("taints", True):
        del after["spec"]["taints"]
    return after


def state_of(found: Json) -> State:
    state = read_state(node_from_json(found))
    assert state is not None
    return state


def is_out(found: Json) -> bool:
    return is_cordoned(node_from_json(found), state_of(found))


# -- setting and removing -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "spec"),
    [
        (BESIDE, {"unschedulable": True, "taints": [OURS]}),
        (INSTEAD, {"taints": [OURS]}),
        (None, {"unschedulable": True}),
    ],
)
def test_cordon_and_uncordon_leave_no_trace(settings: TaintSettings | None, spec: Json) -> None:
    cordoned = done(Kind.CORDON, raw(), taint=settings)
    assert cordoned["spec"] == spec
    assert is_out(cordoned)
    assert done(Kind.UNCORDON, cordoned, None) == raw()


@given(TAINTS, TAINTS, SETTINGS, SETTINGS, st.randoms(use_true_random=False), st.data())
def test_taints_of_others_are_never_changed(
    before: list[Json],
    later: list[Json],
    settings: TaintSettings | None,
    changed: TaintSettings | None,
    random: Any,
    data: st.DataObject,
) -> None:
    """Whatever they are, whatever others do to them meanwhile, and if the setting changes."""
    cordoned = done(Kind.CORDON, raw(before), taint=settings)
    added = [one for one in cordoned["spec"].get("taints", []) if one not in before]
    assert added in ([], [OURS])
    assert [one for one in cordoned["spec"].get("taints", []) if one not in added] == before
    # Others put their own beside ours, in any order, and may take ours away.
    keep_ours = data.draw(st.booleans())
    places = {(one["key"], one["effect"]) for one in added} if keep_ours else set()
    theirs = [one for one in later if (one["key"], one["effect"]) not in places and one != OURS]
    mixed = [*theirs, *(added if keep_ours else [])]
    random.shuffle(mixed)
    theirs = [one for one in mixed if one not in added]
    cordoned["spec"]["taints"] = mixed
    noted = done(Kind.NOTE, cordoned, replace(state_of(cordoned), phase=Phase.DRAINED))
    assert noted["spec"].get("taints", []) == mixed
    kind = data.draw(st.sampled_from([Kind.UNCORDON, Kind.CANCEL, Kind.CLEAR]))
    after = done(kind, noted, None, taint=changed)
    assert after["spec"].get("taints", []) == theirs


def test_a_taint_of_somebody_else_in_the_place_of_ours_stays_and_the_node_is_cordoned() -> None:
    for settings in (BESIDE, INSTEAD):
        cordoned = done(Kind.CORDON, raw([OTHER_VALUE]), taint=settings)
        assert cordoned["spec"] == {"unschedulable": True, "taints": [OTHER_VALUE]}
        assert (state_of(cordoned).taint, state_of(cordoned).taint_only) == ("", False)
        assert done(Kind.UNCORDON, cordoned, None)["spec"] == {"taints": [OTHER_VALUE]}


def test_one_that_was_there_before_is_not_ours_though_it_is_equal() -> None:
    cordoned = done(Kind.CORDON, raw([OURS]), taint=BESIDE)
    assert done(Kind.UNCORDON, cordoned, None)["spec"] == {"taints": [OURS]}


@pytest.mark.parametrize("settings", [None, BESIDE, INSTEAD])
def test_what_is_left_of_a_remediator_that_is_gone_is_ours(settings: TaintSettings | None) -> None:
    """A person uncordoned the node while nobody was there to remove the taint."""
    left = done(Kind.CORDON, raw([OTHER_EFFECT]), taint=BESIDE)
    del left["spec"]["unschedulable"]
    again = done(Kind.CORDON, left, taint=settings)
    wanted = [OTHER_EFFECT, *([OURS] if settings else [])]
    assert again["spec"]["taints"] == wanted
    assert done(Kind.UNCORDON, again, None)["spec"] == {"taints": [OTHER_EFFECT]}


@pytest.mark.parametrize("action", ["observe", "drain"])
@pytest.mark.parametrize("status", ["True", "False"])
@pytest.mark.parametrize("cordon", [True, False])
def test_a_taint_of_a_remediator_that_is_gone_goes_with_its_annotation(
    action: str, status: str, cordon: bool
) -> None:
    """Nobody would know afterwards whose it is: the node would be left alone for ever."""
    left = done(Kind.CORDON, raw([OTHER_EFFECT]), replace(STATE, by="gone/x"), BESIDE)
    del left["spec"]["unschedulable"]
    bad = condition(status, transition=NOW)
    seen = replace(node_from_json(left), conditions={"Fault": bad})
    waits = rule(action=action, **{"for": "0s" if action == "observe" else "10m"})
    settings = {"key": "example.com/bad", "cordon": cordon}
    about = replace(scope(waits, taint=settings), live=frozenset())
    wanted = look(seen, about, NOW + 30, since=NOW).action
    assert wanted is not None
    assert wanted.kind is (Kind.NOTE if status == "True" else Kind.CLEAR)
    after = done(wanted.kind, left, wanted.state)
    assert after["spec"] == {"taints": [OTHER_EFFECT]}


def test_a_taint_of_a_remediator_that_is_gone_does_not_stand_in_the_way_of_ours() -> None:
    left = done(Kind.CORDON, raw(), replace(STATE, by="gone/x"), BESIDE)
    del left["spec"]["unschedulable"]
    seen = replace(node_from_json(left), conditions={"Fault": condition("True")})
    assert look(seen, replace(SCOPE, live=frozenset())).standing == "wants-cordon"


def test_a_cordon_of_somebody_else_beside_our_taint_stays() -> None:
    cordoned = done(Kind.CORDON, raw(), taint=INSTEAD)
    cordoned["spec"]["unschedulable"] = True
    assert done(Kind.UNCORDON, cordoned, None)["spec"] == {"unschedulable": True}


def test_a_person_who_uncordons_gets_rid_of_the_taint_beside_too() -> None:
    cordoned = done(Kind.CORDON, raw([OTHER_EFFECT]), taint=BESIDE)
    del cordoned["spec"]["unschedulable"]
    cancelled = replace(STATE, phase=Phase.CANCELLED)
    assert done(Kind.CANCEL, cordoned, cancelled)["spec"] == {"taints": [OTHER_EFFECT]}


@pytest.mark.parametrize("text", ["{", '{"v":1,"phase":"cordoned","taint":"00000000"}'])
def test_an_annotation_without_our_taint_removes_none(text: str) -> None:
    found = raw([OURS])
    found["metadata"]["annotations"][STATE_KEY] = text
    assert done(Kind.CLEAR, found, None)["spec"] == {"taints": [OURS]}


# -- whether it is cordoned -----------------------------------------------------------------


def tainted(phase: Phase = Phase.CORDONED, *taints: Taint, **more: Any) -> Node:
    """A node that we cordoned by a taint alone; without taints somebody took ours away."""
    ours = Taint("example.com/bad", "yes", "NoSchedule")
    state = replace(STATE, phase=phase, taint=taint_mark(ours), taint_only=True, since=int(NOW))
    return node("n", more.pop("bad", condition("True")), state=state, taints=taints, **more)


OUR_TAINT = Taint("example.com/bad", "yes", "NoSchedule")
SCOPE = scope(taint={"key": "example.com/bad", "value": "yes", "cordon": False})


def test_a_node_with_our_taint_instead_of_a_cordon_is_cordoned() -> None:
    found = tainted(Phase.CORDONED, OUR_TAINT)
    assert cordoned_by(OWNER, found)
    assert not usable(found)
    assert look(found, SCOPE).standing == "cordoned"


def test_who_takes_our_taint_away_has_uncordoned_the_node() -> None:
    found = tainted()
    assert not cordoned_by(OWNER, found)
    seen = look(found, SCOPE)
    assert seen.action is not None
    assert seen.action.kind is Kind.CANCEL
    assert seen.action.state is not None
    assert (seen.action.state.phase, seen.action.state.taint) == (Phase.CANCELLED, "")
    assert "its taint was removed by somebody else" in seen.action.message
    # Who keeps spec.unschedulable away has said nothing of the taint.
    applied = look(replace(found, unschedulable_by="argocd-controller"), SCOPE)
    assert applied.action is not None
    assert "by somebody else" in applied.action.message


def test_a_changed_taint_is_not_ours_any_more() -> None:
    found = tainted(Phase.CORDONED, replace(OUR_TAINT, value="mine"))
    assert our_taint(found, read_state(found)) is None
    seen = look(found, SCOPE)
    assert seen.action is not None
    assert seen.action.kind is Kind.CANCEL


def test_a_cordon_alone_does_not_stand_for_our_taint() -> None:
    seen = look(tainted(unschedulable=True), SCOPE)
    assert seen.action is not None
    assert seen.action.kind is Kind.CANCEL


def test_beside_a_cordon_the_taint_may_go() -> None:
    state = replace(STATE, taint=taint_mark(OUR_TAINT))
    found = node("n", condition("True"), state=state, unschedulable=True)
    assert look(found, SCOPE).standing == "cordoned"


def test_it_is_uncordoned_when_it_has_recovered() -> None:
    config = scope(taint={"key": "example.com/bad", "cordon": False})
    found = tainted(Phase.CORDONED, OUR_TAINT, bad=condition("False", transition=NOW - 9000))
    seen = look(found, config, since=NOW - 9000)
    assert seen.action is not None
    assert seen.action.kind is Kind.UNCORDON


@pytest.mark.parametrize(("taint", "draining"), [(OUR_TAINT, True), (None, False)])
def test_a_drain_continues_while_our_taint_is_there(taint: Taint | None, draining: bool) -> None:
    cordoned = done(Kind.CORDON, raw(), replace(STATE, phase=Phase.DRAINING), INSTEAD)
    if taint is None:
        del cordoned["spec"]["taints"]
    assert still_draining(cordoned, "u") is draining


def test_where_somebody_elses_taint_is_in_the_place_of_ours_the_node_is_left_alone() -> None:
    theirs = replace(OUR_TAINT, value="mine")
    bad = node("n", condition("True"), taints=(theirs,))
    seen = look(bad, SCOPE)
    assert (seen.standing, seen.limited_action) == ("foreign-cordon", None)
    assert seen.why == "somebody else set the taint example.com/bad with the effect NoSchedule"
    beside = look(bad, scope(taint={"key": "example.com/bad"}))
    assert beside.standing == "wants-cordon"
    other = look(replace(bad, taints=(replace(theirs, effect="NoExecute"),)), SCOPE)
    assert other.standing == "wants-cordon"


def test_the_event_names_the_taint() -> None:
    for cordon, text in ((True, "cordoned, with the taint k:"), (False, "cordoned by taint k:")):
        seen = look(node("n", condition("True")), scope(taint={"key": "k", "cordon": cordon}))
        assert seen.limited_action is not None
        assert seen.limited_action.message.startswith(text)


def test_no_taint_is_named_where_somebody_elses_stays_in_its_place() -> None:
    theirs = node("n", condition("True"), taints=(Taint("k", "theirs", "NoSchedule"),))
    about = scope(taint={"key": "k", "value": "ours"})
    action = look(theirs, about).limited_action
    assert action is not None
    assert action.message.startswith("cordoned: ")
    assert cordon_plan(theirs, action, about.config.taint) == ""


# -- pods -----------------------------------------------------------------------------------


TOLERATING = (("example.com/bad", "Exists", "", "NoSchedule"),)


@pytest.mark.parametrize("tolerations", [TOLERATING, (("", "Exists", "", ""),)])
def test_pods_that_tolerate_a_taint_instead_of_a_cordon_stay(
    tolerations: tuple[tuple[str, str, str, str], ...],
) -> None:
    """They would be put here again."""
    guest = pod("guest", tolerations=tolerations, claims=("data",))
    around = Surroundings(Config().drain, taint=OUR_TAINT)
    assert sort_pod(guest, around).fate is Fate.IGNORE
    assert sort_pod(guest, around).reason == "tolerates the taint example.com/bad"
    assert sort_pod(replace(guest, deletion=NOW), around).fate is Fate.IGNORE
    assert questions(guest, around) == []
    assert sort_pod(guest, Surroundings(Config().drain)).fate is Fate.EVICT
    other = pod("other", tolerations=(("example.com/bad", "Equal", "no", "NoSchedule"),))
    assert sort_pod(other, around).fate is Fate.EVICT


def test_the_annotation_says_which_taint_in_few_bytes() -> None:
    cordoned = done(Kind.CORDON, raw(), taint=INSTEAD)
    text = cordoned["metadata"]["annotations"][STATE_KEY]
    known = json.loads(text)
    assert (known["taint"], known["taintOnly"]) == (taint_mark(OUR_TAINT), True)
    assert len(json.dumps(known["taint"])) == 10
