"""One leader at a time; what a killed one left behind, the next one continues with."""

from tests.control_plane.site import Site
from tests.support.waiting import until


def test_a_killed_leader_is_followed_and_its_drain_ends(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 4)
    site.budget("web-pdb", "web", maxUnavailable=0)
    config = site.config(recovery={"stabilizationWindow": "2s"})
    first = site.remediator(config)
    second = site.remediator(config, leading=False)
    second.says("nodes known")
    bad = site.busiest()
    site.condition(bad, "True")
    until("the first one drains", lambda: site.event_messages(bad, "DrainBlocked"))
    assert "leading as" not in second.log
    first.kill()
    second.says("leading as")
    second.says(f"continuing the drain of {bad}")
    site.change_budget("web-pdb", maxUnavailable=4)
    until("the second one ends it", lambda: site.phase(bad) == "drained")
    site.condition(bad, "False")
    until("and uncordons the node", lambda: not site.cordoned(bad))


def test_a_leader_that_ends_lets_go_at_once(site: Site) -> None:
    site.nodes(1)
    config = site.config(
        lease={
            "duration": "60s",
            "renewInterval": "5s",
            "renewDeadline": "10s",
            "name": "remediator",
        }
    )
    first = site.remediator(config)
    second = site.remediator(config, leading=False)
    second.says("nodes known")
    assert first.terminate() == 0
    second.says("leading as", patience=40)  # before the Lease would end by itself


def test_the_running_for_outlives_the_process(site: Site) -> None:
    bad, _ = site.nodes(2)
    rules = [{"condition": "TestFault", "for": "9s", "action": "cordon"}]
    config = site.config(rules=rules)
    first = site.remediator(config)
    site.condition(bad, "True")
    until("the condition is noted", lambda: site.phase(bad) == "seen")
    seen = site.state(bad)["firstSeen"]
    first.kill()
    site.remediator(config)
    until("cordoned", lambda: site.cordoned(bad))
    assert site.state(bad)["firstSeen"] == seen


def test_an_api_server_restart_is_survived(site: Site, cluster) -> None:
    bad, other = site.nodes(2)
    process = site.remediator(site.config(limits={"maxUnavailable": "100%"}))
    site.condition(bad, "True")
    until("drained", lambda: site.phase(bad) == "drained")
    cluster.stop("kube-apiserver", kill=True)
    process.says("lost leadership")
    cluster.start("kube-apiserver")
    cluster.wait_api()
    site.condition(bad, "False")
    site.condition(other, "True")
    until("uncordoned", lambda: not site.cordoned(bad), seconds=60)
    until("continues", lambda: site.phase(other) == "drained", seconds=60)
