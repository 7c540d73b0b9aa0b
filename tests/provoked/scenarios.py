"""What breaks, which alerts that provokes, and how it is made good again."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ci.demo import site as sites
from tests.provoked.stage import HERE, NAMESPACE, PATIENCE, Stage, patiently

ONE, TWO = "node-1", "node-2"
DETECTORS = "selfheal-node-problem-detector"
_CONFIG, _ROLE = "configmap/selfheal-remediator", "clusterrole/selfheal-remediator"
_LEASE = "lease/selfheal-remediator"
_DETECTORS = f"daemonset/{DETECTORS}"


@dataclass(frozen=True)
class Scenario:
    """`provoke` makes the alerts fire, `undo` lets them resolve within `seconds`."""

    name: str
    alerts: frozenset[str]
    provoke: Callable[[Stage], None]
    undo: Callable[[Stage], None]
    seconds: float = PATIENCE


def _nothing(_: Stage) -> None:
    """It passes by itself."""


# -- the work ------------------------------------------------------------------------------


def _model_goes(stage: Stage) -> None:
    stage.scale("deploy/model", 0)
    stage.publish(*(f"text {n}" for n in range(20)))
    stage.watcher.until_firing({"SelfhealModelBreakerOpen"})
    # Then a worker that was never warm.
    stage.kubectl("delete", "pod", "-l", "app.kubernetes.io/component=worker", "--wait=false")


def _model_comes(stage: Stage) -> None:
    stage.scale("deploy/model", 1)


def _poison(stage: Stage) -> None:
    stage.mailbox.publish(['{"text": "the lid'] * 3, id_prefix="poison", raw=True)
    stage.publish(*(f"garbled {n}" for n in range(20)))


def _hang(stage: Stage) -> None:
    stage.worker("touch /tmp/hang")
    stage.publish(*(f"hangs {n}" for n in range(4)))


def _unhang(stage: Stage) -> None:
    stage.worker("rm -f /tmp/hang")


def _read_results(stage: Stage) -> None:
    with stage.mailbox.reading():
        stage.watcher.until_quiet({"SelfhealResultsNotRead"})


def _block(stage: Stage) -> None:
    # They wait in the queue before the alarm: who publishes during it is blocked as well.
    stage.scale("deploy/model", 0)
    stage.publish("finds that the model is away")
    stage.watcher.until_firing({"SelfhealModelBreakerOpen"})
    stage.publish("blocked 1", "blocked 2")
    stage.broker("set_vm_memory_high_watermark", "0.00001")
    stage.scale("deploy/model", 1)


def _unblock(stage: Stage) -> None:
    stage.broker("set_vm_memory_high_watermark", "0.6")


def _broker_goes(stage: Stage) -> None:
    stage.scale("statefulset/selfheal-rabbitmq", 0)


def _broker_comes(stage: Stage) -> None:
    stage.scale("statefulset/selfheal-rabbitmq", 1)


def _results_full(stage: Stage) -> None:
    # A queue that is merely gone is declared again within a second.
    limit = json.dumps({"max-length": 1, "overflow": "reject-publish"})
    stage.broker("set_policy", "full", "^feedback.results$", limit, "--apply-to", "queues")
    stage.publish(*(f"no place for {n}" for n in range(5)))


def _results_fit(stage: Stage) -> None:
    stage.broker("clear_policy", "full")


def _pods_by_name(**containers: dict[str, Any]) -> list[dict[str, Any]]:
    """Pods that are called as the release's are: what they suffer is real."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"selfheal-{name}-standin-x1"},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": name, "imagePullPolicy": "IfNotPresent", **container}],
            },
        }
        for name, container in containers.items()
    ]


def _crowd(stage: Stage) -> None:
    image = _worker_image(stage)
    eats = {
        "image": image,
        "command": ["python3", "-c", "x = b'x' * (1 << 28)"],
        "resources": {"limits": {"memory": "48Mi"}},
    }
    large = {"image": image, "resources": {"requests": {"cpu": "900"}}}
    stage.apply(*_pods_by_name(worker=eats, remediator=large))


def _uncrowd(stage: Stage) -> None:
    names = [f"selfheal-{name}-standin-x1" for name in ("worker", "remediator")]
    stage.kubectl("delete", "pod", *names, "--grace-period=1")


def _never_ready(stage: Stage) -> None:
    unready = {
        "image": _worker_image(stage),
        "command": ["sleep", "3600"],
        "readinessProbe": {"tcpSocket": {"port": 11434}},
    }
    [pod] = _pods_by_name(ollama=unready)
    labels = {"app": "never-ready"}
    stage.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "selfheal-ollama"},
            "spec": {
                "progressDeadlineSeconds": 10,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod["spec"]},
            },
        }
    )


def _ready(stage: Stage) -> None:
    stage.scale("deploy/selfheal-ollama", 0)
    # It goes only after the alert: Prometheus would show its last word for five minutes.
    stage.watcher.until_quiet({"SelfhealModelServerNotReady", "SelfhealRolloutStuck"})
    stage.kubectl("delete", "deploy/selfheal-ollama")


def _too_much(stage: Stage) -> None:
    # With the demo's one worker the minimum is the maximum.
    _most_workers(stage, 2)
    stage.scale("deploy/model", 0)
    stage.publish(*(f"one of many {n}" for n in range(80)))


def _enough(stage: Stage) -> None:
    stage.scale("deploy/model", 1)
    _most_workers(stage, 1)


def _most_workers(stage: Stage, number: int) -> None:
    most = json.dumps({"spec": {"maxReplicaCount": number}})
    stage.kubectl("patch", "scaledobject/selfheal-worker", "--type=merge", f"--patch={most}")


def _fill_disk(stage: Stage) -> None:
    # Not the disk grows full, the limit comes near; beyond it the broker blocks, as it should.
    stage.broker("set_disk_free_limit", "100000GB")


def _free_disk(stage: Stage) -> None:
    stage.broker("set_disk_free_limit", "50MB")


def _worker_image(stage: Stage) -> str:
    found = json.loads(stage.kubectl("get", "deploy/selfheal-worker", "-o", "json"))
    return str(found["spec"]["template"]["spec"]["containers"][0]["image"])


# -- what watches --------------------------------------------------------------------------


def _unscraped(stage: Stage) -> None:
    _drop_targets(stage, "selfheal")


def _others_unscraped(stage: Stage) -> None:
    _drop_targets(stage, "kube-state-metrics", "selfheal-queues", "keda")


def _drop_targets(stage: Stage, *jobs: str) -> None:
    path = _prometheus(stage)
    path.with_suffix(".whole").write_text(path.read_text())
    config = yaml.safe_load(path.read_text())
    for job in config["scrape_configs"]:
        if job["job_name"] in jobs:
            # The job stays: of a target that goes Prometheus says so, of a job that goes it does
            # not, and would show what it had for five minutes.
            drop = {"source_labels": ["__address__"], "action": "drop"}
            job.setdefault("relabel_configs", []).append(drop)
    path.write_text(yaml.safe_dump(config))
    stage.cluster.prometheus.reload()


def _scraped(stage: Stage) -> None:
    path = _prometheus(stage)
    path.with_suffix(".whole").rename(path)
    stage.cluster.prometheus.reload()


def _prometheus(stage: Stage) -> Path:
    return stage.cluster.prometheus.rules.parent / "prometheus.yaml"


# -- nodes ---------------------------------------------------------------------------------


def _remediator_goes(stage: Stage) -> None:
    stage.scale("deploy/selfheal-remediator", 0)


def _remediator_comes(stage: Stage) -> None:
    stage.scale("deploy/selfheal-remediator", 1)


def _pause(stage: Stage) -> None:
    stage.remediator("pause", "--why", "to see the alert")


def _resume(stage: Stage) -> None:
    stage.remediator("resume")


def _delete_account(stage: Stage) -> None:
    # While it is paused it makes nothing again. The workers that run need no account.
    _pause(stage)
    stage.kubectl("delete", "serviceaccount/selfheal-worker")


def _account_is_back(stage: Stage) -> None:
    _resume(stage)
    patiently(lambda: stage.kubectl("get", "serviceaccount/selfheal-worker"))


def _misconfigure(stage: Stage) -> None:
    wrong = {"remediator.yaml": "mode: perhaps\n"}
    stage.change(_CONFIG, lambda found: found.update(data=wrong), NAMESPACE)


def _configure(stage: Stage) -> None:
    stage.restore(_CONFIG)


def _forbid_nodes(stage: Stage, *verbs: str) -> None:
    def forbid(role: dict[str, Any]) -> None:
        for rule in role["rules"]:
            if "nodes" in rule.get("resources", ()):
                rule["verbs"] = [verb for verb in rule["verbs"] if verb not in verbs]

    stage.change(_ROLE, forbid, NAMESPACE)


def _no_rights(stage: Stage) -> None:
    _forbid_nodes(stage, "patch")
    stage.fault(ONE)


def _rights(stage: Stage) -> None:
    stage.restore(_ROLE)
    stage.until_cordoned(ONE)
    stage.heal(ONE)


def _thread_fails(stage: Stage) -> None:
    deployed = json.loads(stage.kubectl("get", "deploy/selfheal-remediator", "-o", "json"))
    stand_in = {
        "image": deployed["spec"]["template"]["spec"]["containers"][0]["image"],
        "command": ["python3", "-c", (HERE / "failing_thread.py").read_text(encoding="utf-8")],
        "env": [{"name": "HTTP_PORT", "value": "8080"}],
        "ports": [{"name": "http", "containerPort": 8080}],
    }
    [pod] = _pods_by_name(remediator=stand_in)
    # By these it is scraped; without `instance` it is no pod of the release's to anybody else.
    pod["metadata"]["labels"] = {
        "app.kubernetes.io/name": "selfheal",
        "app.kubernetes.io/component": "remediator",
    }
    stage.apply(pod)


def _no_thread_fails(stage: Stage) -> None:
    stage.kubectl("delete", "pod/selfheal-remediator-standin-x1", "--grace-period=1")


def _blind_leader(stage: Stage) -> None:
    # Who leads continues with the nodes that it knows; who takes the lead has to read them first.
    _forbid_nodes(stage, "list", "watch")
    stage.until_forbidden("list", "nodes")
    nobody = {"spec": {"holderIdentity": ""}}
    stage.kubectl("patch", _LEASE, "--type=merge", f"--patch={json.dumps(nobody)}")


def _seeing_leader(stage: Stage) -> None:
    stage.restore(_ROLE)


def _block_drain(stage: Stage) -> None:
    labels = {"app": "precious"}
    container = {"name": "c", "image": _worker_image(stage), "command": ["sleep", "3600"]}
    spec = {"nodeName": ONE, "containers": [container], "terminationGracePeriodSeconds": 1}
    stage.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "precious"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "precious"},
            "spec": {"selector": {"matchLabels": labels}, "minAvailable": 1},
        },
    )
    stage.until_rolled_out("deploy/precious")
    stage.fault(ONE)


def _unblock_drain(stage: Stage) -> None:
    stage.kubectl("delete", "pdb/precious", "deploy/precious")
    stage.heal(ONE)


def _one_too_many(stage: Stage) -> None:
    stage.fault(ONE)
    stage.until_cordoned(ONE)
    stage.until_old(ONE, 21)  # more than signal.window: two at once are a suspected detector
    stage.fault(TWO)
    stage.until_old(TWO, 1)


def _both_healthy(stage: Stage) -> None:
    stage.heal(ONE, TWO)


def _both_at_once(stage: Stage) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(stage.fault, (ONE, TWO)))


def _kill_detectors(stage: Stage) -> None:
    _one_too_many(stage)

    def no_image(daemons: dict[str, Any]) -> None:
        for container in daemons["spec"]["template"]["spec"]["containers"]:
            container["image"] = "localhost/selfheal/no-such-image:1"

    stage.change(_DETECTORS, no_image, DETECTORS)
    # The pods that run already go too: nobody says any more what the nodes are like.
    stage.kube.kubectl("-n", DETECTORS, "delete", "pods", "--all", "--wait=false")


def _revive_detectors(stage: Stage) -> None:
    stage.restore(_DETECTORS)
    stage.kube.kubectl("-n", DETECTORS, "rollout", "status", _DETECTORS, "--timeout=420s")
    stage.heal(ONE, TWO)


def _no_room(stage: Stage) -> None:
    labels = {"app": "bulky"}
    room = json.loads(stage.kubectl("get", "node", ONE, "-o", "json"))["status"]["allocatable"]
    bytes_ = int(room["memory"].removesuffix("Ki")) * 1024 * 6 // 10
    container = {
        "name": "c",
        "image": _worker_image(stage),
        "command": ["sleep", "3600"],
        "resources": {"requests": {"memory": str(bytes_)}},
    }
    stage.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "bulky"},
            "spec": {
                "replicas": 2,  # one a node: neither fits beside the other
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
                },
            },
        }
    )
    stage.until_rolled_out("deploy/bulky")
    stage.fault(ONE)


def _room(stage: Stage) -> None:
    stage.kubectl("delete", "deploy/bulky")
    stage.heal(ONE)


def _no_step_helps(stage: Stage) -> None:
    stage.fault(ONE, "stubborn")


def _repaired(stage: Stage) -> None:
    # As the runbook says: a person repairs the node, and it is uncordoned by itself.
    stage.heal(ONE)
    stage.kubectl("delete", "jobs", "-l", "app.kubernetes.io/managed-by=selfheal-remediator")


def _hopeless(stage: Stage) -> None:
    labels = {"app": "hopeless"}
    # It is ready once, so that the rollout is over: what is being rolled out is not healed.
    ends = ["sh", "-c", "sleep 15; exit 1"]
    container = {"name": "c", "image": _worker_image(stage), "command": ends}
    stage.apply(
        {
            "apiVersion": "selfheal.dev/v1alpha1",
            "kind": "HealingPolicy",
            "metadata": {"name": "hopeless"},
            "spec": {
                "selector": {"matchLabels": labels},
                "failureThreshold": 1,
                "unhealthyWhen": {"terminatedNonZero": True},
                "restart": {"backoff": "5s", "maxBackoff": "5s", "maxPerHour": 1},
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "hopeless"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "containers": [container],
                        "terminationGracePeriodSeconds": 1,
                    },
                },
            },
        },
    )


def _hope(stage: Stage) -> None:
    stage.kubectl("delete", "healingpolicy/hopeless", "deploy/hopeless")


def _imageless(stage: Stage) -> None:
    labels = {"app": "imageless"}
    container = {"name": "c", "image": "localhost/selfheal/no-such-image:1"}
    stage.apply(
        {
            "apiVersion": "selfheal.dev/v1alpha1",
            "kind": "HealingPolicy",
            "metadata": {"name": "imageless"},
            "spec": {
                "selector": {"matchLabels": labels},
                "failureThreshold": 1,
                "unhealthyWhen": {"terminatedNonZero": True},
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "imageless"},
            "spec": {
                "progressDeadlineSeconds": 10,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        },
    )


def _image_again(stage: Stage) -> None:
    stage.kubectl("delete", "healingpolicy/imageless", "deploy/imageless")


def _api_goes(stage: Stage) -> None:
    stage.cluster.stop("kube-apiserver")


def _api_comes(stage: Stage) -> None:
    stage.cluster.start("kube-apiserver")
    stage.cluster.wait_api()


SECOND = ["worker.enabled=false", "rabbitmq.enabled=false", "dashboards.enabled=false"]
SECOND += ["nodeProblemDetector.enabled=false", "topology.enabled=false"]
SECOND += ["remediator.config.restore.enabled=false"]


def _second(stage: Stage) -> None:
    # Helm would refuse it, because it sees the first; what else applies manifests does not.
    stage.kubectl("apply", "-f", "-", input=_second_release(stage))
    sets = [word for one in SECOND for word in ("--set", one)]
    stage.load_rules(*sets, release="second", only="SelfhealRemediatorReadOnly")


def _second_release(stage: Stage) -> str:
    sets = [word for one in SECOND for word in ("--set", one)]
    where = ["-n", NAMESPACE, "--no-hooks", *stage.arguments, *sets]
    return stage.kube.helm("template", "second", str(sites.CHART), *where)


def _first_only(stage: Stage) -> None:
    stage.kubectl("delete", "--ignore-not-found", "-f", "-", input=_second_release(stage))
    # Its rules stay until it is over: Prometheus does not say so of rules that are gone.
    stage.watcher.until_quiet({"SelfhealRemediatorReadOnly"})
    (stage.cluster.prometheus.rules / "second.yaml").unlink(missing_ok=True)
    stage.cluster.prometheus.reload()


SCENARIOS = (
    Scenario(
        "the model server goes away",
        frozenset(
            {
                "SelfhealModelBreakerOpen",
                "SelfhealModelNotLoading",
                "SelfhealNoConsumers",
                "SelfhealWorkersAtMaximum",
            }
        ),
        _model_goes,
        _model_comes,
    ),
    Scenario(
        "poison, and answers that cannot be used",
        frozenset({"SelfhealDeadLettersGrowing"}),
        _poison,
        _nothing,
    ),
    Scenario(
        "model calls hang",
        frozenset({"SelfhealHandlersHang", "SelfhealPodsRestarting"}),
        _hang,
        _unhang,
    ),
    Scenario(
        "nobody reads the results", frozenset({"SelfhealResultsNotRead"}), _nothing, _read_results
    ),
    Scenario(
        "too little memory, too large a request",
        frozenset({"SelfhealOutOfMemory", "SelfhealPodsUnschedulable"}),
        _crowd,
        _uncrowd,
    ),
    Scenario(
        "a model server that is never ready",
        frozenset({"SelfhealModelServerNotReady", "SelfhealRolloutStuck"}),
        _never_ready,
        _ready,
    ),
    Scenario(
        "the autoscaler wants more than it may",
        frozenset({"SelfhealAutoscalerLimited"}),
        _too_much,
        _enough,
    ),
    Scenario(
        "the broker's disk is nearly full",
        frozenset({"SelfhealBrokerDiskLow"}),
        _fill_disk,
        _free_disk,
    ),
    Scenario("the broker is full", frozenset({"SelfhealBrokerBlocked"}), _block, _unblock),
    Scenario(
        "the broker goes away",
        frozenset({"SelfhealBrokerDown", "SelfhealBrokerUnreachable", "SelfhealScalerFailing"}),
        _broker_goes,
        _broker_comes,
    ),
    Scenario(
        "the results queue is full",
        frozenset({"SelfhealResultsBreakerOpen"}),
        _results_full,
        _results_fit,
    ),
    Scenario(
        "nobody scrapes",
        frozenset({"SelfhealWorkerMetricsMissing", "SelfhealRemediatorMetricsMissing"}),
        _unscraped,
        _scraped,
    ),
    Scenario(
        "the other exporters are not scraped",
        frozenset(f"Selfheal{source}MetricsMissing" for source in ("State", "Broker", "Scaler")),
        _others_unscraped,
        _scraped,
    ),
    Scenario(
        "no remediator runs",
        frozenset({"SelfhealRemediatorNoLeader"}),
        _remediator_goes,
        _remediator_comes,
    ),
    Scenario("remediation is paused", frozenset({"SelfhealRemediationPaused"}), _pause, _resume),
    Scenario(
        "a deleted object is not made again",
        frozenset({"SelfhealObjectsMissing"}),
        _delete_account,
        _account_is_back,
    ),
    Scenario(
        "a drain is blocked",
        frozenset(
            {
                "SelfhealDrainBlocked",
                "SelfhealDrainTooLong",
                "SelfhealNodeCordonedLong",
                "SelfhealNodesCordoned",
            }
        ),
        _block_drain,
        _unblock_drain,
    ),
    Scenario(
        "one node too many", frozenset({"SelfhealLimitReached"}), _one_too_many, _both_healthy
    ),
    Scenario(
        "all nodes at once", frozenset({"SelfhealDetectorSuspected"}), _both_at_once, _both_healthy
    ),
    Scenario(
        "the detectors are killed",
        frozenset({"SelfhealDetectorDown", "SelfhealDetectorSilent"}),
        _kill_detectors,
        _revive_detectors,
    ),
    Scenario("no room elsewhere", frozenset({"SelfhealNoHeadroom"}), _no_room, _room),
    Scenario(
        "a node that its ladder does not repair",
        frozenset({"SelfhealRepairFailed"}),
        _no_step_helps,
        _repaired,
    ),
    Scenario("no rights", frozenset({"SelfhealActionsFailing"}), _no_rights, _rights),
    Scenario(
        "a thread fails again and again",
        frozenset({"SelfhealActionsFailing"}),
        _thread_fails,
        _no_thread_fails,
    ),
    Scenario(
        "a pod that no restart helps",
        frozenset({"SelfhealPolicyPodsDown", "SelfhealPolicyGaveUp"}),
        _hopeless,
        _hope,
    ),
    Scenario(
        "a pod without an image",
        frozenset({"SelfhealPolicyDegraded", "SelfhealPolicyRolloutStuck"}),
        _imageless,
        _image_again,
    ),
    Scenario(
        "a configuration that cannot be used",
        frozenset({"SelfhealConfigurationRejected"}),
        _misconfigure,
        _configure,
    ),
    Scenario(
        "a second remediator", frozenset({"SelfhealRemediatorReadOnly"}), _second, _first_only
    ),
    Scenario(
        "a leader that may not read the nodes",
        frozenset({"SelfhealRemediatorStale"}),
        _blind_leader,
        _seeing_leader,
    ),
    Scenario(
        "the API server is away", frozenset({"SelfhealNodeWatchSilent"}), _api_goes, _api_comes
    ),
)

#: Alerts that fire by the way; they look minutes back, and are waited for at the end.
BY_THE_WAY = frozenset(
    f"Selfheal{what}Burn{pace}" for what in ("Results", "QueueWait") for pace in ("Fast", "Slow")
)
