"""Other systems that say elsewhere that they are working on a node."""

from dataclasses import replace
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.claims_reader import ClaimsReader
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.lease import LeaseView
from selfheal_remediator.node.assessment import Scope
from selfheal_remediator.node.conditions import NodeHistory, observe
from selfheal_remediator.node.evaluate import assess
from selfheal_remediator.node.external_claims import leased, machines
from tests.pure.remediator.builders import (
    NOW,
    OWNER,
    condition,
    config,
    datetime_text,
    node,
)
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import running

LEASE = LeaseView(
    "node-n", "medik8s-leases", "u", "1", "node-maintenance", datetime_text(NOW), 0, 60.0, {}, NOW
)


@pytest.mark.parametrize(
    ("lease", "held"),
    [
        (LEASE, True),
        (replace(LEASE, holder=""), False),
        (replace(LEASE, renewed=datetime_text(NOW - 119)), True),  # another machine's clock
        (replace(LEASE, renewed=datetime_text(NOW - 121)), False),
        (replace(LEASE, renewed=""), True),
        (replace(LEASE, name="something-else"), False),
    ],
)
def test_a_maintenance_lease(lease: LeaseView, held: bool) -> None:
    expected = {"n": "medik8s: node-maintenance holds its maintenance lease"} if held else {}
    assert leased([lease], NOW) == expected


def _machine(**more: Any) -> dict[str, Any]:
    meta = {"name": "m", **more.pop("metadata", {})}
    return {"metadata": meta, "status": {"nodeRef": {"name": "n"}, **more}}


@pytest.mark.parametrize(
    ("machine", "what"),
    [
        (_machine(), ""),
        (_machine(metadata={"deletionTimestamp": "x"}), "deletes"),
        (
            _machine(metadata={"annotations": {"cluster.x-k8s.io/remediate-machine": ""}}),
            "remediates",
        ),
        (_machine(conditions=[{"type": "OwnerRemediated", "status": "False"}]), "remediates"),
        (_machine(conditions=[{"type": "OwnerRemediated", "status": "True"}]), ""),
        (_machine(conditions=[{"type": "Ready", "status": "False"}]), ""),
        ({"metadata": {"name": "m", "deletionTimestamp": "x"}, "status": {}}, ""),
    ],
)
def test_a_machine(machine: dict[str, Any], what: str) -> None:
    assert machines([machine]) == ({"n": f"Cluster API {what} its machine m"} if what else {})


def test_a_marked_node_is_left_alone() -> None:
    bad = node("n", condition("True"))
    about = config()
    history = observe(NodeHistory(), None, bad, about.rules, NOW)
    seen = assess(bad, history, Scope(about, OWNER, marks={"n": "somebody is working on it"}), NOW)
    assert (seen.standing, seen.why, seen.limited_action) == (
        "foreign-mark",
        "somebody is working on it",
        None,
    )
    assert (
        assess(bad, history, Scope(about, OWNER, marks={"other": "x"}), NOW).limited_action
        is not None
    )


def test_a_machine_that_cannot_be_read_now_still_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A list that fails once is no leave to drain what Cluster API deletes."""
    api = FakeApi(lambda verb, path: "")
    with running(api, Config.model_validate({"policies": {"enabled": False}})) as remediator:
        machine = {
            "metadata": {"name": "m", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"nodeRef": {"name": "n"}},
        }

        class Machines:
            @staticmethod
            def pages() -> Any:
                return iter([([machine], "1")])

        def unreadable() -> Any:
            raise ApiFailure(503, "ServiceUnavailable", "not now")

        client = remediator.parts.api
        reader = ClaimsReader(client, remediator.clock)
        monkeypatch.setattr(client, "machines", Machines)
        assert reader.machines() == {"n": "Cluster API deletes its machine m"}
        monkeypatch.setattr(client, "machines", unreadable)
        assert reader.machines() == {"n": "Cluster API deletes its machine m"}
        monkeypatch.setattr(client, "machines", lambda: None)
        assert reader.machines() == {}
    api.close()
