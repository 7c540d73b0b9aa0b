"""What restarts on an upgrade: the pods that read what has changed, and no others."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import (
    CASES,
    CHART,
    FIXED,
    PARTS,
    Helm,
    Manifest,
    by_kind,
    containers,
    environment,
    pod_templates,
)


def changed(helm: Helm, *sets: str) -> set[str]:
    """Components whose pods restart when these values are set on a default release."""
    before, after = (
        pod_templates(helm.template(*FIXED)),
        pod_templates(helm.template(*FIXED, *sets)),
    )
    return {
        (after.get(name) or before[name])["metadata"]["labels"]["app.kubernetes.io/component"]
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    }


@pytest.mark.parametrize("case", PARTS)
def test_a_new_chart_version_alone_restarts_nothing(helm: Helm, tmp_path: Path, case: str) -> None:
    bumped = tmp_path / "selfheal"
    shutil.copytree(CHART, bumped)
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    (bumped / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "9.9.9"}))
    old = helm.case(case)
    new = helm.template(*FIXED, files=CASES[case], chart=bumped)
    assert all("9.9.9" in m["metadata"]["labels"]["helm.sh/chart"] for m in new)
    assert pod_templates(new) == pod_templates(old)
    claims = [m["spec"].get("volumeClaimTemplates") for m in new if m["kind"] == "StatefulSet"]
    assert "9.9.9" not in str(claims)


@pytest.mark.parametrize(
    ("sets", "restarted"),
    [
        (["model.provider=ollama", "model.name=m", "model.baseUrl=http://o"], {"worker"}),
        (["model.deadlineSeconds=30"], {"worker"}),
        (["faults.modelDelay=0.5"], {"worker"}),
        (["model.ca.existingSecret=ca"], {"worker"}),
        (["worker.concurrency=9"], {"worker"}),
        (["worker.priorityClass.value=-2"], {"worker"}),
        (["worker.logLevel=debug"], {"worker"}),
        # The Job's pods are other pods; the Job has another name, and nothing is restarted for it.
        (["queue.name=tickets"], {"worker", "topology"}),
        (["worker.image.tag=2"], {"worker", "topology"}),
        (["remediator.config.mode=dryRun"], {"remediator"}),
        (["remediator.config.recovery.stabilizationWindow=1m"], {"remediator"}),
        # The uninstall's Job runs before an uninstall only.
        (["remediator.image.tag=2"], {"remediator", "remediator-uninstall"}),
        (["nodeProblemDetector.heartbeatPeriod=1m"], {"node-problem-detector"}),
        (
            ["nodeProblemDetector.systemLogMonitors.kernel-monitor.lookback=1m"],
            {"node-problem-detector"},
        ),
        (["rabbitmq.memoryHighWatermark=512MiB"], {"rabbitmq"}),
        (["rabbitmq.auth.password=other"], {"rabbitmq"}),
        (["autoscaling.maxReplicas=7"], set()),
        (["autoscaling.mode=hpa", "autoscaling.minReplicas=1"], set()),
        (["autoscaling.mode=none"], set()),
        (["commonLabels.team=a"], set()),
        (["metrics.podMonitor.enabled=true"], set()),
        (["worker.podDisruptionBudget.maxUnavailable=2"], set()),
    ],
)
def test_restarts_only_what_reads_the_change(
    helm: Helm, sets: list[str], restarted: set[str]
) -> None:
    assert changed(helm, *sets) == restarted


def test_swapping_the_model_of_a_running_server_restarts_the_worker_only(helm: Helm) -> None:
    first = pod_templates(helm.case("ollama"))
    second = pod_templates(helm.case("ollama", "model.name=smollm2:360m"))
    assert {name for name in first.keys() | second.keys() if first[name] != second[name]} == {
        "Deployment/selfheal-worker"
    }


def test_a_changed_plugin_script_restarts_the_detector(helm: Helm) -> None:
    script = "nodeProblemDetector.customPlugins.clock.scripts.check\\.sh"
    first = pod_templates(helm.case("custom-plugin"))
    second = pod_templates(helm.case("custom-plugin", f"{script}=exit 0"))
    assert {name for name in first if first[name] != second[name]} == {
        "DaemonSet/selfheal-node-problem-detector"
    }


def _topology(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    """The Job that declares the queues, by its name."""
    jobs = by_kind(manifests, "Job")
    return {name: job for name, job in jobs.items() if "-topology-" in name}


def test_the_uninstall_uncordons_with_the_remediators_account(helm: Helm) -> None:
    manifests = helm.template(*FIXED, "remediator.uninstall.timeout=90")
    job = by_kind(manifests, "Job")["selfheal-remediator-uninstall"]
    spec = job["spec"]["template"]["spec"]
    assert job["metadata"]["annotations"] == {
        "helm.sh/hook": "pre-delete",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    }
    assert job["spec"]["activeDeadlineSeconds"] == 150
    [container] = spec["containers"]
    assert {"uncordon", "--all", "--timeout=90"} <= set(container["args"])
    remediator = by_kind(manifests, "Deployment")["selfheal-remediator"]["spec"]["template"]
    assert container["image"] == remediator["spec"]["containers"][0]["image"]
    assert spec["serviceAccountName"] == remediator["spec"]["serviceAccountName"]
    # Neither the Deployment nor its disruption budget takes the Job's pod for one of theirs.
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "remediator-uninstall"
    without = helm.template(*FIXED, "remediator.uninstall.uncordon=false")
    assert "remediator-uninstall" not in str(without)


def test_the_topology_job_has_another_name_when_it_does_something_else(helm: Helm) -> None:
    def job(*sets: str) -> str:
        [name] = _topology(helm.template(*FIXED, *sets))
        return name

    assert job() == job("model.provider=ollama", "model.name=m", "model.baseUrl=http://o")
    assert job() == job("autoscaling.maxReplicas=7")
    assert job() != job("queue.name=tickets")
    assert job() != job("worker.image.tag=2")
    assert job() != job("topology.backoffLimit=3")


@pytest.mark.parametrize("seconds", [None, 0, 1_000_000])
def test_the_topology_job_is_removed_when_the_value_says(helm: Helm, seconds: int | None) -> None:
    values = {"topology": {"ttlSecondsAfterFinished": seconds}}
    [job] = _topology(helm.template(*FIXED, values=values)).values()
    assert job["spec"].get("ttlSecondsAfterFinished") == seconds


def test_the_topology_job_is_no_hook(helm: Helm) -> None:
    """A hook would run before the broker is there, or keep `--wait` waiting for ever."""
    hooks = {
        (m["kind"], m["metadata"]["annotations"]["helm.sh/hook"])
        for m in helm.template(*FIXED)
        if "helm.sh/hook" in m["metadata"].get("annotations", {})
    }
    assert hooks == {("Pod", "test"), ("Job", "pre-delete")}


def test_job_and_worker_declare_the_same_queues(helm: Helm) -> None:
    manifests = helm.template(*FIXED, "queue.name=tickets", "queue.deliveryLimit=7")
    [job] = _topology(manifests).values()
    worker = by_kind(manifests, "Deployment")["selfheal-worker"]
    said = environment(containers(job["spec"]["template"])[0])
    meant = environment(containers(worker["spec"]["template"])[0])
    del said["LOG_FORMAT"]
    assert said["QUEUE_NAME"] == "tickets"
    assert said.items() <= meant.items()


@pytest.mark.parametrize(
    ("sets", "shutdown", "kill"),
    [
        ([], "60", 70),
        (["model.deadlineSeconds=300"], "300", 310),
        (["model.deadlineSeconds=0.5"], "0.5", 11),
        (["worker.shutdownGraceSeconds=90"], "90", 100),
        (["worker.terminationGracePeriodSeconds=600"], "60", 600),
    ],
)
def test_grace_is_derived_from_the_deadline(
    helm: Helm, sets: list[str], shutdown: str, kill: int
) -> None:
    worker = by_kind(helm.template(*FIXED, *sets), "Deployment")["selfheal-worker"]
    spec = worker["spec"]["template"]["spec"]
    assert environment(spec["containers"][0])["SHUTDOWN_GRACE"] == shutdown
    assert spec["terminationGracePeriodSeconds"] == kill
