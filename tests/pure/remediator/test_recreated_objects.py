"""What was known of an object says nothing of another one that has its name later."""

from __future__ import annotations

import pytest

from selfheal_remediator.config import PODS_HUNG, Config
from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.policy import policy_from_json
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.informer import Change
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.healing_world import NOW, around, policy_json, watched
from tests.pure.remediator.running import (
    NODES,
    PODS,
    POLICIES,
    node,
    running,
    until_later,
    web_pod,
    web_policy,
)


@pytest.mark.parametrize(("age", "since"), [(3600.0, NOW - 500), (20.0, NOW - 10)])
def test_a_note_about_a_pod_is_not_trusted_of_a_recreated_one(age: float, since: float) -> None:
    """As of a StatefulSet, whose next pod has the name of the one before."""
    note = {"name": "db-0", "cause": "NotReady", "since": time_text(NOW - 500)}
    raw = policy_json() | {"status": {"observedGeneration": 1, "pods": [note]}}
    healing = Healing(10.0)
    healing.adopt(policy_from_json(raw), NOW)
    pod = watched("db-0", created=NOW - age, ready=False, ready_changed=NOW - 10)
    healing.pod_changed("ns/web", Change("db-0", None, pod))
    healing.pods_known("ns/web")
    healing.evaluate(NOW, around())
    observation = healing.policy_states["ns/web"].observations[pod.uid]
    assert (observation.diagnosis.name, observation.since) == ("NotReady", since)


def test_a_finding_on_a_node_is_not_trusted_of_one_recreated_under_its_name() -> None:
    server = FakeApi(lambda *_: "")
    for name in ("bad", "good"):
        server.put(f"{NODES}/{name}", node(name, "False"))
        for app in ("web", "api"):
            ready = "False" if name == "bad" else "True"
            server.put(f"{PODS}/{app}-{name}", web_pod(app, name, ready))
    for app in ("web", "api"):
        server.put(f"{POLICIES}/{app}", web_policy(app))
    rules = [{"condition": PODS_HUNG, "for": 3600, "action": "drain"}]
    config = Config.model_validate({"rules": rules, "policies": {"evaluationInterval": "1s"}})
    with running(server, config) as made:
        until_later(made, "the node is at fault", lambda: "bad" in made.planner.signals)
        before = made.planner.signals["bad"], made.healer.findings["bad"].since
        recreated = node("bad", "False")
        recreated["metadata"]["uid"] = "another"
        server.put(f"{NODES}/bad", None)
        server.put(f"{NODES}/bad", recreated)

        def found_again() -> bool:
            finding = made.healer.findings.get("bad")
            return finding is not None and finding.since > before[1]

        until_later(made, "it is found again", found_again)

        def renewed() -> bool:
            found = made.planner.signals.get("bad")
            return found is not None and found.transition != before[0].transition

        until_later(made, "it is said again", renewed)
    server.close()
