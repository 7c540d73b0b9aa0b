"""What each account of a release may do, and where its secrets are, on a real API server."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from ci.cluster import ClusterError
from tests.control_plane.chart.conftest import BY_HAND, CHART, Site
from tests.support.waiting import until

pytestmark = pytest.mark.control_plane

DETECTOR = "selfheal-node-problem-detector"
#: Resource (with its group, and a name where it is limited to one) → verbs.
Rights = dict[str, str]

NODES_AND_PODS: Rights = {
    "nodes": "get list patch watch",
    "pods": "get list watch",
    "pods/eviction": "create",
    "persistentvolumeclaims": "get",
    "persistentvolumes": "get",
    "poddisruptionbudgets.policy": "get list watch",
    "namespaces": "list",
    "daemonsets.apps": "list",
    "leases.coordination.k8s.io": "list",
    "configmaps cluster-autoscaler-status": "get",
    "machines.cluster.x-k8s.io": "list",
    "events": "create patch",
    "events.events.k8s.io": "create patch",
}
POLICIES: Rights = {
    "healingpolicies.selfheal.dev": "get list watch",
    "healingpolicies.selfheal.dev/status": "patch",
    "daemonsets.apps": "get list",
    "deployments.apps": "get",
    "replicasets.apps": "get",
    "statefulsets.apps": "get",
}
OWN_LEASE: Rights = {
    "leases.coordination.k8s.io": "create list",
    "leases.coordination.k8s.io selfheal-remediator": "get list patch watch",
}
#: Beside OWN_LEASE, in the release's namespace, with remediator.config.restore.enabled.
RESTORE: Rights = {
    "services": "create list watch",
    "serviceaccounts": "create list watch",
    "horizontalpodautoscalers.autoscaling": "create list watch",
    "scaledobjects.keda.sh": "create list watch",
    "triggerauthentications.keda.sh": "create list watch",
    "deployments.apps": "create get list watch",
    "poddisruptionbudgets.policy": "create get list watch",
    "configmaps selfheal-restore": "get list watch",
    "serviceaccounts selfheal-worker": "patch",
    "deployments.apps selfheal-worker": "patch",
    "poddisruptionbudgets.policy selfheal-worker": "patch",
    "scaledobjects.keda.sh selfheal-worker": "patch",
    "triggerauthentications.keda.sh selfheal-worker": "patch",
    "serviceaccounts selfheal-ollama": "patch",
    "services selfheal-ollama": "patch",
    "deployments.apps selfheal-ollama": "patch",
    "poddisruptionbudgets.policy selfheal-ollama": "patch",
    "horizontalpodautoscalers.autoscaling selfheal-ollama": "patch",
}
#: The API server's own role `system:node-problem-detector`.
DETECTOR_RIGHTS: Rights = {
    "nodes": "get",
    "nodes/status": "patch",
    "events": "create patch update",
    "events.events.k8s.io": "create patch update",
}


def rights(site: Site, account: str, namespace: str) -> Rights:
    """What `kubectl auth can-i --list` says of namespace:name beyond what everybody may."""
    nobody = _listed(site, f"{site.namespace}:default", namespace)
    own = _listed(site, account, namespace)
    assert nobody.items() <= own.items()
    return {what: verbs for what, verbs in own.items() if nobody.get(what) != verbs}


_ROW = re.compile(r"^(\S*)\s+\[(.*?)\]\s+\[(.*?)\]\s+\[(.*?)\]$")


def _listed(site: Site, account: str, namespace: str) -> Rights:
    said = site.cluster.kubectl(
        *("auth", "can-i", "--list", "-n", namespace, f"--as=system:serviceaccount:{account}")
    )
    found: dict[str, set[str]] = {}
    for line in said.splitlines()[1:]:
        row = _ROW.match(line.rstrip())
        assert row, line
        resource, urls, names, verbs = row.groups()
        for name in names.split() or [""]:
            what = f"{resource or urls} {name}".strip()
            found.setdefault(what, set()).update(verbs.split())
    return {what: " ".join(sorted(verbs)) for what, verbs in found.items()}


@pytest.fixture
def installed(site: Site) -> Site:
    """A release with everything that has an account; nobody waits for its pods."""
    _install(site)
    return site


def _install(site: Site, *settings: str) -> None:
    site.helm(
        *("install", "selfheal", str(CHART), "-n", site.namespace, BY_HAND),
        *("-f", str(CHART / "ci/ollama-values.yaml")),
        *(f"--set={one}" for one in settings),
    )


def test_the_accounts_may_do_what_is_written_here_and_nothing_else(installed: Site) -> None:
    here, elsewhere = installed.namespace, "kube-system"
    of_pods = {"worker", "rabbitmq", "ollama", "remediator"}
    accounts = {a["metadata"]["name"] for a in installed.get("serviceaccounts")} - {"default"}
    assert accounts == {f"selfheal-{name}" for name in of_pods}

    everywhere = NODES_AND_PODS | POLICIES
    remediator = f"{here}:selfheal-remediator"
    assert rights(installed, remediator, here) == everywhere | OWN_LEASE
    assert rights(installed, remediator, elsewhere) == everywhere
    for name in sorted(of_pods - {"remediator"}):
        for namespace in (here, elsewhere):
            assert rights(installed, f"{here}:selfheal-{name}", namespace) == {}
    for namespace in (here, elsewhere, DETECTOR):
        assert rights(installed, f"{DETECTOR}:{DETECTOR}", namespace) == DETECTOR_RIGHTS


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (
            "remediator.config.drain.onDeadline=delete",
            NODES_AND_PODS | POLICIES | {"pods": "delete get list watch"},
        ),
        (
            "remediator.config.drain.surge=true",
            NODES_AND_PODS | POLICIES | {"deployments.apps": "get patch"},
        ),
        ("remediator.config.policies.enabled=false", NODES_AND_PODS),
        ("remediator.config.mode=dryRun", NODES_AND_PODS | POLICIES),
    ],
)
def test_a_value_gives_and_takes_what_belongs_to_it(
    site: Site, setting: str, expected: Rights
) -> None:
    # The policies of the release are refused without somebody who manages them.
    _install(site, setting, "healingPolicies.enabled=false")
    assert rights(site, f"{site.namespace}:selfheal-remediator", "kube-system") == expected


def test_restoring_gives_rights_in_the_release_s_namespace_only(site: Site) -> None:
    _install(site, "remediator.config.restore.enabled=true", "ollama.autoscaling.enabled=true")
    account, everywhere = f"{site.namespace}:selfheal-remediator", NODES_AND_PODS | POLICIES
    assert rights(site, account, site.namespace) == everywhere | OWN_LEASE | RESTORE
    assert rights(site, account, "kube-system") == everywhere


READ_POLICIES = {"healingpolicies.selfheal.dev": "get list watch"}
WRITE_POLICIES = {
    "healingpolicies.selfheal.dev": "create delete deletecollection get list patch update watch"
}


@pytest.mark.parametrize(
    ("role", "expected"),
    [("view", READ_POLICIES), ("edit", WRITE_POLICIES), ("admin", WRITE_POLICIES)],
)
def test_teams_write_policies_in_their_namespace(site: Site, role: str, expected: Rights) -> None:
    """By the roles that they have there already; the status is the remediator's."""
    _install(site, "remediator.rbac.aggregateClusterRoles=true")
    here, account = site.namespace, f"{site.namespace}:{role}"
    site.cluster.kubectl(
        *("create", "rolebinding", role, "-n", here),
        *(f"--clusterrole={role}", f"--serviceaccount={account}"),
    )

    def of_policies(namespace: str) -> Rights:
        found = rights(site, account, namespace)
        return {what: verbs for what, verbs in found.items() if "selfheal.dev" in what}

    # The API server's controllers add them to the role a moment after the install.
    until(f"rights of {role} on policies", lambda: of_policies(here) == expected)
    assert of_policies("kube-system") == {}


def _privileged(pod: dict[str, Any]) -> None:
    pod["containers"][0]["securityContext"] = {"privileged": True}


def _host_path(pod: dict[str, Any]) -> None:
    pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}})


def _as_root(pod: dict[str, Any]) -> None:
    pod["securityContext"] = {"runAsUser": 0, "runAsNonRoot": False}


@pytest.mark.parametrize("change", [_privileged, _host_path, _as_root])
def test_pod_security_takes_the_worker_s_pod_and_refuses_one_with_more(
    installed: Site, change: Any
) -> None:
    [worker] = [d for d in installed.get("deploy") if d["metadata"]["name"] == "selfheal-worker"]
    template = worker["spec"]["template"]
    create = ("create", "--dry-run=server", "-f", "-", "-n", installed.namespace)

    def pod() -> str:
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "intruder", "labels": template["metadata"]["labels"]},
                "spec": template["spec"],
            }
        )

    installed.cluster.kubectl(*create, input=pod())
    change(template["spec"])
    with pytest.raises(ClusterError, match='violates PodSecurity "restricted'):
        installed.cluster.kubectl(*create, input=pod())


def test_a_generated_password_is_in_the_release_s_secret_and_nowhere_else(installed: Site) -> None:
    [secret] = [s for s in installed.get("secret") if s["metadata"]["name"] == "selfheal-rabbitmq"]
    passwords = {
        base64.b64decode(secret["data"][key]).decode() for key in ("password", "monitor-password")
    }
    forms = {form for word in passwords for form in _forms(word)}
    assert all(len(word) >= 32 for word in passwords)

    def told(*what: str) -> str:
        return installed.helm("get", *what, "selfheal", "-n", installed.namespace)

    for shown in (told("values", "--all"), told("notes"), told("hooks")):
        assert not _cordons(shown, forms)
    parts = told("manifest").split("\n---\n")
    holding = [part for part in parts if _cordons(part, forms)]
    assert [re.findall(r"^kind: (.*)$", part, re.MULTILINE) for part in holding] == [["Secret"]]

    kinds = installed.cluster.kubectl(
        "api-resources", "--verbs=list", "--namespaced", "--output=name"
    )
    others = ",".join(k for k in kinds.split() if k != "secrets" and "metrics" not in k)
    everything = installed.cluster.kubectl(
        "get", others, "-n", installed.namespace, "-o", "json", "--show-managed-fields"
    )
    assert "selfheal-worker" in everything
    assert not _cordons(everything, forms)
    secrets = {s["type"] for s in installed.get("secret") if _cordons(json.dumps(s), forms)}
    assert secrets == {"Opaque"}


def _forms(word: str) -> set[str]:
    """The word as it may be written: plain, in a URI, in a Secret's data."""
    return {word, quote(word, safe=""), base64.b64encode(word.encode()).decode()}


def _cordons(text: str, forms: set[str]) -> bool:
    return any(form in text for form in forms)


def test_with_a_secret_of_one_s_own_helm_never_sees_a_password(site: Site) -> None:
    production = Path(CHART / "ci/production-values.yaml")
    shown = site.helm(
        *("template", "selfheal", str(CHART), "-n", site.namespace, "-f", str(production)),
        "--set=metrics.podMonitor.enabled=false",
    )
    made = [part for part in yaml.safe_load_all(shown) if part and part["kind"] == "Secret"]
    # KEDA takes the switch for TLS from a Secret only.
    assert [secret["stringData"] for secret in made] in ([], [{"tls": "enable"}])
