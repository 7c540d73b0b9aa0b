"""What keeps the remediator from doing harm: headroom, peers, waves, itself, bad files."""

from functools import partial

import yaml

from tests.control_plane.machines import CRDS, machine_type
from tests.control_plane.site import Site, moment
from tests.support.waiting import until

BIG = {"containers": [{"name": "main", "image": "x", "resources": {"requests": {"cpu": "20"}}}]}


def test_what_fits_nowhere_else_is_not_drained(site: Site) -> None:
    bad = site.nodes(1)[0]
    site.deployment("big", 1, **BIG)
    other = site.node("small")
    site.patch(
        f"/api/v1/nodes/{other}/status",
        {"status": {"allocatable": {"cpu": "10"}, "capacity": {"cpu": "10"}}},
    )
    site.remediator(site.config(recovery={"stabilizationWindow": "1h"}))
    site.condition(bad, "True")
    until("it says that there is no room", lambda: site.event_messages(bad, "NoHeadroom"))
    assert site.cordoned(bad)
    assert site.phase(bad) == "cordoned"
    assert len(site.pods(bad)) == 1
    (message,) = site.event_messages(bad, "NoHeadroom")
    assert "20000m CPU" in message
    plan = site.command("plan", bad, config=site.config())
    assert "no headroom: 1 pods" in plan.stdout, plan.stdout + plan.stderr


def test_a_second_remediator_is_read_only_until_the_first_is_gone(site: Site) -> None:
    bad, _ = site.nodes(2)
    first = site.remediator(site.config(rules=[_rule("OtherFault")]))
    lease = {"name": "younger", "duration": "3s", "renewInterval": "500ms", "renewDeadline": "2s"}
    site.allow_lease("younger")
    second = site.remediator(site.config(lease=lease))
    second.says(f"the remediator {site.name}/remediator is older")
    assert site.metric(second, "read_only") == 1
    site.condition(bad, "True")
    site.condition(bad, "True", kind="OtherFault")
    until("the first one acts", lambda: site.phase(bad) == "drained")
    assert site.state(bad)["by"] == f"{site.name}/remediator"
    assert site.state(bad)["condition"] == "OtherFault"
    assert "cordoned:" not in second.log
    first.terminate()
    second.says("the other remediator is gone", patience=60)
    assert site.state(bad)["by"] == f"{site.name}/remediator"


def test_a_wave_is_the_detectors_fault_and_is_undone(site: Site) -> None:
    nodes = site.nodes(6)
    signal = {"floor": 2, "window": "20s"}
    limits = {"maxUnavailable": "100%"}
    process = site.remediator(
        site.config(signal=signal, limits=limits, rules=[_rule("TestFault", action="cordon")])
    )
    for node in nodes[:2]:
        site.condition(node, "True")
        until("the first ones are believed", partial(site.cordoned, node))
    for node in nodes[2:]:
        site.condition(node, "True")
    until("uncordoned", lambda: not any(site.cordoned(node) for node in nodes))
    until("it is said", lambda: site.event_messages(nodes[0], "DetectorSuspected"))
    until(
        "and counted",
        lambda: site.metric(process, 'signal_rejected_nodes{cause="suspected-detector"}') >= 4,
    )
    site.annotate_lease("selfheal.dev/trust", "TestFault")
    until("a human uncordons it", lambda: all(site.cordoned(node) for node in nodes))


def test_what_medik8s_and_cluster_api_are_working_on_is_left_alone(site: Site) -> None:
    leased, deleted, other = site.nodes(3)
    site.create("/api/v1/namespaces", {"metadata": {"name": "medik8s-leases"}})
    lease = {
        "holderIdentity": "node-maintenance",
        "leaseDurationSeconds": 3600,
        "renewTime": moment().replace("Z", ".000000Z"),
    }
    path = "/apis/coordination.k8s.io/v1/namespaces/medik8s-leases/leases"
    site.create(path, {"metadata": {"name": f"node-{leased}"}, "spec": lease})
    _machine_being_deleted(site, deleted)
    site.remediator(site.config(limits={"maxUnavailable": "100%"}))
    for node in (leased, deleted, other):
        site.condition(node, "True")
    until("the third is served", lambda: site.phase(other) == "drained")
    assert not site.cordoned(leased)
    assert not site.cordoned(deleted)
    site.delete(f"{path}/node-{leased}")
    until("the lease is uncordoned", lambda: site.cordoned(leased), seconds=90)


def _machine_being_deleted(site: Site, node: str) -> None:
    """A Machine as Cluster API has them, of a node that it annotated."""
    answer = site.api.send("POST", CRDS, body=machine_type())
    assert answer.ok or answer.status == 409, answer.failure()
    path = f"/apis/cluster.x-k8s.io/v1beta1/namespaces/{site.name}/machines"
    body = {
        "apiVersion": "cluster.x-k8s.io/v1beta1",
        "kind": "Machine",
        "metadata": {"name": "m", "finalizers": ["machine.cluster.x-k8s.io"]},
        "status": {"nodeRef": {"name": node}},
    }

    def served() -> bool:
        return site.api.send("POST", path, body=body).ok

    until("machines are served", served)
    site.delete(f"{path}/m")
    annotations = {"cluster.x-k8s.io/machine": "m"}
    site.patch(f"/api/v1/nodes/{node}", {"metadata": {"annotations": annotations}})


def test_its_own_pod_goes_last(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 2)
    site.deployment("self", 1)
    (own,) = site.pods(app="self")
    node = own["spec"]["nodeName"]
    site.budget("web-pdb", "web", maxUnavailable=0)
    web_here = site.pods(node, app="web")
    config = site.config(recovery={"stabilizationWindow": "1h"})
    site.remediator(
        config, POD_NAME=own["metadata"]["name"], POD_UID=own["metadata"]["uid"], NODE_NAME=node
    )
    site.condition(node, "True")
    if web_here:
        until("the others are blocked", lambda: site.event_messages(node, "DrainBlocked"))
        assert site.pods(node, app="self")
    site.change_budget("web-pdb", maxUnavailable=2)
    until("in the end it goes too", lambda: site.phase(node) == "drained")
    assert site.pods(node) == []


def test_a_changed_file_is_taken_up_and_a_bad_one_is_not(site: Site) -> None:
    bad, other = site.nodes(2)
    path = site.config(rules=[_rule("OtherFault")], limits={"maxUnavailable": "100%"})
    process = site.remediator(path)
    site.condition(bad, "True")
    good = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**good, "mode": "enforced"}))
    process.says("the new configuration is rejected")
    assert site.metric(process, "config_last_reload_successful") == 0
    site.condition(other, "True", kind="OtherFault")
    until("the old one works on", lambda: site.phase(other) == "drained")
    assert not site.cordoned(bad)
    path.write_text(yaml.safe_dump({**good, "rules": [_rule("TestFault")]}))
    until("the new one works", lambda: site.phase(bad) == "drained")


def test_an_unreadable_annotation_is_left_alone_and_reported(site: Site) -> None:
    bad, other = site.nodes(2)
    body = {"metadata": {"annotations": {"selfheal.dev/state": '{"v": 99}'}}}
    site.patch(f"/api/v1/nodes/{bad}", body)
    site.remediator(site.config(limits={"maxUnavailable": "100%"}))
    site.condition(bad, "True")
    site.condition(other, "True")
    until("another one is served", lambda: site.phase(other) == "drained")
    assert not site.cordoned(bad)
    assert site.state(bad) == {"v": 99}
    status = site.command("status").stdout
    assert f"unreadable: {bad} (schema version 99, this version reads 1)" in status


def test_a_node_that_repeats_itself_stays_until_a_human_uncordons_it(site: Site) -> None:
    bad = site.nodes(2)[0]
    site.remediator(site.config(recovery={"stabilizationWindow": "100ms", "maxFlaps": 2}))
    for _ in range(2):
        site.condition(bad, "True")
        until("held", lambda: site.phase(bad) == "drained")
        site.condition(bad, "False")
        if len(site.state(bad)["cordons"]) < 2:
            until("uncordoned the first time", lambda: not site.cordoned(bad))
    plan = site.command("plan", bad, config=site.config(recovery={"maxFlaps": 2}))
    assert "a human must uncordon" in plan.stdout, plan.stdout + plan.stderr
    assert site.cordoned(bad)
    assert site.command("uncordon", bad).returncode == 0
    assert not site.cordoned(bad)


def _rule(kind: str, action: str = "drain") -> dict[str, str]:
    return {"condition": kind, "for": "300ms", "action": action}
