"""A pod that cannot be read is on its draining node all the same: the node is not empty."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from selfheal_remediator.config import Drain
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.filters import Surroundings
from selfheal_remediator.drain.node_pods import node_pod_from_json
from tests.pure.remediator.api_objects import POD
from tests.pure.remediator.builders import NOW

UNREADABLE: tuple[tuple[str, Any], ...] = (
    ("spec", 5),
    ("spec", {**POD["spec"], "nodeName": 5}),
    ("spec", {**POD["spec"], "containers": "text"}),
    ("status", 5),
)


def _drain(node: str) -> NodeDrain:
    return NodeDrain(node, "u", NOW, NOW + 600, Surroundings(Drain()), synced=True)


@pytest.mark.parametrize(("field", "value"), UNREADABLE)
@pytest.mark.parametrize("readable_before", [False, True])
def test_an_unread_pod_stays_and_is_reported(
    readable_before: bool, field: str, value: object
) -> None:
    before = node_pod_from_json(copy.deepcopy(POD))
    unread = node_pod_from_json({**copy.deepcopy(POD), field: value})
    assert "cannot be read" in unread.keep_reason
    drain = _drain(before.node)
    if readable_before:
        drain.pod_changed(None, before)
    drain.pod_changed(before if readable_before else None, unread)
    ((stays, why),) = drain.staying
    assert (stays.uid, drain.evicted) == (before.uid, 0)
    assert "cannot be read" in why


def test_an_unread_pod_that_terminates_is_waited_for() -> None:
    raw = {**copy.deepcopy(POD), "spec": 5}
    raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    unread = node_pod_from_json(raw)
    drain = _drain("n")
    drain.pod_changed(None, unread)
    drain.begin_wave(unread.priority)
    assert not drain.step(NOW).done
    drain.pod_changed(unread, None)
    assert drain.step(NOW).done


def test_a_pod_of_another_node_is_not_here() -> None:
    pod = node_pod_from_json(copy.deepcopy(POD))
    drain = _drain(f"not-{pod.node}")
    drain.pod_changed(None, pod)
    assert not drain.staying
    assert not drain.evictions
