"""Groups in a cluster: no order of events passes a group's limits or those over all nodes."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfheal_remediator.config import Config
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import Phase
from selfheal_remediator.node.limits import budget
from tests.pure.remediator.builders import node
from tests.pure.remediator.small_cluster import NIGHTS, NOON, Cluster, config, group

OUT = {Phase.CORDONED, Phase.DRAINING, Phase.DRAINED}
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "maxUnavailable": st.integers(0, 3) | st.sampled_from(["20%", "50%"]),
        "minAllowed": st.integers(0, 1),
        "maxDraining": st.integers(0, 2),
        "minSchedulable": st.integers(0, 2),
    },
)
POOLS = ("a", "b", "none")
EVENTS = st.tuples(
    st.sampled_from(["bad", "good", "move"]), st.integers(0, 11), st.sampled_from(POOLS)
)


@example(  # two nodes change places in one turn: the group has never had one more
    overall={},
    of_a={},
    of_b={"minAllowed": 0, "maxUnavailable": "20%"},
    turns=[
        [("move", 4, "a"), ("move", 0, "b")],
        [("bad", 1, "a"), ("move", 0, "a"), ("move", 2, "b")],
    ],
)
@given(
    overall=LIMITS,
    of_a=LIMITS,
    of_b=LIMITS,
    turns=st.lists(st.lists(EVENTS, max_size=6), max_size=8),
)
def test_no_order_of_events_passes_a_limit(
    overall: dict[str, Any], of_a: dict[str, Any], of_b: dict[str, Any], turns: list[Any]
) -> None:
    about = config(group("a", limits=of_a), group("b", limits=of_b), limits=overall)
    cluster = Cluster(about)
    for number in range(12):
        cluster.put(node(f"n{number}", labels={"pool": POOLS[number % 3]}))
    largest = Counter(cluster.pools())
    for events in turns:
        for kind, number, pool in events:
            if kind == "move":
                cluster.move(f"n{number}", pool)
            else:
                cluster.fault(f"n{number}", "True" if kind == "bad" else "False")
            largest |= Counter(cluster.pools())
        cluster.now += 10
        began = {action.node: action for action in cluster.turn()}
        for name, action in began.items():
            _assert_within_limits(cluster, about, name, action, largest)


def _assert_within_limits(
    cluster: Cluster, about: Config, name: str, action: Action, largest: Counter[str]
) -> None:
    """What was begun left its group, and all nodes, within the limits. largest: population of
    each group within the last hour."""
    pool = cluster.nodes[name].labels["pool"]
    of_pool = about.group_named(pool)
    scopes = [(about.limits, None)] + ([(of_pool.limits, pool)] if of_pool else [])
    for limits, of in scopes:
        if action.kind is Kind.CORDON:
            population = cluster.pools()[of] if of else len(cluster.nodes)
            counted = largest[of] if of else population
            assert cluster.count(OUT, of) <= budget(limits, counted)
            free = population - cluster.count(OUT, of)
            assert free >= limits.keep_schedulable
        if cluster.phase(name) is Phase.DRAINING:
            assert cluster.count({Phase.DRAINING}, of) <= limits.max_draining


def test_a_group_at_its_limit_does_not_stop_another() -> None:
    cluster = Cluster(config(group("a", limits={"maxUnavailable": 1}), group("b")))
    for name, pool in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")):
        cluster.put(node(name, labels={"pool": pool}))
        cluster.fault(name, "True")
    cluster.turn()
    assert [name for name in cluster.nodes if cluster.phase(name) in OUT] == ["a1", "b1", "b2"]
    waits = "maxUnavailable: group a: 1 of 2 nodes cordoned, allowed 1"
    assert cluster.waits("a2") == waits


def test_a_node_that_cannot_be_read_counts_in_each_group() -> None:
    cluster = Cluster(config(group("a", limits={"maxUnavailable": 1})))
    cluster.put(node("a1", labels={"pool": "a"}))
    cluster.planner.leave_out(1)
    cluster.fault("a1", "True")
    assert cluster.turn() == []
    assert cluster.waits("a1").startswith("unavailable: group a: 0 nodes cordoned, 1 unavailable")


def test_a_node_that_moves_counts_in_its_new_group_and_is_uncordoned_there() -> None:
    cluster = Cluster(config(group("a"), group("b", limits={"maxUnavailable": 1})))
    for name, pool in (("m", "a"), ("b1", "b"), ("b2", "b")):
        cluster.put(node(name, labels={"pool": pool}))
    cluster.fault("m", "True")
    cluster.turn()
    cluster.move("m", "b")
    cluster.fault("b1", "True")
    cluster.turn()
    assert (cluster.phase("m"), cluster.phase("b1")) == (Phase.DRAINING, None)
    cluster.fault("m", "False")
    cluster.now += 1
    cluster.turn()
    assert not cluster.nodes["m"].unschedulable
    assert cluster.phase("b1") is Phase.DRAINING


def test_a_node_that_moves_to_a_group_without_its_rule_is_uncordoned() -> None:
    own = [{"condition": "Other", "for": 0, "action": "drain"}]
    cluster = Cluster(config(group("a"), group("b", rules=own)))
    cluster.put(node("m", labels={"pool": "a"}))
    cluster.fault("m", "True")
    cluster.turn()
    cluster.move("m", "b")
    cluster.now += 1
    cluster.turn()
    assert not cluster.nodes["m"].unschedulable


def test_a_pace_of_a_group_is_its_own() -> None:
    pace = {"rate": {"count": 1, "window": "10m"}}
    cluster = Cluster(config(group("a", limits=pace), group("b")))
    for name, pool in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")):
        cluster.put(node(name, labels={"pool": pool}))
        cluster.fault(name, "True")
    cluster.turn()
    assert [name for name in cluster.nodes if cluster.phase(name)] == ["a1", "b1", "b2"]
    assert cluster.planner.plan(cluster.now).wake == NOON + 600
    cluster.now += 600
    cluster.turn()
    assert cluster.phase("a2") is Phase.DRAINING


def test_a_group_that_observes_writes_down_what_it_sees() -> None:
    cluster = Cluster(config(group("a", mode="observe")))
    cluster.put(node("a1", labels={"pool": "a"}))
    cluster.fault("a1", "True")
    assert [action.reason for action in cluster.turn()] == ["ConditionSeen"]
    assert cluster.phase("a1") is Phase.NOTED


def test_a_drain_ends_when_its_group_only_observes_from_now_on() -> None:
    cluster = Cluster(config(group("a")))
    cluster.put(node("a1", labels={"pool": "a"}))
    cluster.fault("a1", "True")
    cluster.turn()
    cluster.planner.reconfigure(config(group("a", mode="observe")), cluster.now)
    assert [action.reason for action in cluster.turn()] == ["DrainInterrupted"]
    assert cluster.phase("a1") is Phase.CORDONED
    assert cluster.waits("a1") == "paused: group a only observes (mode: observe)"
    cluster.fault("a1", "False")
    cluster.now += 1
    cluster.turn()
    assert not cluster.nodes["a1"].unschedulable


def test_limits_that_change_hold_for_what_is_cordoned_already() -> None:
    cluster = Cluster(config(group("a")))
    for name in ("a1", "a2"):
        cluster.put(node(name, labels={"pool": "a"}))
    cluster.fault("a1", "True")
    cluster.turn()
    narrow = config(group("a", limits={"maxUnavailable": 1}), group("b"))
    cluster.planner.reconfigure(narrow, cluster.now)
    cluster.fault("a2", "True")
    cluster.turn()
    assert cluster.waits("a2").startswith("maxUnavailable: group a: 1 of 2 nodes cordoned")


@pytest.mark.parametrize(("cordon", "phase"), [("allow", Phase.CORDONED), ("wait", None)])
def test_outside_its_windows_a_group_drains_nothing(cordon: str, phase: Phase | None) -> None:
    windows = {"maintenanceWindows": NIGHTS, "outsideWindows": {"cordon": cordon}}
    cluster = Cluster(config(group("a", **windows)))
    cluster.put(node("a1", labels={"pool": "a"}))
    cluster.fault("a1", "True")
    cluster.turn()
    assert cluster.phase("a1") is phase
    until = "paused: no maintenance window of group a is open before 2027-01-04T22:00:00Z"
    assert cluster.waits("a1") == until
    wake = cluster.planner.plan(cluster.now).wake
    assert wake == NOON + 10 * 3600
    cluster.now = wake
    cluster.turn()
    assert cluster.phase("a1") is Phase.DRAINING


def test_no_window_is_waited_for_where_nothing_is_drained_in_any() -> None:
    limits = {"maxDraining": 0}
    cluster = Cluster(config(group("a", limits=limits, maintenanceWindows=NIGHTS)))
    cluster.put(node("a1", labels={"pool": "a"}))
    cluster.fault("a1", "True")
    cluster.turn()
    assert cluster.phase("a1") is Phase.CORDONED
    assert cluster.waits("a1") == "maxDraining: group a: 0 drains, allowed 0"


@pytest.mark.parametrize(
    ("started", "phase"), [("continue", Phase.DRAINING), ("pause", Phase.CORDONED)]
)
def test_a_drain_at_the_end_of_its_window(started: str, phase: Phase) -> None:
    windows = {"maintenanceWindows": NIGHTS, "outsideWindows": {"startedDrain": started}}
    cluster = Cluster(config(group("a", **windows)), NOON + 11 * 3600)
    cluster.put(node("a1", labels={"pool": "a"}))
    cluster.fault("a1", "True")
    cluster.turn()
    assert cluster.phase("a1") is Phase.DRAINING
    closes = NOON + 16 * 3600
    wake = cluster.planner.plan(cluster.now).wake
    assert (wake == closes) is (started == "pause")
    cluster.now = closes
    cluster.turn()
    assert cluster.phase("a1") is phase
    cluster.now = NOON + 34 * 3600
    cluster.turn()
    assert cluster.phase("a1") is Phase.DRAINING


def test_a_cordon_of_a_node_that_is_gone_counts_in_its_group() -> None:
    pace = {"rate": {"count": 1, "window": "10m"}}
    cluster = Cluster(config(group("a", limits=pace)))
    for name in ("a1", "a2"):
        cluster.put(node(name, labels={"pool": "a"}))
    cluster.fault("a1", "True")
    cluster.turn()
    cluster.remove("a1")
    cluster.fault("a2", "True")
    assert cluster.turn() == []
    assert cluster.waits("a2") == "rate: group a: 1 cordons within 600s"


def test_an_uncordon_does_not_wait_for_a_window() -> None:
    cluster = Cluster(config(group("a", maintenanceWindows=NIGHTS)))
    cluster.put(node("a1", labels={"pool": "a"}))
    cluster.fault("a1", "True")
    cluster.turn()
    cluster.fault("a1", "False")
    cluster.now += 1
    cluster.turn()
    assert not cluster.nodes["a1"].unschedulable


def test_the_nodes_that_a_group_had_before_do_not_count_for_its_new_ones() -> None:
    limits = {"maxUnavailable": "20%"}
    of_all = {**group("a", limits=limits), "nodeSelector": {}}
    cluster = Cluster(config(of_all))
    for number in range(20):
        cluster.put(node(f"n{number}", labels={"pool": "a" if number < 5 else "b"}))
    cluster.turn()
    cluster.now += 10
    cluster.planner.reconfigure(config(group("a", limits=limits)), cluster.now)
    cluster.turn()
    for number in range(5):
        cluster.fault(f"n{number}", "True")
    cluster.turn()
    assert cluster.count(OUT) == 1


def test_no_drain_begins_that_the_rules_of_the_new_group_do_not_call_for() -> None:
    """The node was cordoned by its former group's rule, and waited to be drained."""
    own = [{"condition": "Fault", "for": 0, "action": "cordon", "heartbeat": None}]
    cluster = Cluster(config(group("a", limits={"maxDraining": 0}), group("b", rules=own)))
    cluster.put(node("m", labels={"pool": "a"}))
    cluster.fault("m", "True")
    cluster.turn()
    assert cluster.phase("m") is Phase.CORDONED
    cluster.move("m", "b")
    cluster.now += 1
    cluster.turn()
    assert cluster.phase("m") is Phase.CORDONED


@pytest.mark.parametrize(
    ("window", "started", "warned"),
    [
        ({"start": "22:00", "end": "23:00"}, "pause", True),
        ({"start": "23:30", "end": "00:30"}, "pause", True),
        ({"start": "22:00", "duration": "61m"}, "pause", False),
        ({"start": "23:30", "end": "00:31"}, "pause", False),
        ({"start": "22:00", "end": "23:00"}, "continue", False),
    ],
)
def test_a_window_in_which_no_wait_for_completion_ends_is_warned_of(
    window: dict[str, Any], started: str, warned: bool
) -> None:
    about = {"maintenanceWindows": [window], "outsideWindows": {"startedDrain": started}}
    assert bool(config(group("a", **about)).warnings) is warned
    at_once = {"waitForCompletion": {"max": "0s"}}
    assert config(group("a", **about), drain=at_once).warnings == []


POOL_SETS = st.lists(st.sampled_from(POOLS), min_size=1, max_size=2, unique=True)
MIDDAYS = [{"start": "11:00", "end": "13:00"}]
GROUPS = st.lists(
    st.fixed_dictionaries(
        {
            "pools": POOL_SETS,
            "limits": LIMITS,
            "mode": st.sampled_from(["enforce", "enforce", "observe"]),
            "maintenanceWindows": st.sampled_from([[], NIGHTS, MIDDAYS]),
            "outsideWindows": st.fixed_dictionaries(
                {
                    "cordon": st.sampled_from(["allow", "wait"]),
                    "startedDrain": st.sampled_from(["continue", "pause"]),
                }
            ),
        }
    ),
    max_size=3,
)
TURNS = st.lists(
    st.tuples(st.lists(EVENTS, max_size=6), st.sampled_from([0, 0, 0.5, 1.5, 5, 10])), max_size=8
)


@given(groups=GROUPS, overall=LIMITS, turns=TURNS)
def test_no_group_passes_its_limits_mode_and_windows(
    groups: list[dict[str, Any]], overall: dict[str, Any], turns: list[Any]
) -> None:
    """Groups overlap: a node belongs to the first that selects it, and nodes move between them
    while they are cordoned or drained. Whoever recovers is uncordoned, whatever its group."""
    named = [{"name": f"g{number}", **one} for number, one in enumerate(groups)]
    cluster = Cluster(
        config(
            *({**_without_pools(one), "nodeSelector": _in_pools(one["pools"])} for one in named),
            limits=overall,
            recovery={"stabilizationWindow": 0, "maxFlaps": 99},
        )
    )
    good = set[str]()
    for number in range(12):
        cluster.put(node(f"n{number}", labels={"pool": POOLS[number % 3]}))
    checks = _Oracle(cluster, named)
    for events, hours in turns:
        for kind, number, pool in events:
            name = f"n{number}"
            if kind == "move":
                cluster.move(name, pool)
            else:
                cluster.fault(name, "True" if kind == "bad" else "False")
                (good.add if kind == "good" else good.discard)(name)
            checks.note()
        cluster.now += 10 + 3600 * hours
        checks.check(cluster.turn())
        assert not [name for name in good if cluster.nodes[name].unschedulable]


def _without_pools(one: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key != "pools"}


def _in_pools(pools: list[str]) -> dict[str, Any]:
    return {"matchExpressions": [{"key": "pool", "operator": "In", "values": pools}]}


class _Oracle:
    """What must hold of each group, by the pools of its nodes alone. groups: as configured, with
    their pools."""

    def __init__(self, cluster: Cluster, groups: list[dict[str, Any]]) -> None:
        self._cluster, self._groups = cluster, groups
        #: How many nodes each group had, since when.
        self._sizes: list[tuple[float, Counter[str]]] = []
        self.note()

    def group_of(self, name: str) -> dict[str, Any] | None:
        pool = self._cluster.nodes[name].labels["pool"]
        return next((one for one in self._groups if pool in one["pools"]), None)

    def members(self, group: str) -> list[str]:
        nodes = self._cluster.nodes
        return [name for name in nodes if (self.group_of(name) or {}).get("name") == group]

    def note(self) -> None:
        """The nodes of groups may have changed."""
        sizes = Counter({one["name"]: len(self.members(one["name"])) for one in self._groups})
        self._sizes.append((self._cluster.now, sizes))

    def largest(self, group: str) -> int:
        """The most nodes that it had within the last hour."""
        since = self._cluster.now - 3600
        before = [sizes for when, sizes in self._sizes if when <= since][-1:]
        return max(
            sizes[group]
            for sizes in (*before, *(sizes for when, sizes in self._sizes if when > since))
        )

    def check(self, actions: list[Action]) -> None:
        """What was begun just now was allowed."""
        for action in actions:
            group = self.group_of(action.node)
            drains = action.kind is Kind.DRAIN or self._cluster.phase(action.node) is Phase.DRAINING
            if action.kind in (Kind.CORDON, Kind.DRAIN):
                self._within("", len(self._cluster.nodes), action)
            if group is not None and action.kind in (Kind.CORDON, Kind.DRAIN):
                assert group["mode"] == "enforce"
                self._within(group["name"], self.largest(group["name"]), action)
                outside = not self.is_open(group)
                assert not (outside and drains)
                assert not (outside and group["outsideWindows"]["cordon"] == "wait")
        for group in self._groups:
            pauses = group["outsideWindows"]["startedDrain"] == "pause"
            if group["mode"] == "observe" or (pauses and not self.is_open(group)):
                assert not self._count(group["name"], {Phase.DRAINING})

    def _within(self, group: str, counted: int, action: Action) -> None:
        about = self._cluster.planner.config
        found = about.group_named(group)
        limits = found.limits if found is not None else about.limits
        if action.kind is Kind.CORDON:
            assert self._count(group, OUT) <= budget(limits, counted)
            size = len(self.members(group)) if group else len(self._cluster.nodes)
            assert size - self._count(group, OUT) >= limits.keep_schedulable
        if self._cluster.phase(action.node) is Phase.DRAINING:
            assert self._count(group, {Phase.DRAINING}) <= limits.max_draining

    def _count(self, group: str, phases: set[Phase]) -> int:
        names = self.members(group) if group else list(self._cluster.nodes)
        return sum(self._cluster.phase(name) in phases for name in names)

    def is_open(self, group: dict[str, Any]) -> bool:
        hour = self._cluster.now % 86400 / 3600
        match group["maintenanceWindows"]:
            case []:
                return True
            case [{"start": "22:00"}]:
                return hour >= 22 or hour < 4
        return 11 <= hour < 13
