"""Pods of a node that is lost: waited for, named, and let go only by what proves the node gone."""

import os
from typing import Any

import pytest
import yaml

from ci.cluster.kwok import node as kwok_node
from tests.control_plane.site import Site
from tests.control_plane.test_policies import CRD, CRDS, GROUP, events, make, status
from tests.support.waiting import until

LONG = os.environ.get("SELFHEAL_LONG") == "1"
pytestmark = pytest.mark.skipif(
    not LONG, reason="SELFHEAL_LONG=1: Kubernetes' own pod collector takes a minute"
)
OUT_OF_SERVICE = {
    "key": "node.kubernetes.io/out-of-service",
    "value": "nodeshutdown",
    "effect": "NoExecute",
}


@pytest.fixture
def site(site: Site) -> Site:
    """A stage on which HealingPolicies are known."""
    answer = site.api.send("POST", CRDS, body=yaml.safe_load(CRD.read_text()))
    assert answer.ok or answer.status == 409, answer.failure()
    until("the type is served", lambda: site.api.send("GET", f"{GROUP}/healingpolicies").ok)
    return site


def _lost(site: Site, suffix: str) -> str:
    """A node on which nobody answers, with a pod that is being deleted; returns its name."""
    name = f"{site.name}-{suffix}"
    body = kwok_node(name)
    body["metadata"]["annotations"] = {}  # KWOK does not manage it
    body["metadata"]["labels"] |= {"test": site.name}
    body["spec"] = {}
    site.create("/api/v1/nodes", body)
    spec: dict[str, Any] = {"nodeName": name, "containers": [{"name": "main", "image": "none"}]}
    spec |= {"terminationGracePeriodSeconds": 1}
    meta = {"name": suffix, "labels": {"app": "web"}}
    pods = f"/api/v1/namespaces/{site.name}/pods"
    site.create(pods, {"metadata": meta, "spec": spec})
    site.delete(f"{pods}/{suffix}")
    assert site.api.get(f"{pods}/{suffix}")["metadata"]["deletionTimestamp"]
    return name


def _there(site: Site, pod: str) -> bool:
    return site.api.send("GET", f"/api/v1/namespaces/{site.name}/pods/{pod}").ok


def _reported(site: Site) -> dict[str, str]:
    """Pods of the policy's status with what is said of them."""
    return {item["name"]: item.get("detail", "") for item in status(site).get("pods", ())}


def test_pods_of_a_lost_node_go_when_it_is_proved_gone_and_not_before(site: Site) -> None:
    """By the Node's deletion, or by a human's out-of-service taint. We force nothing."""
    site.nodes(1)
    deleted, marked, neither = (_lost(site, name) for name in ("deleted", "marked", "neither"))
    make(site, unhealthyWhen={"terminatingFor": "1s"})
    process = site.remediator(
        site.config(
            policies={"evaluationInterval": "1s"},
            rules=[{"condition": "TestFault", "for": "1h", "action": "cordon"}],
        )
    )
    until("all three are named", lambda: len(_reported(site)) == 3)
    assert all("it is not ready" in text for text in _reported(site).values()), _reported(site)
    until("and said", lambda: len(events(site, "PodStuck")) == 3)

    site.delete(f"/api/v1/nodes/{deleted}")
    until("it is known", lambda: "it is gone" in _reported(site).get("deleted", "it is gone"))
    site.patch(f"/api/v1/nodes/{marked}", {"spec": {"taints": [OUT_OF_SERVICE]}})
    until("Kubernetes lets the marked node's pod go", lambda: not _there(site, "marked"), 180)
    until("and the deleted node's", lambda: not _there(site, "deleted"), 180)
    until("the third is named as before", lambda: set(_reported(site)) == {"neither"})
    assert _there(site, "neither")
    assert not site.cordoned(neither)
    assert site.metric(process, 'api_requests_total{code="200",verb="DELETE"}') == 0
    assert site.metric(process, 'evictions_total{outcome="accepted"}') == 0
