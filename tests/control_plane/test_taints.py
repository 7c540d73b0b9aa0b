"""What others see of a drain on the node: a taint beside the cordon or instead of it, with the real
scheduler and node controller, and the conditions of its status."""

from typing import Any

import pytest

from selfheal_remediator.kube.objects import Json
from tests.control_plane.site import Site
from tests.support.waiting import until

KEY = "test.selfheal.dev/bad"
OURS: Json = {"key": KEY, "effect": "NoSchedule"}
THEIRS: Json = {"key": "pool", "value": "gpu", "effect": "PreferNoSchedule"}
TOLERATION = {"key": KEY, "operator": "Exists"}


def taints(site: Site, node: str) -> list[Json]:
    """But for those that Kubernetes sets by itself."""
    found: list[Json] = site.get_node(node)["spec"].get("taints", [])
    return [one for one in found if not one["key"].startswith("node.kubernetes.io/")]


def set_taints(site: Site, node: str, wanted: list[Json]) -> None:
    """As a person does."""
    site.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": wanted}})


def config(site: Site, *, cordon: bool, **more: Any) -> Any:
    return site.config(taint={"key": KEY, "cordon": cordon}, **more)


def test_by_a_taint_alone_a_node_is_emptied_of_all_but_its_guests(site: Site) -> None:
    bad, _ = site.nodes(2)
    set_taints(site, bad, [THEIRS])
    site.deployment("web", 4)
    site.deployment("guest", 2, tolerations=[TOLERATION])
    site.pod("resident", bad, tolerations=[TOLERATION], metadata={"labels": {"app": "resident"}})
    process = site.remediator(config(site, cordon=False))
    site.condition(bad, "True")
    until("drained", lambda: site.phase(bad) == "drained")
    assert taints(site, bad) == [THEIRS, OURS]
    assert not site.cordoned(bad)
    assert "resident" in site.names(bad)
    assert not [pod for pod in site.pods(bad) if pod["metadata"]["labels"]["app"] == "web"]
    until("all replicas elsewhere", lambda: site.available("web") == 4)
    # The scheduler puts a guest there, and nobody evicts it.
    named = {"nodeSelector": {"kubernetes.io/hostname": bad}, "tolerations": [TOLERATION]}
    site.deployment("visitor", 1, **named)
    site.condition(bad, "False")
    until("uncordoned", lambda: site.phase(bad) == "healed")
    assert taints(site, bad) == [THEIRS]
    assert site.available("visitor") == 1
    assert {"resident"} < site.names(bad)
    assert process.terminate() == 0


@pytest.mark.parametrize("cordon", [True, False])
def test_who_ends_it_by_hand_cancels_it_and_no_taint_is_left(site: Site, cordon: bool) -> None:
    bad, other = site.nodes(2)
    set_taints(site, bad, [THEIRS])
    limits = {"maxUnavailable": "100%"}
    site.remediator(config(site, cordon=cordon, limits=limits))
    site.condition(bad, "True")
    until("drained", lambda: site.phase(bad) == "drained")
    assert OURS in taints(site, bad)
    if cordon:
        site.uncordon(bad)
    else:
        set_taints(site, bad, [THEIRS])
    until("cancelled", lambda: site.phase(bad) == "cancelled")
    site.condition(other, "True")
    until("the remediator had time to act again", lambda: site.phase(other) == "drained")
    assert taints(site, bad) == [THEIRS]
    assert not site.cordoned(bad)
    freed = site.command("uncordon", other)
    assert "uncordoned" in freed.stdout, freed.stderr
    assert taints(site, other) == []
    assert not site.cordoned(other)


def allow_status(site: Site) -> None:
    """As the chart's ClusterRole does with `drain.lifecycleConditions`."""
    path = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{site.name}-remediator"
    right = {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]}
    site.patch(path, {"rules": [*site.api.get(path)["rules"], right]})


def drain_conditions(site: Site, node: str) -> dict[str, str]:
    found = site.get_node(node)["status"]["conditions"]
    return {one["type"]: one["status"] for one in found if "Drain" in one["type"]}


def test_the_status_of_a_node_says_that_it_is_drained(site: Site) -> None:
    bad, other = site.nodes(2)
    allow_status(site)
    site.deployment("web", 2)
    site.budget("web", "web", maxUnavailable=0)
    bad = site.busiest()
    other = next(node for node in site.all_nodes if node != bad)
    site.condition(other, "True", "Drained", reason="AdminRequested")
    process = site.remediator(site.config(drain={"lifecycleConditions": True}))
    site.condition(bad, "True")
    begun = {"DrainInProgress": "True", "Drained": "False"}
    until("it is being drained", lambda: drain_conditions(site, bad) == begun)
    process.kill()
    site.change_budget("web", maxUnavailable="100%")
    site.remediator(site.config(drain={"lifecycleConditions": True}), POD_NAME="another")
    ended = {"DrainInProgress": "False", "Drained": "True"}
    until("it is drained", lambda: drain_conditions(site, bad) == ended)
    assert site.phase(bad) == "drained"
    site.condition(bad, "False")
    until("it is uncordoned", lambda: site.phase(bad) == "healed")
    until("nothing is left", lambda: drain_conditions(site, bad) == {})
    kinds = {one["type"] for one in site.get_node(bad)["status"]["conditions"]}
    assert {"Ready", "TestFault"} <= kinds
    assert drain_conditions(site, other) == {"Drained": "True"}
