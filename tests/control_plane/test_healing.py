"""A node goes bad, is cordoned, emptied, and uncordoned; and what must not happen meanwhile."""

from tests.control_plane.site import Site
from tests.support.waiting import until


def test_a_bad_node_is_drained_and_uncordoned(site: Site) -> None:
    site.nodes(3)
    site.deployment("web", 6)
    process = site.remediator()
    bad = site.busiest()
    site.condition(bad, "True")

    until("drained", lambda: site.phase(bad) == "drained")
    assert site.cordoned(bad)
    assert site.pods(bad) == []
    until("all replicas elsewhere", lambda: site.available("web") == 6)

    site.condition(bad, "False")
    until("uncordoned", lambda: not site.cordoned(bad))
    assert site.phase(bad) == "healed"
    until("the events", lambda: "Uncordoned" in site.events(bad))
    reasons = site.events(bad)
    assert {"Cordoned", "DrainStarted", "DrainSucceeded"} <= set(reasons)
    assert process.terminate() == 0


def test_unknown_or_missing_is_no_recovery(site: Site) -> None:
    bad, other = site.nodes(2)
    site.remediator(site.config(limits={"maxUnavailable": "100%"}))
    site.condition(bad, "True")
    until("drained", lambda: site.phase(bad) == "drained")
    site.condition(bad, "Unknown")
    # Another node goes through a whole turn meanwhile: time enough to do the wrong thing.
    site.condition(other, "True")
    until("the other is held", lambda: site.phase(other) == "drained")
    site.condition(other, "False")
    until("the other was uncordoned", lambda: not site.cordoned(other))
    assert site.cordoned(bad)
    site.condition(bad, "False")
    until("uncordoned after a real recovery", lambda: not site.cordoned(bad))


def test_a_foreign_cordon_is_left_alone_before_and_after(site: Site) -> None:
    theirs, other, _ = site.nodes(3)
    site.cordon(theirs)
    site.remediator(site.config(limits={"maxUnavailable": "100%"}))
    site.condition(theirs, "True")
    site.condition(other, "True")
    until("the other node was served", lambda: site.phase(other) == "drained")
    assert site.state(theirs) == {}
    site.condition(theirs, "False")
    site.condition(other, "False")
    until("the other node was uncordoned", lambda: not site.cordoned(other))
    assert site.cordoned(theirs)
    assert site.events(theirs) == []


def test_a_human_uncordon_cancels_this_occurrence_only(site: Site) -> None:
    bad, other = site.nodes(2)
    site.remediator(site.config(limits={"maxUnavailable": "100%"}))
    site.condition(bad, "True")
    until("drained", lambda: site.phase(bad) == "drained")
    site.uncordon(bad)
    until("cancelled", lambda: site.phase(bad) == "cancelled")
    site.condition(other, "True")
    until("the remediator had time to act again", lambda: site.phase(other) == "drained")
    assert not site.cordoned(bad)
    # It passes and comes back: a new occurrence.
    site.condition(bad, "False")
    until("the occurrence is over", lambda: site.phase(bad) == "healed")
    site.condition(bad, "True")
    until("held again", lambda: site.cordoned(bad))


def test_the_limit_applies_and_is_lifted(site: Site) -> None:
    first, second, third = site.nodes(3)
    site.remediator(site.config(limits={"maxUnavailable": 1, "minAllowed": 0}))
    site.condition(first, "True")
    until("the first is held", lambda: site.phase(first) == "drained")
    site.condition(second, "True")
    site.condition(third, "True")
    plan = site.command("plan", "-o", "json", config=site.config(limits={"maxUnavailable": 1}))
    assert '"maxUnavailable' in plan.stdout, plan.stdout + plan.stderr
    assert not site.cordoned(second)
    assert not site.cordoned(third)
    site.condition(first, "False")
    until("the next one takes the place", lambda: site.cordoned(second) or site.cordoned(third))
    assert sum(site.cordoned(node) for node in (first, second, third)) == 1


def test_pause_stops_and_resume_continues(site: Site) -> None:
    bad, other = site.nodes(2)
    process = site.remediator()
    done = site.command("pause", "--why", "maintenance of the rack")
    assert done.returncode == 0, done.stderr
    process.says("paused: maintenance of the rack")
    site.condition(bad, "True")
    found = site.command("status")
    assert "maintenance of the rack" in found.stdout
    assert not site.cordoned(bad)
    assert site.command("resume").returncode == 0
    until("it continues", lambda: site.phase(bad) == "drained")
    assert not site.cordoned(other)


def test_an_excluded_node_is_left_alone_and_include_ends_that(site: Site) -> None:
    bad, other, third = site.nodes(3)
    site.remediator()
    assert site.command("exclude", bad, "--why", "forensics").returncode == 0
    site.condition(bad, "True")
    site.condition(other, "True")
    until("another node is served", lambda: site.phase(other) == "drained")
    assert not site.cordoned(bad)
    assert not site.cordoned(third)
    freed = site.command("uncordon", other)
    assert "uncordoned" in freed.stdout, freed.stderr
    assert not site.cordoned(other)
    assert site.phase(other) == "cancelled"
    assert site.command("include", bad).returncode == 0
    until("after that it is served", lambda: site.phase(bad) == "drained")


def test_dry_run_changes_nothing_and_says_it_once(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 4)
    bad = site.busiest()
    before = site.get_node(bad)
    process = site.remediator(site.config(mode="dryRun"))
    pods = site.names(bad)
    site.condition(bad, "True")
    process.says("dry-run, would be: dry-run: ")
    after = site.get_node(bad)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert site.names(bad) == pods
    assert process.log.count("dry-run, would be: cordoned") == 1
    site.condition(bad, "False")
    process.says("dry-run, would be: uncordoned")
    assert site.events(bad) == []


def test_a_missing_permission_is_named(site: Site) -> None:
    site.patch(
        f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{site.name}-remediator",
        {"rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}]},
    )
    process = site.remediator(leading=False)
    assert process.process.wait() == 3
    assert "patch nodes" in process.log
    assert "create pods/eviction" in process.log


def test_a_latched_condition_needs_a_reboot(site: Site) -> None:
    bad, other = site.nodes(2)
    rules = [
        {"condition": "TestFault", "for": "300ms", "action": "drain", "latched": True},
        {"condition": "OtherFault", "for": "300ms", "action": "drain"},
    ]
    site.remediator(site.config(rules=rules, limits={"maxUnavailable": "100%"}))
    _boot(site, bad, "boot-1")
    site.condition(bad, "True")
    until("drained", lambda: site.phase(bad) == "drained")
    assert site.state(bad)["bootID"] == "boot-1"
    # The detector restarts: its conditions are False at once. No recovery.
    site.condition(bad, "False")
    site.condition(other, "True", kind="OtherFault")
    until("held", lambda: site.phase(other) == "drained")
    site.condition(other, "False", kind="OtherFault")
    until("a stabilization window of the same length has passed", lambda: not site.cordoned(other))
    assert site.cordoned(bad)
    _boot(site, bad, "boot-2")
    until("uncordoned after the reboot", lambda: not site.cordoned(bad))


def test_a_stale_heartbeat_is_not_believed(site: Site) -> None:
    bad, other = site.nodes(2)
    site.condition(bad, "True", heartbeat_age=3600, lastTransitionTime="2026-01-01T00:00:00Z")
    site.remediator(site.config(limits={"maxUnavailable": "100%"}))
    site.condition(other, "True")
    until("a live signal is acted upon", lambda: site.phase(other) == "drained")
    assert not site.cordoned(bad)
    # Its detector lives again and still says so.
    site.condition(bad, "True", lastTransitionTime="2026-01-01T00:00:00Z")
    until("believed now", lambda: site.cordoned(bad))


def test_a_node_recreated_under_its_name_starts_afresh(site: Site) -> None:
    bad = site.nodes(2)[0]
    site.remediator()
    site.condition(bad, "True")
    until("drained", lambda: site.phase(bad) == "drained")
    site.delete(f"/api/v1/nodes/{bad}")
    site.node("0")
    site.pod("fresh", bad, restartPolicy="Always")
    site.condition(bad, "True")
    until("the new node is judged by itself", lambda: site.cordoned(bad))


def _boot(site: Site, node: str, boot_id: str) -> None:
    body = {"status": {"nodeInfo": {"bootID": boot_id}}}
    site.patch(f"/api/v1/nodes/{node}/status", body)
