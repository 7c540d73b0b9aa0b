"""A drain on request: as a rule's, within the limits, until it is withdrawn or over."""

from dataclasses import replace
from typing import Any

import pytest

from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.node.annotation import EXCLUDE_KEY, Phase
from selfheal_remediator.node.drain_request import drain_request
from tests.pure.remediator.builders import node
from tests.pure.remediator.small_cluster import NIGHTS, NOON, Cluster, config, group


def cluster(count: int = 1, *groups: dict[str, Any], **more: Any) -> Cluster:
    made = Cluster(config(*groups, **more))
    for number in range(count):
        made.put(node(f"n{number}", labels={"pool": "a"}))
    return made


def test_a_request_drains_and_its_withdrawal_uncordons_at_once() -> None:
    made = cluster()
    made.annotate("n0", drain="new disk")
    actions = made.turn()
    assert made.phase("n0") is Phase.DRAINING
    assert actions[0].message == "cordoned: drain requested: new disk"
    made.annotate("n0", drain=None)
    (uncordon,) = made.turn()
    assert uncordon.message == "uncordoned: the requested drain is over"
    assert not made.nodes["n0"].unschedulable


def test_it_ends_by_time() -> None:
    made = cluster()
    made.annotate("n0", drain="new disk", drain_until="2027-01-04T14:00:00Z")
    made.turn()
    assert made.planner.plan(made.now).wake == NOON + 7200
    made.now += 7200
    made.turn()
    assert not made.nodes["n0"].unschedulable
    assert made.turn() == []


def test_requests_wait_for_the_limits() -> None:
    made = cluster(3, limits={"maxUnavailable": 2, "maxDraining": 1})
    for name in ("n0", "n1", "n2"):
        made.annotate(name, drain="update")
    made.turn()
    phases = sorted(str(made.phase(name)) for name in made.nodes)
    assert phases == ["None", "Phase.CORDONED", "Phase.DRAINING"]


def test_many_requests_at_once_are_no_fault_of_a_detector() -> None:
    made = cluster(20, signal={"floor": 1}, limits={"maxUnavailable": "100%", "maxDraining": 99})
    for name in made.nodes:
        made.annotate(name, drain="update")
    made.turn()
    assert made.count({Phase.DRAINING}) == 20


def test_a_request_waits_for_a_window_and_for_a_group_that_enforces() -> None:
    made = cluster(1, group("a", maintenanceWindows=NIGHTS))
    made.annotate("n0", drain="update")
    made.turn()
    assert made.phase("n0") is Phase.CORDONED
    made = cluster(1, group("a", mode="observe"))
    made.annotate("n0", drain="update")
    assert made.turn() == []
    assert made.waits("n0") == "paused: group a only observes (mode: observe)"


def test_a_node_that_is_also_bad_stays_until_both_are_over() -> None:
    made = cluster()
    made.annotate("n0", drain="update")
    made.turn()
    made.fault("n0", "True")
    made.annotate("n0", drain=None)
    made.now += 1
    made.turn()
    assert made.phase("n0") is Phase.DRAINING
    made.fault("n0", "False")
    made.now += 1
    made.turn()
    assert not made.nodes["n0"].unschedulable


def test_a_node_cordoned_by_a_rule_is_drained_and_kept_for_a_request() -> None:
    cordons = [{"condition": "Fault", "for": 0, "action": "cordon", "heartbeat": None}]
    made = cluster(rules=cordons)
    made.fault("n0", "True")
    made.turn()
    made.annotate("n0", drain="update")
    (drain,) = made.turn()
    assert drain.message == "draining for Fault; drain requested: update"
    made.fault("n0", "False")
    made.now += 1
    made.turn()
    assert made.phase("n0") is Phase.DRAINING
    made.annotate("n0", drain=None)
    made.turn()
    assert not made.nodes["n0"].unschedulable


def test_a_person_who_uncordons_ends_it_though_the_annotation_stays() -> None:
    made = cluster()
    made.annotate("n0", drain="update")
    made.turn()
    made.put(replace(made.nodes["n0"], unschedulable=False))
    made.turn()
    assert made.phase("n0") is Phase.CANCELLED
    made.now += 60
    made.turn()
    assert made.phase("n0") is Phase.CANCELLED
    made.annotate("n0", drain=None)
    made.turn()
    made.annotate("n0", drain="again")
    made.turn()
    assert made.phase("n0") is Phase.DRAINING


def test_requests_in_a_row_do_not_count_as_flapping() -> None:
    made = cluster(recovery={"maxFlaps": 2, "stabilizationWindow": 0})
    for _ in range(4):
        made.annotate("n0", drain="update")
        made.turn()
        assert made.phase("n0") is Phase.DRAINING
        made.annotate("n0", drain=None)
        made.turn()
        assert not made.nodes["n0"].unschedulable
        made.now += 60
    made.fault("n0", "True")
    made.turn()
    made.fault("n0", "False")
    made.now += 60
    made.turn()
    assert not made.nodes["n0"].unschedulable


def test_an_end_that_cannot_be_read_begins_nothing_and_ends_nothing() -> None:
    made = cluster()
    made.annotate("n0", drain="update", drain_until="tomorrow")
    assert made.turn() == []
    request = drain_request(made.nodes["n0"])
    assert request is not None
    assert "annotation selfheal.dev/drain-until is 'tomorrow', not a time" in request.text
    made.annotate("n0", drain_until=None)
    made.turn()
    made.annotate("n0", drain_until="tomorrow")
    made.turn()
    assert made.phase("n0") is Phase.DRAINING


@pytest.mark.parametrize(
    ("change", "standing"),
    [
        ({"annotations": {EXCLUDE_KEY: "mine"}}, "excluded"),
        ({"unschedulable": True}, "foreign-cordon"),
        ({"labels": {"selfheal.dev/exclude": "true"}}, "not-selected"),
    ],
)
def test_a_node_that_is_left_alone_is_not_drained(change: dict[str, Any], standing: str) -> None:
    made = cluster()
    made.put(replace(made.nodes["n0"], **change))
    made.annotate("n0", drain="update")
    assert made.turn() == []
    entry = made.planner.entry_named("n0")
    assert entry is not None
    assert entry.assessment.standing == standing


def test_who_wrote_the_annotation_is_known() -> None:
    annotations: dict[str, Any] = {"f:metadata": {"f:annotations": {"f:selfheal.dev/drain": {}}}}
    meta = {
        "name": "n",
        "uid": "u",
        "annotations": {"selfheal.dev/drain": "update"},
        "managedFields": [{"manager": "kubectl-annotate", "fieldsV1": annotations}],
    }
    request = drain_request(node_from_json({"metadata": meta}))
    assert request is not None
    assert request.text == "drain requested: update, by kubectl-annotate"
