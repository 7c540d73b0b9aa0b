"""Which nodes have the places of limits.maxRepairing, and that none keeps one for nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.config import Config
from selfheal_remediator.kube.objects import DRAIN_KEY, Taint
from selfheal_remediator.node import lifecycle
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.annotation import EXCLUDE_KEY, STATE_KEY, Phase, State, read_state
from selfheal_remediator.node.assessment import Attached
from tests.pure.remediator.builders import OWNER, condition, node
from tests.pure.remediator.small_cluster import NIGHTS, NOON, Cluster, config, group

JOB = {
    "job": {"template": {"spec": {"containers": [{"name": "c"}]}}},
    "settle": 0,
    "timeout": "10m",
}
FAULT = {"condition": "Fault", "for": 0, "action": "drain", "heartbeat": None}
RULE = {**FAULT, "then": [JOB] * 4}
MARK = Taint("karpenter.sh/disrupted", "", "NoSchedule")


def settings(*groups: dict[str, Any], **more: Any) -> Config:
    return config(*groups, rules=[RULE], recovery={"stabilizationWindow": "1h"}, **more)


class Repaired(Cluster):
    """Nodes whose ladders are to begin, and what ends their steps."""

    def __init__(self, *names: str, about: Config | None = None) -> None:
        super().__init__(about or settings())
        [rule] = self.planner.config.rules
        state = State(Phase.DRAINED, OWNER, "Fault", "True", action="drain", boot_id="boot-1")
        state = replace(state, rule=rule.mark, since=int(NOON) - 5, first_seen=int(NOON) - 90)
        bad = condition("True", transition=NOON, heartbeat=NOON)
        for name in (*names, "good", "better"):
            labels = {"pool": name.partition("-")[0]}
            ours = {"state": state, "unschedulable": True} if name in names else {}
            self.put(node(name, *([bad] if ours else []), labels=labels, **ours))
        self.planner.volumes({f"uid-{name}": Attached() for name in names})

    def runs(self) -> list[str]:
        """The nodes with a step under way."""
        found = {name: read_state(one) for name, one in self.nodes.items()}
        return [name for name, state in found.items() if state is not None and state.step_runs]

    def end_step(self, name: str) -> None:
        state = read_state(self.nodes[name])
        assert state is not None
        ended = lifecycle.step_ended(state, self.now, failed=True).to_json()
        self.annotate_with(name, STATE_KEY, ended)

    def annotate_with(self, name: str, key: str, text: str | None) -> None:
        known = {k: v for k, v in self.nodes[name].annotations.items() if k != key}
        annotations = known if text is None else {**known, key: text}
        self.put(replace(self.nodes[name], annotations=annotations))

    def taint(self, name: str, *taints: Taint) -> None:
        self.put(replace(self.nodes[name], taints=taints))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.turn()


@pytest.mark.parametrize("why", ["excluded", "marked", "drain"])
def test_a_node_that_nothing_continues_does_not_keep_its_place(why: str) -> None:
    cluster = Repaired("a", "b")
    cluster.turn()
    assert cluster.runs() == ["a"]
    match why:
        case "excluded":
            cluster.annotate_with("a", EXCLUDE_KEY, "by hand")
        case "marked":
            cluster.taint("a", MARK)
        case "drain":
            cluster.annotate_with("a", DRAIN_KEY, "a disk is replaced")
    cluster.turn()
    assert cluster.runs() == ["a"]  # its step may still do its work
    cluster.end_step("a")
    cluster.turn()
    assert cluster.runs() == ["b"]


def test_the_step_of_an_excluded_node_is_over_by_its_timeout() -> None:
    cluster = Repaired("a", "b")
    cluster.turn()
    cluster.annotate_with("a", EXCLUDE_KEY, "by hand")
    cluster.wait(599)
    assert cluster.runs() == ["a"]
    cluster.wait(2)
    assert cluster.runs() == ["a", "b"]


def test_a_node_that_waits_for_its_groups_window_does_not_keep_its_place() -> None:
    about = settings(group("a"), group("b", maintenanceWindows=NIGHTS))
    cluster = Repaired("b-1", "a-1", about=about)
    cluster.now = NOON - 9 * 3600
    cluster.turn()
    assert cluster.runs() == ["a-1"]
    cluster.annotate_with("a-1", EXCLUDE_KEY, "by hand")
    cluster.end_step("a-1")
    cluster.turn()
    assert cluster.runs() == ["b-1"]
    cluster.annotate_with("a-1", EXCLUDE_KEY, None)
    cluster.now = NOON
    cluster.end_step("b-1")
    cluster.turn()
    assert cluster.runs() == ["a-1"]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(("exclude", "include", "mark", "unmark", "end", "minutes")),
        st.sampled_from("abc"),
    ),
    max_size=30,
)


def happens(cluster: Repaired, event: str, name: str) -> None:
    runs = name in cluster.runs()
    match event:
        case "exclude":
            cluster.annotate_with(name, EXCLUDE_KEY, "by hand")
        case "include" if not runs:
            cluster.annotate_with(name, EXCLUDE_KEY, None)
        case "mark":
            cluster.taint(name, MARK)
        case "unmark":
            cluster.taint(name)
        case "end" if runs:
            cluster.end_step(name)
        case "minutes":
            cluster.now += 400


@given(EVENTS)
def test_whatever_comes_between_no_more_steps_run_and_all_ladders_end(
    events: list[tuple[str, str]],
) -> None:
    """But for those of excluded nodes, which nobody follows."""
    cluster = Repaired("a", "b", "c")
    for event, name in events:
        happens(cluster, event, name)
        before = set(cluster.runs())
        begun = [action for action in cluster.turn() if action.kind is Kind.REPAIR]
        followed = [n for n in cluster.runs() if EXCLUDE_KEY not in cluster.nodes[n].annotations]
        assert len(followed) <= 1
        assert not begun or not before & set(followed)
    for name in "abc":
        cluster.annotate_with(name, EXCLUDE_KEY, None)
        cluster.taint(name)
    for _ in range(40):
        cluster.turn()
        for name in cluster.runs():
            cluster.end_step(name)
    assert {cluster.phase(name) for name in "abc"} == {Phase.REPAIR_FAILED}
