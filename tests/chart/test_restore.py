"""What the remediator restores is what the chart renders, and what it may do is only for that."""

from __future__ import annotations

import json

import pytest

from selfheal_remediator.config import parse_config
from selfheal_remediator.restore.engine import Restoring
from selfheal_remediator.restore.live import live_of
from selfheal_remediator.restore.release import KINDS, OBJECTS, release_from_json
from tests.chart.rendering import CASES, FIXED, GROUPS, OPERATORS, Helm, Manifest, by_kind

ON = "remediator.config.restore.enabled=true"
#: Without workers and Ollama, or without a remediator.
_ALONE = (
    *("remediator-only", "worker-only", "namespaced"),
    *("cluster-api", "medik8s", "reboot", "webhook"),
)
#: Cases whose release has both a remediator and something to restore.
WITH_BOTH = [name for name in CASES if name not in _ALONE]


def _restored(manifests: list[Manifest]) -> list[Manifest]:
    """The workers' and Ollama's objects of the kinds that are restored."""
    return [
        manifest
        for manifest in manifests
        if manifest["kind"] in KINDS
        and manifest["metadata"]["labels"]["app.kubernetes.io/component"] in ("worker", "ollama")
    ]


def _kept(manifests: list[Manifest]) -> list[Manifest]:
    [kept] = [m for m in manifests if m["metadata"]["name"].endswith("-restore")]
    found: list[Manifest] = json.loads(kept["data"][OBJECTS])
    return found


def _key(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


@pytest.mark.parametrize("case", WITH_BOTH)
def test_the_config_map_holds_the_objects_as_they_are_rendered(helm: Helm, case: str) -> None:
    manifests = helm.case(case, ON, flags=GROUPS[OPERATORS])
    kept = _kept(manifests)
    assert {_key(one): one for one in kept} == {_key(one): one for one in _restored(manifests)}
    assert len(kept) == len(_restored(manifests))


def test_both_helms_keep_the_same(helm: Helm, helm3: Helm) -> None:
    new, old = (each.case("default", ON, flags=GROUPS[OPERATORS]) for each in (helm, helm3))
    assert new == old


def test_the_remediator_reads_what_is_rendered_and_finds_no_drift(helm: Helm) -> None:
    """As Helm makes it: with its annotations, and what the API server adds."""
    manifests = helm.case("ollama", ON, flags=GROUPS[OPERATORS])
    settings = by_kind(manifests, "ConfigMap")["selfheal-remediator"]["data"]["remediator.yaml"]
    restore = parse_config(settings, "rendered").restore
    made = by_kind(manifests, "ConfigMap")[restore.config_map]
    made["metadata"] |= {
        "uid": "u",
        "annotations": {"meta.helm.sh/release-name": "selfheal"},
    }
    release = release_from_json(made)
    assert release.off == ""
    live = {}
    for manifest in _restored(manifests):
        assert all(
            manifest["metadata"]["labels"][key] == value
            for key, value in (one.split("=") for one in release.selector.split(","))
        )
        manifest["metadata"] |= {"uid": "u"}
        one = live_of(KINDS[manifest["kind"]])(manifest)
        live[one.key] = one
    assert live.keys() == release.objects.keys()
    restoring = Restoring(10.0, False, release, live, set(KINDS))
    restoring.decide(0.0)
    assert restoring.missing() == 0
    assert restoring.drift(100.0) == {}


def test_the_role_has_the_rights_only_for_what_is_restored_and_only_then(helm: Helm) -> None:
    flags = GROUPS[OPERATORS]
    off, on = helm.case("ollama", flags=flags), helm.case("ollama", ON, flags=flags)
    assert not [m for m in off if m["metadata"]["name"].endswith("-restore")]
    before, after = (by_kind(one, "Role")["selfheal-remediator"]["rules"] for one in (off, on))
    added = [rule for rule in after if rule not in before]
    assert len(after) == len(before) + len(added)
    for rule in added:
        assert set(rule["verbs"]) <= {"get", "list", "watch", "create", "patch"}
        assert "patch" not in rule["verbs"] or rule["resourceNames"]
        assert "secrets" not in rule["resources"]
    patched = {
        (resource, name)
        for rule in added
        if "patch" in rule["verbs"]
        for resource in rule["resources"]
        for name in rule["resourceNames"]
    }
    assert patched == {(KINDS[kind].plural, name) for kind, name in map(_key, _kept(on))}
    cluster_before, cluster_after = (by_kind(one, "ClusterRole") for one in (off, on))
    assert cluster_before == cluster_after


def test_only_openshift_wants_the_right_to_delete(helm: Helm) -> None:
    """Its OwnerReferencesPermissionEnforcement asks for it when owners are changed."""
    for flags, wanted in (((), False), (("--api-versions=security.openshift.io/v1",), True)):
        manifests = helm.case("ollama", ON, flags=[*GROUPS[OPERATORS], *flags])
        rules = by_kind(manifests, "Role")["selfheal-remediator"]["rules"]
        named = [
            rule for rule in rules if "patch" in rule["verbs"] and "leases" not in rule["resources"]
        ]
        assert named
        assert all(("delete" in rule["verbs"]) == wanted for rule in named)
        assert not [rule for rule in rules if "delete" in rule["verbs"] and rule not in named]


def test_what_is_too_large_for_a_config_map_is_refused(helm: Helm) -> None:
    many = [{"name": f"V{n}", "value": "x" * 1000} for n in range(1100)]
    message = helm.refusal(*FIXED, ON, values={"worker": {"extraEnv": many}})
    assert "more than a ConfigMap can hold (1 MiB)" in message
    assert "remediator.config.restore.enabled=false" in message


def test_a_grace_period_that_would_miss_an_uninstall_is_refused(helm: Helm) -> None:
    message = helm.refusal(*FIXED, ON, "remediator.config.restore.gracePeriod=2s")
    assert "remediator.config.restore.gracePeriod is 2s" in message
    assert "5s at least" in message


def test_a_release_without_anything_to_restore_is_refused(helm: Helm) -> None:
    message = helm.refusal(*FIXED, ON, "worker.enabled=false")
    assert "neither workers nor Ollama" in message
