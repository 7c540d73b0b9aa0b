"""Pods may do as little as they can work with, and secrets are where secrets belong."""

from __future__ import annotations

import copy
import json

import pytest
import yaml

from selfheal_remediator.config import parse_config
from selfheal_remediator.run import permissions
from tests.chart.pod_security import violations
from tests.chart.rendering import (
    CASES,
    CHART,
    FIXED,
    Helm,
    Manifest,
    by_kind,
    containers_of,
    environment,
    pod_specs,
    workloads,
)

every_case = pytest.mark.parametrize("case", CASES)


@every_case
def test_pods_of_the_release_are_restricted(helm: Helm, case: str) -> None:
    for owner, spec in pod_specs(helm.case(case)):
        if owner["metadata"]["namespace"] == "selfheal":
            assert violations(spec) == [], owner["metadata"]["name"]


@every_case
def test_root_file_systems_are_read_only(helm: Helm, case: str) -> None:
    for _, spec in pod_specs(helm.case(case)):
        for container in containers_of(spec):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.update(hostNetwork=True), "hostNetwork is true"),
        (
            lambda s: s["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
            "volume x is a hostPath",
        ),
        (lambda s: s["securityContext"].pop("seccompProfile"), "worker: has no seccomp profile"),
        (lambda s: s["securityContext"].pop("runAsNonRoot"), "worker: may run as root"),
        (lambda s: s["securityContext"].update(runAsUser=0), "worker: runs as user 0"),
        (
            lambda s: s["containers"][0]["securityContext"].pop("capabilities"),
            "worker: does not drop ALL capabilities",
        ),
        (
            lambda s: s["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
            "worker: allows privilege escalation",
        ),
    ],
)
def test_the_check_finds_what_restricted_forbids(helm: Helm, change: object, said: str) -> None:
    deployment = by_kind(helm.case("default"), "Deployment")["selfheal-worker"]
    spec = copy.deepcopy(deployment["spec"]["template"]["spec"])
    assert callable(change)
    change(spec)
    assert violations(spec) == [said]


@every_case
def test_only_what_calls_the_api_server_has_a_token(helm: Helm, case: str) -> None:
    manifests = helm.case(case)
    with_token = {
        owner["metadata"]["name"].removeprefix("selfheal-")
        for owner, spec in pod_specs(manifests)
        if spec["automountServiceAccountToken"]
    }
    assert with_token <= {
        *("remediator", "node-problem-detector", "test-remediator", "remediator-uninstall"),
    }
    for account in by_kind(manifests, "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False


def test_only_the_detector_lives_in_the_privileged_namespace(helm: Helm) -> None:
    manifests = helm.case("default")
    namespace = by_kind(manifests, "Namespace")["selfheal-node-problem-detector"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    there = [
        w["kind"]
        for w in workloads(manifests)
        if w["metadata"]["namespace"] == namespace["metadata"]["name"]
    ]
    assert there == ["DaemonSet"]


def test_passwords_are_in_secrets_only(helm: Helm) -> None:
    password, monitor = "pass-word-1", "pass-word-2"
    manifests = helm.template(
        f"rabbitmq.auth.password={password}", f"rabbitmq.auth.monitorPassword={monitor}"
    )
    for manifest in manifests:
        text = json.dumps(manifest)
        assert (manifest["kind"] == "Secret") == (password in text or monitor in text)


def test_generated_passwords_are_one_in_all_places(helm: Helm) -> None:
    """Those that a Job makes: test_passwords.py."""
    data = by_kind(helm.template(*FIXED), "Secret")["selfheal-rabbitmq"]["stringData"]
    users = {u["name"]: u["password"] for u in json.loads(data["definitions.json"])["users"]}
    assert users == {
        data["username"]: data["password"],
        data["monitor-username"]: data["monitor-password"],
    }
    assert f"//{data['username']}:{data['password']}@" in data["amqp-uri"]
    assert f"//{data['monitor-username']}:{data['monitor-password']}@" in data["http-uri"]
    assert data["password"] != data["monitor-password"]


def test_no_password_can_be_known_from_a_rendering_without_a_cluster(helm: Helm) -> None:
    data = by_kind(helm.template(), "Secret")["selfheal-rabbitmq"]["stringData"]
    assert data.keys() == {"username", "monitor-username"}


def test_a_password_with_odd_characters_is_escaped_in_the_uris(helm: Helm) -> None:
    auth = {"password": "a/b c@d+%", "monitorPassword": "m"}
    manifests = helm.template(values={"rabbitmq": {"auth": auth}})
    data = by_kind(manifests, "Secret")["selfheal-rabbitmq"]["stringData"]
    assert "selfheal:a%2Fb%20c%40d%2B%25@" in data["amqp-uri"]


def test_the_monitoring_user_is_read_only(helm: Helm) -> None:
    data = by_kind(helm.case("default"), "Secret")["selfheal-rabbitmq"]["stringData"]
    definitions = json.loads(data["definitions.json"])
    rights = {
        p["user"]: (p["configure"], p["write"], p["read"]) for p in definitions["permissions"]
    }
    assert rights == {"selfheal": (".*", ".*", ".*"), "selfheal-monitor": ("^$", "^$", "^$")}
    assert not any("administrator" in user["tags"] for user in definitions["users"])


def test_the_remediator_may_delete_pods_only_when_configured(helm: Helm) -> None:
    assert ("pods", "delete") not in _verbs(helm.case("default"))
    manifests = helm.template("remediator.config.drain.onDeadline=delete")
    assert ("pods", "delete") in _verbs(manifests)


def test_the_remediator_may_patch_the_status_of_nodes_only_when_configured(helm: Helm) -> None:
    assert ("nodes/status", "patch") not in _verbs(helm.case("default"))
    manifests = helm.template("remediator.config.drain.lifecycleConditions=true")
    assert ("nodes/status", "patch") in _verbs(manifests)


REPAIRS = {("volumeattachments", "list"), ("jobs", "get"), ("jobs", "create")}


def test_the_remediator_may_repair_only_by_the_steps_in_use(helm: Helm) -> None:
    """Jobs in its own namespace only."""
    assert not REPAIRS & (_verbs(helm.case("default")) | _own(helm.case("default")))
    manifests = helm.case("reboot")
    assert REPAIRS & _verbs(manifests) == {("volumeattachments", "list")}
    assert REPAIRS & _own(manifests) == {("jobs", "get"), ("jobs", "create")}
    waits = {"condition": "KernelDeadlock", "action": "drain", "then": [{"wait": "1m"}]}
    values = {"remediator": {"config": {"rules": [waits]}}}
    assert not REPAIRS & _own(helm.template(values=values))


def _own(manifests: list[Manifest]) -> set[tuple[str, str]]:
    return _rights(by_kind(manifests, "Role")["selfheal-remediator"])


def test_the_example_is_a_configuration_of_the_program(helm: Helm) -> None:
    maps = by_kind(helm.case("reboot"), "ConfigMap")
    text = maps["selfheal-remediator"]["data"]["remediator.yaml"]
    config = parse_config(text, "the example")
    needed = permissions(config, "selfheal", "selfheal-remediator")
    rights = {(item.resource, item.verb) for item in needed}
    assert rights >= REPAIRS
    assert config.rules[0].then[0].kind == "job"


def test_no_role_uses_wildcards(helm: Helm) -> None:
    for case in CASES:
        for kind in ("ClusterRole", "Role"):
            for role in by_kind(helm.case(case), kind).values():
                assert "*" not in json.dumps(role["rules"])


#: What each resource of the remediator's roles is called in SECURITY.md.
WORDS = {
    "nodes": "patch nodes",
    "pods": "pods",
    "pods/eviction": "evict pods",
    "persistentvolumeclaims": "claims",
    "persistentvolumes": "volumes",
    "poddisruptionbudgets": "disruption budgets",
    "configmaps": "the ConfigMap `cluster-autoscaler-status`",
    "daemonsets": "DaemonSets",
    "namespaces": "Namespaces",
    "deployments": "owners of pods",
    "replicasets": "owners of pods",
    "statefulsets": "owners of pods",
    "healingpolicies": "HealingPolicies",
    "healingpolicies/status": "the status of HealingPolicies",
    "leases": "Leases",
    "machines": "machines",
    "events": "write Events",
}


def test_the_table_of_rights_names_all_that_the_remediator_may_touch(helm: Helm) -> None:
    text = (CHART.parent / "SECURITY.md").read_text(encoding="utf-8")
    [row] = [line for line in text.splitlines() if line.startswith("| remediator |")]
    manifests = helm.case("default")
    for kind in ("ClusterRole", "Role"):
        for resource, _ in _rights(by_kind(manifests, kind)["selfheal-remediator"]):
            assert WORDS[resource] in row.partition("**Not**")[0], resource


AGGREGATE = "remediator.rbac.aggregateClusterRoles=true"
AGGREGATED = "rbac.authorization.k8s.io/aggregate-to-"


def test_teams_write_policies_where_they_may_edit_and_read_them_where_they_may_view(
    helm: Helm,
) -> None:
    """Policies alone, and never their status."""
    given: dict[str, set[tuple[str, str]]] = {}
    for role in by_kind(helm.template(AGGREGATE), "ClusterRole").values():
        for label, value in role["metadata"]["labels"].items():
            if label.startswith(AGGREGATED):
                assert value == "true"
                given[label.removeprefix(AGGREGATED)] = _rights(role)
    read = {("healingpolicies", verb) for verb in ("get", "list", "watch")}
    writing = ("create", "update", "patch", "delete", "deletecollection")
    write = {("healingpolicies", verb) for verb in writing}
    assert given == {"view": read, "edit": read | write, "admin": read | write}


@pytest.mark.parametrize(
    "settings",
    [
        [],
        [AGGREGATE, "remediator.config.policies.enabled=false"],
        [AGGREGATE, "remediator.enabled=false"],
    ],
)
def test_nobody_is_given_policies_that_are_not_wanted(helm: Helm, settings: list[str]) -> None:
    roles = by_kind(helm.template(*settings), "ClusterRole")
    assert roles.keys() <= {"selfheal-remediator"}


def _verbs(manifests: list[Manifest]) -> set[tuple[str, str]]:
    role = by_kind(manifests, "ClusterRole")["selfheal-remediator"]
    return _rights(role)


def _rights(role: Manifest) -> set[tuple[str, str]]:
    return {(r, v) for rule in role["rules"] for r in rule["resources"] for v in rule["verbs"]}


def test_the_lease_role_names_the_lease_of_the_configuration(helm: Helm) -> None:
    manifests = helm.template(*FIXED, release="other")
    [role] = by_kind(manifests, "Role").values()
    named = [rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule]
    config = by_kind(manifests, "ConfigMap")["other-selfheal-remediator"]["data"]["remediator.yaml"]
    assert named == [["other-selfheal-remediator"]]
    assert yaml.safe_load(config)["lease"]["name"] == "other-selfheal-remediator"


def test_the_broker_does_not_log_in_guests(helm: Helm) -> None:
    assert "guest" in helm.refusal("rabbitmq.auth.username=guest")


def test_credentials_reach_the_worker_as_files(helm: Helm) -> None:
    worker = by_kind(helm.case("default"), "Deployment")["selfheal-worker"]["spec"]["template"]
    variables = environment(worker["spec"]["containers"][0])
    assert variables["AMQP_PASSWORD_FILE"] == "/etc/selfheal/broker/password"
    assert "AMQP_PASSWORD" not in variables
