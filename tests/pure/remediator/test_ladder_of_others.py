"""A ladder of steps that other systems carry out, by the whole remediator."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.node.annotation import STEP_OBJECT_KEY
from tests.pure.remediator.running import BAD, NODES, node, running, until_later
from tests.pure.remediator.steps_world import StepsApi
from tests.support.loopback import Handler, LoopbackServer
from tests.support.samples import sample

API = "self-node-remediation.medik8s.io/v1alpha1"
PATH = f"/apis/{API}/namespaces/medik8s/selfnoderemediations/bad"


class Tickets(LoopbackServer):
    """Opens a ticket for each id."""

    def __init__(self) -> None:
        self.opened: dict[str, Any] = {}
        outer = self

        class Post(Handler):
            def do_POST(self) -> None:
                outer.opened[self.headers["webhook-id"]] = json.loads(self.body())
                self.reply({}, 201)

        super().__init__(Post)


@pytest.fixture
def api() -> Iterator[StepsApi]:
    made = StepsApi()
    made.serve(API, "SelfNodeRemediation", "selfnoderemediations")
    made.put("/api/v1/nodes/n1", None)
    made.put(BAD, node("bad", "True"))
    made.put(f"{NODES}/good", node("good", "False"))
    yield made
    made.close()


@pytest.fixture
def tickets() -> Iterator[Tickets]:
    made = Tickets()
    yield made
    made.close()


def config(url: str, secret: Path) -> Config:
    secret.write_text("whsec_" + base64.b64encode(24 * b"k").decode())
    template = {
        "apiVersion": API,
        "kind": "SelfNodeRemediation",
        "metadata": {"name": "{node}", "namespace": "medik8s"},
    }
    resource = {
        "template": template,
        "succeeded": {"condition": "Succeeded"},
        "cleanUp": True,
    }
    steps = [
        {"webhook": {"url": url, "secretFile": str(secret)}, "settle": "1s"},
        {"machine": {"mode": "delete"}},
        {"resource": resource, "settle": "1h"},
    ]
    rule = {"condition": "Fault", "for": 0, "action": "drain", "heartbeat": None, "then": steps}
    return Config.model_validate(
        {
            "rules": [rule],
            "recovery": {"stabilizationWindow": "5s"},
            "limits": {"minSchedulable": 0, "maxUnavailable": "100%"},
            "policies": {"enabled": False},
            "drain": {"headroom": False},
        }
    )


def test_a_ticket_is_opened_and_a_remediation_helps(
    api: StepsApi, tickets: Tickets, tmp_path: Path
) -> None:
    def repaired() -> bool:
        if PATH in api.objects and "status" not in api.objects[PATH]:
            api.change(PATH, status={"conditions": [{"type": "Succeeded", "status": "True"}]})
            with api.changing(BAD) as raw:
                raw["status"]["nodeInfo"]["bootID"] = "2"
                for item in raw["status"]["conditions"]:
                    item["status"] = "False" if item["type"] == "Fault" else item["status"]
        return not api.get(BAD)["spec"].get("unschedulable") and bool(api.made("DELETE"))

    with running(api, config(tickets.url, tmp_path / "secret")) as remediator:
        until_later(remediator, "it is repaired, and in service", repaired)
        registry = remediator.metrics.registry
        results = {
            kind: sample(registry, "selfheal_remediator_repair_steps_total", kind=kind, result=end)
            for kind, end in (
                ("webhook", "succeeded"),
                ("machine", "failed"),  # Cluster API is not installed
                ("resource", "succeeded"),
            )
        }
    assert results == {"webhook": 1, "machine": 1, "resource": 1}
    (ticket,) = tickets.opened.values()
    assert ticket["data"]["node"]["name"] == "bad"
    assert ticket["data"]["condition"] == "Fault"
    assert api.made("DELETE") == [PATH]
    assert STEP_OBJECT_KEY not in api.get(BAD)["metadata"]["annotations"]


def test_a_machine_step_whose_node_goes_has_succeeded(api: StepsApi) -> None:
    api.serve("cluster.x-k8s.io/v1beta2", "Machine", "machines")
    path = "/apis/cluster.x-k8s.io/v1beta2/namespaces/fleet/machines/m1"
    owner = {"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineSet", "name": "s"}
    meta = {"name": "m1", "namespace": "fleet", "creationTimestamp": "1970-01-01T00:00:01Z"}
    owners = [{**owner, "uid": "u", "controller": True}]
    api.put(path, {"metadata": {**meta, "ownerReferences": owners}, "status": {}})
    with api.changing(BAD) as raw:
        marks = {"cluster.x-k8s.io/machine": "m1", "cluster.x-k8s.io/cluster-namespace": "fleet"}
        raw["metadata"]["annotations"] |= marks
    rule = {"condition": "Fault", "for": 0, "action": "drain", "heartbeat": None}
    about = Config.model_validate(
        {
            "rules": [{**rule, "then": [{"machine": {"mode": "delete"}}]}],
            "limits": {"minSchedulable": 0, "maxUnavailable": "100%"},
            "policies": {"enabled": False},
            "drain": {"headroom": False},
        }
    )
    with running(api, about) as remediator:
        until_later(remediator, "it is deleted", lambda: api.made("DELETE"))
        api.put(BAD, None)
        name = "selfheal_remediator_repair_steps_total"
        registry = remediator.metrics.registry
        until_later(
            remediator,
            "the end is reported",
            lambda: sample(registry, name, kind="machine", result="succeeded") == 1,
        )
