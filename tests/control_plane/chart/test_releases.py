"""A release's life on a real API server: install, upgrade, rollback, uninstall, with real Helm.

Nodes and pods are KWOK's, so what a pod does is not seen here; which pods come and go is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ci.parts import ensure
from tests.control_plane.chart.conftest import BY_HAND, CHART, NO_DETECTOR, Site

pytestmark = pytest.mark.control_plane

CASES = sorted((CHART / "ci").glob("*-values.yaml"))
#: Types of operators that this cluster does not have.
WITHOUT_OPERATORS = (
    "--set=metrics.podMonitor.enabled=false",
    "--set=verticalPodAutoscaler.enabled=false",
    "--set=alerts.enabled=false",
)


def test_installs_with_wait_where_restricted_is_enforced(site: Site) -> None:
    site.apply("install")
    assert sorted(site.pods().values()) == [
        "rabbitmq",
        "remediator",
        "remediator",
        "topology",
        "worker",
    ]
    refused = [e for e in site.get("events") if "violates PodSecurity" in e["message"]]
    assert refused == []


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_the_api_server_takes_every_case(site: Site, case: Path) -> None:
    """The server's own validation and admission, without keeping anything."""
    site.helm(
        *("install", "selfheal", str(CHART), "-n", site.namespace, "--dry-run=server"),
        *("-f", str(case), BY_HAND, *WITHOUT_OPERATORS),
    )


def test_a_new_chart_version_restarts_no_pod_and_keeps_the_scale(
    site: Site, tmp_path: Path
) -> None:
    site.apply("install")
    site.cluster.kubectl("scale", "deploy/selfheal-worker", "-n", site.namespace, "--replicas=3")
    site.cluster.kubectl("rollout", "status", "deploy/selfheal-worker", "-n", site.namespace)
    before, password = site.pods(), site.password()
    bumped = tmp_path / "chart"
    shutil.copytree(CHART, bumped)
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    (bumped / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "9.9.9"}))
    site.helm(
        "upgrade", "selfheal", str(bumped), "-n", site.namespace, "--wait", BY_HAND, NO_DETECTOR
    )
    assert site.pods() == before
    assert site.password() == password


def test_a_swapped_model_replaces_the_workers_only(site: Site) -> None:
    site.apply("install")
    before = site.pods()
    other = ("model.provider=openai", "model.name=m", "model.baseUrl=http://llm/v1")
    site.apply("upgrade", *(f"--set={assignment}" for assignment in other))
    after = site.pods()
    assert {before[uid] for uid in before.keys() - after.keys()} == {"worker"}
    assert {after[uid] for uid in after.keys() - before.keys()} == {"worker"}
    site.helm("rollback", "selfheal", "1", "-n", site.namespace, "--wait")
    rolled = site.pods()
    assert {rolled[uid] for uid in rolled.keys() - after.keys()} == {"worker"}


def test_a_change_of_the_queues_makes_another_job_and_removes_the_old_one(site: Site) -> None:
    site.apply("install")
    [first] = site.get("jobs")
    site.apply("upgrade", "--set=queue.maxAttempts=4")
    [same] = site.get("jobs")
    assert same["metadata"]["uid"] == first["metadata"]["uid"]
    site.apply("upgrade", "--set=queue.name=tickets")
    [other] = site.get("jobs")
    assert other["metadata"]["name"] != first["metadata"]["name"]


def test_the_whole_of_it_comes_and_goes(site: Site) -> None:
    """With the detector in its own namespace; only the broker's volume stays."""
    site.apply("install", detector=True)
    [detector] = json.loads(
        site.cluster.kubectl("get", "ds", "-n", "selfheal-node-problem-detector", "-o", "json")
    )["items"]
    assert detector["status"]["numberReady"] == 2
    first = site.password()
    site.helm("uninstall", "selfheal", "--no-hooks", "-n", site.namespace, "--wait=legacy")
    kinds = "all,pdb,pvc,secret,configmap,sa,role,rolebinding,scaledobject,triggerauthentication"
    left = {f"{o['kind']}/{o['metadata']['name']}" for o in site.get(kinds)}
    left -= {"ConfigMap/kube-root-ca.crt", "ServiceAccount/default"}
    assert left == {"PersistentVolumeClaim/data-selfheal-rabbitmq-0"}
    for kind in ("clusterrole", "clusterrolebinding", "namespace", "priorityclass"):
        assert [o for o in site.get(kind) if "selfheal" in o["metadata"]["name"]] == []
    site.apply("install")
    assert site.password() != first


def test_a_second_remediator_is_refused_and_a_second_pipeline_is_not(site: Site) -> None:
    site.apply("install")
    arguments = ("install", "tickets", str(CHART), "-n", site.namespace, BY_HAND)
    said = site.helm(*arguments, fails=True)
    first = f"{site.namespace}/selfheal"
    assert f"the release {first} already runs the remediator of this cluster" in said
    assert "set remediator.enabled=false" in said
    site.helm(*arguments, "-f", str(CHART / "ci" / "worker-only-values.yaml"))
    assert {d["metadata"]["name"] for d in site.get("deployments")} == {
        "selfheal-worker",
        "selfheal-remediator",
        "tickets-selfheal-worker",
    }


def test_two_pipelines_with_brokers_of_their_own_in_two_namespaces(site: Site) -> None:
    site.apply("install")
    second = f"{site.namespace}-second"
    alone = ("--set=remediator.enabled=false", "--set=rabbitmq.persistence.enabled=false")
    site.helm(
        *("install", "selfheal", str(CHART), "-n", second, "--create-namespace"),
        *("--wait", "--timeout", "90s", NO_DETECTOR, *alone),
    )
    site.helm("uninstall", "selfheal", "--no-hooks", "-n", second)
    assert "remediator" in site.pods().values()


def test_another_rank_is_another_class_and_goes_back(site: Site) -> None:
    """Kubernetes never changes the value of a class."""

    def now() -> tuple[set[int], set[int]]:
        """The values of the release's classes, and the priorities of its workers."""
        of_workers = {
            p["spec"]["priority"]
            for p in site.get("pods")
            if site.pods().get(p["metadata"]["uid"]) == "worker"
        }
        classes = [c for c in site.get("priorityclass") if site.namespace in c["metadata"]["name"]]
        return {c["value"] for c in classes}, of_workers

    site.apply("install")
    assert now() == ({-1}, {-1})
    site.apply("upgrade", "--set=worker.priorityClass.value=-5")
    assert now() == ({-5}, {-5})
    site.apply("upgrade", "--set=worker.priorityClass.create=false")
    assert now() == (set(), {0})
    site.helm("rollback", "selfheal", "1", "-n", site.namespace, "--wait")
    assert now() == ({-1}, {-1})


@pytest.fixture
def admin(site: Site) -> tuple[str, str]:
    """Somebody who may do all in the namespace, and nothing elsewhere; as Helm's arguments."""
    name = f"admin-of-{site.namespace}"
    binding = ["rolebinding", name, "-n", site.namespace, "--clusterrole=admin", f"--user={name}"]
    site.cluster.kubectl("create", *binding)
    return "--kube-as-user", name


def test_whoever_has_a_namespace_alone_installs_workers_in_it(
    site: Site, admin: tuple[str, str]
) -> None:
    case = ("-f", str(CHART / "ci" / "namespaced-values.yaml"), "-n", site.namespace, *admin)
    said = site.helm("install", "selfheal", str(CHART), "-n", site.namespace, *admin, fails=True)
    assert "forbidden" in said
    site.helm("install", "selfheal", str(CHART), *case, "--skip-crds", "--wait", "--timeout", "90s")
    assert sorted(site.pods().values()) == ["topology", "worker"]
    bundled = ("--set=rabbitmq.enabled=true", "--set=broker.host=", "--set=broker.existingSecret=")
    site.helm("upgrade", "selfheal", str(CHART), *case, *bundled, BY_HAND, "--wait")
    assert "rabbitmq" in site.pods().values()
    site.helm("uninstall", "selfheal", "--no-hooks", "-n", site.namespace, *admin, "--wait=legacy")
    assert site.pods() == {}


def test_a_broker_that_never_gets_ready_is_rolled_back(site: Site) -> None:
    site.apply("install")
    fixed = ("-n", site.namespace, BY_HAND, NO_DETECTOR, "--set=rabbitmq.nodeSelector.no=node")
    site.helm("upgrade", "selfheal", str(CHART), *fixed)
    broker = ("pod/selfheal-rabbitmq-0", "-n", site.namespace)
    site.cluster.kubectl("wait", *broker, "--for=condition=PodScheduled=false", "--timeout=60s")
    site.helm("rollback", "selfheal", "1", "-n", site.namespace)
    site.cluster.kubectl(
        *("rollout", "status", "statefulset/selfheal-rabbitmq", "-n", site.namespace),
        "--timeout=60s",
    )


def test_the_namespace_that_a_release_made_is_not_deleted_with_the_detector_in_it(
    site: Site,
) -> None:
    site.apply("install", detector=True)
    upgrade = ("upgrade", "selfheal", str(CHART), "-n", site.namespace, BY_HAND)
    theirs = "--set=nodeProblemDetector.createNamespace=false"
    said = site.helm(*upgrade, theirs, fails=True)
    assert "this release made the namespace selfheal-node-problem-detector" in said
    assert "leave it true" in said
    site.apply("upgrade", detector=True)


def test_one_that_is_there_is_used(site: Site) -> None:
    """The way with a pull secret of one's own."""
    namespace = "selfheal-node-problem-detector"
    site.cluster.kubectl("create", "namespace", namespace)
    label = "pod-security.kubernetes.io/enforce=privileged"
    site.cluster.kubectl("label", "namespace", namespace, label)
    try:
        for command in ("install", "upgrade"):
            theirs = "--set=nodeProblemDetector.createNamespace=false"
            site.apply(command, theirs, detector=True)
        site.helm("uninstall", "selfheal", "--no-hooks", "-n", site.namespace, "--wait=legacy")
    finally:
        site.cluster.kubectl("delete", "namespace", namespace)


def test_a_secret_without_what_keda_logs_in_with_is_refused(site: Site) -> None:
    uri = "--from-literal=amqp-uri=amqps://u:p@rabbitmq.example/"
    secret = ("create", "secret", "generic", "feedback-broker", "-n", site.namespace)
    site.cluster.kubectl(*secret, uri, "--from-literal=watcher=u")
    keda = ("autoscaling.mode=keda", "broker.managementUrl=https://rabbitmq.example:15671/")
    install = (
        *("install", "selfheal", str(CHART), "-n", site.namespace, NO_DETECTOR, "--dry-run=server"),
        *("-f", str(CHART / "ci" / "external-broker-uri-values.yaml")),
    )
    site.helm(*install)
    user = "--set=broker.secretKeys.managementUsername=watcher"
    said = site.helm(*install, *(f"--set={one}" for one in keda), user, fails=True)
    assert "the Secret feedback-broker has no key password" in said
    assert "set broker.secretKeys.managementPassword" in said
    assert said.count("  * ") == 1


@pytest.mark.parametrize("prefix", ["", "beta."])
def test_a_default_storage_class_is_known_by_both_its_names(site: Site, prefix: str) -> None:
    install = ("install", "selfheal", str(CHART), "-n", site.namespace, NO_DETECTOR)
    assert "no default storage class" in site.helm(*install, "--dry-run=server", fails=True)
    made = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "made-here",
            "annotations": {f"storageclass.{prefix}kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "example.com/none",
    }
    site.cluster.kubectl("create", "-f", "-", input=yaml.safe_dump(made))
    try:
        site.helm(*install, "--dry-run=server")
    finally:
        site.cluster.kubectl("delete", "storageclass", "made-here")


def test_says_what_the_cluster_lacks(site: Site) -> None:
    said = site.helm(
        *("install", "selfheal", str(CHART), "-n", site.namespace),
        *("--set=metrics.podMonitor.enabled=true", "--set=verticalPodAutoscaler.enabled=true"),
        fails=True,
    )
    assert "no Prometheus operator" in said
    assert "no vertical pod autoscaler" in said
    assert "no default storage class" in said
    assert "rabbitmq.persistence.enabled=false" in said
    assert json.loads(site.helm("list", "-n", site.namespace, "-o", "json")) == []


@pytest.mark.parametrize("key", ["maxUnavailable", "minAllowed"])
def test_a_remediator_that_may_empty_this_cluster_is_refused(site: Site, key: str) -> None:
    """Only a read of the cluster shows how many nodes are all of them: here there are two."""
    arguments = ("install", "selfheal", str(CHART), "-n", site.namespace, BY_HAND, NO_DETECTOR)
    limit = f"remediator.config.limits.{key}"
    said = site.helm(*arguments, f"--set={limit}=2", "--dry-run=server", fails=True)
    assert "lets it cordon 2 nodes (maxUnavailable, minAllowed), and this cluster has 2" in said
    assert "set both lower" in said
    site.helm(*arguments, f"--set={limit}=1", "--dry-run=server")


@pytest.fixture
def operators(site: Site) -> Iterator[None]:
    """The types of the Prometheus operator and of the vertical pod autoscaler."""
    found = ensure(["prometheus-operator-crds", "vertical-pod-autoscaler-crds"])
    monitoring = found["prometheus-operator-crds"]
    files = [
        monitoring / "monitoring.coreos.com_podmonitors.yaml",
        monitoring / "monitoring.coreos.com_prometheusrules.yaml",
        found["vertical-pod-autoscaler-crds"] / "vpa-v1-crd-gen.yaml",
    ]
    arguments = [word for file in files for word in ("-f", str(file))]
    site.cluster.kubectl("apply", "--server-side", *arguments)
    site.cluster.kubectl("wait", "--for=condition=Established", *arguments)
    yield
    site.helm("uninstall", "selfheal", "--no-hooks", "-n", site.namespace)
    site.cluster.kubectl("delete", *arguments, seconds=300)


@pytest.mark.usefixtures("operators")
def test_what_is_for_operators_is_made_where_they_are(site: Site) -> None:
    switches = ("metrics.podMonitor", "verticalPodAutoscaler", "alerts")
    site.apply("install", *(f"--set={switch}.enabled=true" for switch in switches))
    made = {
        f"{one['kind']}/{one['metadata']['name'].removeprefix('selfheal-')}"
        for one in site.get("podmonitors,prometheusrules,verticalpodautoscalers")
    }
    assert made >= {
        "PodMonitor/worker",
        "PodMonitor/remediator",
        "PodMonitor/rabbitmq",
        "VerticalPodAutoscaler/worker",
        "VerticalPodAutoscaler/remediator",
    }
    assert len([one for one in made if one.startswith("PrometheusRule/")]) == 1


def test_the_mode_of_autoscaling_changes_on_a_live_release(site: Site) -> None:
    """Between autoscalers the workers stay as many as they are."""
    site.apply("install")
    site.cluster.kubectl("scale", "deploy/selfheal-worker", "-n", site.namespace, "--replicas=2")
    site.apply("upgrade", "--set=autoscaling.mode=hpa", "--set=autoscaling.minReplicas=1")
    assert _replicas(site) == 2
    assert len(site.get("hpa")) == 1
    assert site.get("scaledobject") == []
    back = ("upgrade", "selfheal", str(CHART), "-n", site.namespace, BY_HAND, NO_DETECTOR)
    said = site.helm(*back, fails=True)
    assert "KEDA refuses a second autoscaler" in said
    assert "upgrade once with autoscaling.mode=none and worker.replicas=" in said
    site.apply("upgrade", "--set=autoscaling.mode=none", "--set=worker.replicas=3")
    assert _replicas(site) == 3
    assert site.get("hpa") == []
    site.apply("upgrade")
    assert len(site.get("scaledobject")) == 1


def test_workers_that_keda_took_to_zero_are_not_left_there(site: Site) -> None:
    """A HorizontalPodAutoscaler never scales from zero."""
    site.apply("install")
    site.cluster.kubectl("scale", "deploy/selfheal-worker", "-n", site.namespace, "--replicas=0")
    hpa = ("--set=autoscaling.mode=hpa", "--set=autoscaling.minReplicas=1")
    upgrade = ("upgrade", "selfheal", str(CHART), "-n", site.namespace, BY_HAND, NO_DETECTOR)
    said = site.helm(*upgrade, *hpa, fails=True)
    assert "this release has 0 workers now" in said
    assert "upgrade once with autoscaling.mode=none and worker.replicas=1" in said
    site.apply("upgrade", "--set=autoscaling.mode=none", "--set=worker.replicas=1")
    site.apply("upgrade", *hpa)
    assert _replicas(site) == 1
    # By hand this is how an autoscaler is switched off for a while.
    site.cluster.kubectl("scale", "deploy/selfheal-worker", "-n", site.namespace, "--replicas=0")
    site.apply("upgrade", *hpa)
    assert _replicas(site) == 0


def test_the_number_given_with_no_autoscaler_goes_with_it(site: Site) -> None:
    """Kubernetes then takes one, which the autoscaler continues from."""
    site.apply("install", "--set=autoscaling.mode=none", "--set=worker.replicas=3")
    assert _replicas(site) == 3
    site.apply("upgrade")
    assert _replicas(site) == 1
    assert len(site.get("scaledobject")) == 1


def _replicas(site: Site) -> int:
    [worker] = [d for d in site.get("deployments") if d["metadata"]["name"] == "selfheal-worker"]
    return int(worker["spec"]["replicas"])


def test_passwords_are_generated_in_a_namespace_that_is_still_to_be_made(site: Site) -> None:
    """There is a cluster, though nothing in the namespace shows it."""
    namespace = f"{site.namespace}-new"
    alone = ("remediator.enabled=false", "rabbitmq.persistence.enabled=false")
    arguments = (
        *("selfheal", str(CHART), "-n", namespace, NO_DETECTOR),
        *(f"--set={one}" for one in alone),
    )

    def secret() -> dict[str, str]:
        text = site.cluster.kubectl(
            "get", "secret", "selfheal-rabbitmq", "-n", namespace, "-o", "json"
        )
        data: dict[str, str] = json.loads(text)["data"]
        return data

    site.helm("install", *arguments, "--create-namespace")
    try:
        first = secret()
        assert {"password", "monitor-password", "amqp-uri", "definitions.json"} <= first.keys()
        assert "passwords" not in site.cluster.kubectl("get", "job", "-n", namespace)
        site.helm("upgrade", *arguments)
        assert secret() == first
    finally:
        site.helm("uninstall", "selfheal", "--no-hooks", "-n", namespace)


def test_a_changed_volume_of_the_live_broker_is_refused(site: Site) -> None:
    site.apply("install")
    upgrade = ("upgrade", "selfheal", str(CHART), "-n", site.namespace, BY_HAND, NO_DETECTOR)
    said = site.helm(*upgrade, "--set=rabbitmq.persistence.size=9Gi", fails=True)
    assert "rabbitmq.persistence.size is 9Gi, and the live broker's claim has 2Gi" in said
    assert "delete statefulset selfheal-rabbitmq --cascade=orphan" in said
    said = site.helm(*upgrade, "--set=rabbitmq.persistence.enabled=false", fails=True)
    assert "rabbitmq.persistence.enabled is false, and the live broker has one" in said
    site.helm(*upgrade, "--set=rabbitmq.persistence.size=2048Mi")


def test_the_api_server_takes_what_argo_cd_applies(site: Site) -> None:
    """Rendered without a cluster and applied by the server's side; what the Job adds stays."""
    rendered = site.helm(
        *("template", "selfheal", str(CHART), "-n", site.namespace, "--no-hooks", NO_DETECTOR),
        *("--kube-version=1.34.0", "--api-versions=v1/Secret", BY_HAND),
    )
    applied = ("apply", "--server-side", "-n", site.namespace, "-f", "-")
    site.cluster.kubectl(*applied, "--dry-run=server", input=rendered)
    secrets = [m for m in yaml.safe_load_all(rendered) if m and m["kind"] == "Secret"]
    [secret] = secrets
    text = yaml.safe_dump(secret)
    site.cluster.kubectl(*applied, "--field-manager=argocd-controller", input=text)
    patch = json.dumps({"data": {"password": "cGFzc3dvcmQ="}})
    named = ("secret", "selfheal-rabbitmq", "-n", site.namespace)
    site.cluster.kubectl("patch", *named, "--type=merge", "-p", patch)
    site.cluster.kubectl(*applied, "--field-manager=argocd-controller", input=text)
    kept = json.loads(site.cluster.kubectl("get", *named, "-o", "json"))
    assert kept["data"]["password"] == "cGFzc3dvcmQ="
    assert kept["data"].keys() == {"password", "username", "monitor-username"}
    site.cluster.kubectl("delete", *named)
