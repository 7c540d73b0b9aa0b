"""Onsets of a condition on many nodes: what makes a wave, and what a change costs."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal_remediator.config import Signal
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.node import onsets as module
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import STATE_KEY
from selfheal_remediator.node.onsets import Onset, Onsets
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.node.waves import Waves
from tests.pure.remediator.builders import NOW, OWNER, condition, config, node
from tests.support.sizes import objects_of


def _signal(window: int, rollout_window: int) -> Signal:
    return Signal.model_validate({"window": f"{window}s", "rolloutWindow": f"{rollout_window}s"})


@dataclass
class Model:
    """The same, counted from the beginning each time."""

    signal: Signal
    onsets: dict[str, Onset] = field(default_factory=dict)

    def drop(self, now: float, bad: set[str]) -> None:
        for uid, onset in list(self.onsets.items()):
            window = self.signal.rollout_window if onset.rollout else self.signal.window
            if onset.when + window < now and uid not in bad:
                del self.onsets[uid]

    def wave(self, limit: int) -> float | None:
        found = list(self.onsets.values())
        for chosen, window in (
            (found, self.signal.window),
            ([o for o in found if o.rollout], max(self.signal.window, self.signal.rollout_window)),
        ):
            moments = sorted(onset.when for onset in chosen)
            for first, last in zip(moments, moments[limit:], strict=False):
                if last - first <= window:
                    return first
        return None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("onset"), st.integers(0, 30), st.integers(0, 60), st.booleans()),
        st.tuples(st.just("good"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.integers(0, 30)),
        st.tuples(st.just("limit"), st.integers(1, 6)),
        st.tuples(st.just("windows"), st.integers(1, 60), st.integers(1, 60)),
        st.tuples(st.just("search")),
    ),
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_a_wave_is_found_as_by_counting_all_onsets(steps: list[tuple[object, ...]]) -> None:
    signal = _signal(10, 40)
    onsets, model, bad = Onsets(signal), Model(signal), set[str]()
    now, limit = 100.0, 3
    for kind, *more in [*steps, ("search",)]:
        numbers = [int(item) for item in more]  # type: ignore[call-overload]
        if kind == "onset":
            uid, onset = f"n{numbers[0]}", Onset(now - numbers[1], bool(numbers[2]))
            bad.add(uid)
            onsets.put(uid, onset)
            model.onsets[uid] = onset
        elif kind == "good":
            bad.discard(f"n{numbers[0]}")
            onsets.node_recovered(f"n{numbers[0]}")
        elif kind == "wait":
            now += numbers[0]
        elif kind == "limit":
            limit = numbers[0]
        elif kind == "windows":
            signal = _signal(*numbers)
            onsets.reconfigure(signal)
            model.signal = signal
        onsets.drop(now, bad)
        model.drop(now, bad)
        assert len(onsets) == len(model.onsets)
        if kind == "search":
            expected = model.wave(limit)
            assert onsets.wave(limit) == expected
            if expected is not None:
                return  # it is suspected from now on, and not searched any more


@pytest.mark.parametrize("amount", ["1%", "100%"])
@pytest.mark.parametrize("spread", [0.0, 0.001, 1.0, 600.0])
def test_a_change_of_one_of_many_bad_nodes_searches_few_onsets(
    monkeypatch: pytest.MonkeyPatch, amount: str, spread: float
) -> None:
    """A thousand nodes turn bad one by one: none of the changes may cost as much as all of them."""
    searched: list[int] = []
    first_burst = module.first_burst

    def counting(ordered: list[float], window: float, limit: int) -> float | None:
        searched.append(len(ordered))
        return first_burst(ordered, window, limit)

    monkeypatch.setattr(module, "first_burst", counting)
    made = config(signal={"maxTouched": amount})
    planner = Planner(made, OWNER, 0.0)
    total = 1000
    for number in range(total):
        made_node = node(f"n{number}", condition("False"))
        planner.apply(Change(made_node.name, None, made_node), NOW)
    planner.plan(NOW)
    searched.clear()
    for number in range(total):
        bad = node(f"n{number}", condition("True"))
        planner.apply(Change(bad.name, None, bad), NOW + 1 + number * spread)
        planner.plan(NOW + 1 + number * spread)
    assert bool(planner.suspects) is (amount == "1%" and spread <= 1.0)
    assert sum(searched) <= 100 * total


def _planner_of(number: int) -> Planner:
    """So many good nodes; no limit but that on waves."""
    planner = Planner(config(limits={"maxUnavailable": "100%"}), OWNER, 0.0)
    for name in range(number):
        planner.apply(Change(f"n{name}", None, node(f"n{name}", condition("False"))), NOW)
    planner.plan(NOW)
    return planner


def _say(planner: Planner, name: str, status: str, reason: str, now: float) -> list[str]:
    """The node has the condition from now on; which nodes are cordoned by that."""
    told = condition(status, reason=reason, transition=now, heartbeat=now)
    planner.apply(Change(name, None, node(name, told)), now)
    return [action.node for action in planner.plan(now).actions if action.kind is Kind.CORDON]


@pytest.mark.parametrize("reason", ["the same", "of node {}"])
def test_a_wrong_detector_does_not_escape_by_reasons_of_their_own(reason: str) -> None:
    planner, touched = _planner_of(100), list[str]()
    for number in range(40):
        touched += _say(planner, f"n{number}", "True", reason.format(number), NOW + number / 10)
    assert planner.suspects.keys() == {"Fault"}
    assert len(touched) <= config().signal.floor


def test_nodes_that_stay_bad_keep_no_later_wave_alive() -> None:
    planner, now = _planner_of(100), NOW
    for number in range(4):  # as many as make a wave, but one after the other
        now += 3600
        _say(planner, f"n{number}", "True", "broken for good", now)
    assert planner.suspects == {}
    for number in range(50, 60):
        _say(planner, f"n{number}", "True", "just started", now + 3600)
    assert planner.suspects == {"Fault": now + 3600}
    now += 3600 + 2 * config().signal.window
    for number in range(50, 60):
        started = node(f"n{number}", condition("False", transition=now, heartbeat=now))
        planner.apply(Change(started.name, None, started), now)
    planner.plan(now)
    assert planner.suspects == {}
    assert _say(planner, "n99", "True", "genuine", now) == ["n99"]


@pytest.mark.parametrize("suspected", [False, True])
def test_a_condition_that_flaps_for_ever_needs_no_more_memory(suspected: bool) -> None:
    """Also while waves are not searched: by the configuration, or as there is one already."""
    planner = Planner(config(signal={"enabled": suspected}), OWNER, 0.0)
    sizes = []
    for number in range(20):
        good = node(f"n{number}", condition("False"))
        planner.apply(Change(good.name, None, good), NOW)
    for number in range(20):
        bad = node(f"n{number}", condition("True"))
        planner.apply(Change(bad.name, None, bad), NOW + 1)
    for minute in range(600):
        now = NOW + 60.0 * minute
        for status in ("False", "True"):
            flapping = node("n0", condition(status))
            planner.apply(Change(flapping.name, None, flapping), now)
        planner.plan(now)
        assert bool(planner.suspects) is suspected
        sizes.append(objects_of(planner))
    assert sizes[-1] <= sizes[99]


def test_a_replica_that_does_not_lead_keeps_nothing_of_what_is_over() -> None:
    """It never plans. A detector flaps, with a counter in its reason, and machines come and go."""
    planner, sizes = Planner(config(), OWNER, 0.0), []
    for minute in range(600):
        now = NOW + 60.0 * minute
        for item in (condition("False"), condition("True", reason=f"{minute} errors")):
            flapping = node("n0", item)
            planner.apply(Change(flapping.name, None, flapping), now)
        machine = node(f"m{minute}", condition("True"), uid=f"m{minute}")
        planner.apply(Change(machine.name, None, machine), now)
        planner.apply(Change(machine.name, machine, None), now + 1.0)
        planner.take_changed()
        sizes.append(objects_of(planner))
    assert sizes[-1] <= sizes[99]


def test_nothing_is_kept_of_conditions_that_nobody_is_cordoned_for_any_more() -> None:
    waves, window = Waves(config(), {}), config().signal.window
    for number in range(1000):
        waves.check_cordon(f"Fault{number}", NOW)
    assert len(waves.cordons) == 0
    for number in range(1000):
        waves.note_cordon(f"Fault{number}", f"n{number}", NOW + number)
        waves.update(NOW + number)
    assert len(waves.cordons) <= window
    for number in range(config().signal.floor):
        assert waves.check_cordon("Fault", NOW + 999) is None
        waves.note_cordon("Fault", f"n{number}", NOW + 999)
        waves.note_cordon("Fault", f"n{number}", NOW + 999)  # counts once
    assert waves.check_cordon("Fault", NOW + 999) is not None
    waves.update(NOW + 999 + window)
    assert len(waves.cordons) == 0
    assert waves.check_cordon("Fault", NOW + 999 + window) is None


@pytest.mark.parametrize(
    "limits", [{"rate": {"count": 2, "window": "1h"}}, {"minInterval": "1h"}, {}]
)
def test_a_cordon_that_is_refused_again_and_again_holds_up_no_other_node(
    limits: dict[str, object],
) -> None:
    """A webhook refuses it: it counts neither for the rate nor for a wave."""
    everything = {"maxUnavailable": "100%", "minAllowed": 9, **limits}
    planner = Planner(config(limits=everything), OWNER, 0.0)
    refused, other = node("a", condition("True")), node("b", condition("False"))
    for item in (refused, other, *(node(f"n{i}", condition("False")) for i in range(9))):
        planner.apply(Change(item.name, None, item), NOW)
    now = NOW
    for _ in range(8):
        [action] = planner.plan(now).actions
        assert action.node == "a"
        planner.failed(action, now)
        now = planner.entries[action.uid].retry_at
    now -= 0.5
    bad = node("b", condition("True"))
    planner.apply(Change("b", other, bad), now)
    assert [action.node for action in planner.plan(now).actions] == ["b"]


def _cordoned_by(action: Action) -> Node:
    """The bad node as the action has made it."""
    assert action.state is not None
    return node(
        action.node,
        condition("True"),
        unschedulable=True,
        annotations={STATE_KEY: action.state.to_json()},
    )


def test_a_cordon_without_an_answer_that_was_made_counts_all_the_same() -> None:
    limits = {"maxUnavailable": "100%", "minAllowed": 9, "rate": {"count": 1, "window": "1h"}}
    planner = Planner(config(limits=limits), OWNER, 0.0)
    first, second = node("a", condition("True")), node("b", condition("True"))
    for item in (first, second, *(node(f"n{i}", condition("False")) for i in range(9))):
        planner.apply(Change(item.name, None, item), NOW)
    [action] = planner.plan(NOW).actions
    planner.apply(Change(action.node, first, _cordoned_by(action)), NOW)
    planner.failed(action, NOW)
    assert planner.plan(NOW + 1).actions == ()


def test_cordons_without_an_answer_that_were_made_count_for_a_wave() -> None:
    """Answers are lost while the server makes the changes."""
    everything = {"maxUnavailable": "100%", "minAllowed": 9}
    planner = Planner(config(limits=everything), OWNER, 0.0)
    now, window = NOW, config().signal.window
    nodes = [node(f"n{number}", condition("False")) for number in range(9)]
    for item in nodes:
        planner.apply(Change(item.name, None, item), now)
    for item in nodes:
        bad = node(item.name, condition("True", heartbeat=now))
        planner.apply(Change(item.name, item, bad), now)
        planner.plan(now, paused="for now")
        now += 2 * window  # no wave of onsets
    granted = planner.plan(now).actions
    assert len(granted) == config().signal.floor
    for action in granted:
        planner.apply(Change(action.node, None, _cordoned_by(action)), now)
        planner.failed(action, now)
    assert planner.plan(now + 1).actions == ()
    assert len(planner.plan(now + 1 + window).actions) == config().signal.floor


@pytest.mark.parametrize("pace", [{"rate": {"count": 1, "window": "1h"}}, {"minInterval": "1h"}])
def test_cordons_that_were_only_a_dry_run_slow_down_no_real_ones(pace: dict[str, object]) -> None:
    """As at the end of observeFirst; what was cordoned before still counts."""
    limits = {"maxUnavailable": "100%", "minAllowed": 9, **pace}
    enforce, observe = config(limits=limits), config(limits=limits, mode="dryRun")
    planner = Planner(observe, OWNER, 0.0)
    for item in (node("a", condition("True")), *(node(f"n{i}") for i in range(9))):
        planner.apply(Change(item.name, None, item), NOW)
    [action] = planner.plan(NOW).actions
    assert action.state is not None
    made = {"unschedulable": True, "annotations": {STATE_KEY: action.state.to_json()}}
    planner.settled(action, node("a", condition("True"), **made), NOW)
    assert planner.plan(NOW + 1).actions == ()
    planner.reconfigure(enforce, NOW + 60)
    [action] = planner.plan(NOW + 60).actions
    assert action.node == "a"
    planner.settled(action, node("a", condition("True"), **made), NOW + 60)
    bad = node("n1", condition("True"))
    planner.apply(Change("n1", node("n1"), bad), NOW + 61)
    assert planner.plan(NOW + 61).actions == ()
    planner.reconfigure(observe, NOW + 62)
    planner.plan(NOW + 62)
    planner.reconfigure(enforce, NOW + 63)
    assert planner.plan(NOW + 63).actions == ()
