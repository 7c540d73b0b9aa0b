"""What `plan` says beforehand is what the drain does: random small clusters, pod by pod.

The short form tries a few seeds; SELFHEAL_LONG=1 tries fifty.
"""

import json
import os
import random
from typing import Any

import pytest

from tests.control_plane.site import Site, until

SEEDS = range(50 if os.environ.get("SELFHEAL_LONG") == "1" else 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_plan_is_what_happens(site: Site, seed: int) -> None:
    dice = random.Random(seed)
    bad, _ = site.nodes(2)
    uids = _populate(site, bad, dice)
    config = site.config(
        rules=[{"condition": "TestFault", "for": "0s", "action": "drain"}],
        recovery={"holdDown": "1h"},
        drain={"headroom": False, "unmanagedPods": dice.choice(["report", "evict"])},
    )
    site.condition(bad, "True")
    found = site.command("plan", bad, "-o", "json", config=config)
    assert found.returncode == 0, found.stderr
    (plan,) = json.loads(found.stdout)["nodes"]
    assert plan["action"] == "drain"

    site.remediator(config)
    blocked = any(pod["fate"] == "evict" and pod["waits"] for pod in plan["pods"])
    if blocked:
        until(lambda: site.event_messages(bad, "DrainBlocked"), "blocked, as planned")
    else:
        until(lambda: site.phase(bad) == "drained", "drained, as planned")
    expected = {pod["pod"].partition("/")[2]: _goes(pod) for pod in plan["pods"]}
    until(
        lambda: (
            {name: _gone(site, bad, name, uid) for name, uid in uids.items()}
            == {name: expected[name] for name in uids}
        ),
        f"as planned: {expected}",
    )


def _goes(pod: dict[str, Any]) -> bool:
    return pod["fate"] == "evict" and not pod["waits"] and not pod["server"]


def _gone(site: Site, node: str, name: str, uid: str) -> bool:
    return not any(pod["metadata"]["uid"] == uid for pod in site.pods(node))


def _populate(site: Site, node: str, dice: random.Random) -> dict[str, str]:
    """Pods of all kinds on the node; returns their uids by name."""
    owner = site.create(
        f"/api/v1/namespaces/{site.name}/configmaps", {"metadata": {"name": "operator"}}
    )["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "operator", "uid": owner}
    owned = {"ownerReferences": [{**reference, "controller": True}]}
    kinds: dict[str, dict[str, Any]] = {
        "plain": {"metadata": owned},
        "bare": {},
        "kept": {"metadata": owned, "annotations": {"selfheal.dev/evict": "false"}},
        "scratch": {"metadata": owned, "volumes": [{"name": "s", "emptyDir": {}}]},
        "static": {"annotations": {"kubernetes.io/config.mirror": "x"}},
        "pinned": {"metadata": owned, "nodeSelector": {"kubernetes.io/hostname": node}},
        "guarded": {"metadata": {**owned, "labels": {"app": "guarded"}}},
        "twice": {"metadata": {**owned, "labels": {"app": "twice"}}},
        "open": {"metadata": {**owned, "labels": {"app": "open"}}},
    }
    uids = {}
    for number in range(dice.randint(3, 9)):
        kind = dice.choice(list(kinds))
        made = site.pod(f"{kind}-{number}", node, **json.loads(json.dumps(kinds[kind])))
        uids[made["metadata"]["name"]] = made["metadata"]["uid"]
    site.budget("guarded", "guarded", minAvailable=99)
    site.budget("open", "open", minAvailable=0)
    for name in ("twice-1", "twice-2"):
        site.budget(name, "twice", minAvailable=0)
    return uids
