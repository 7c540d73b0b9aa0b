"""States that make no sense do not render, and the message says what is wrong and what to set."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.rendering import LONG, Helm, Rendering


def _observing(key: str, value: object) -> dict[str, object]:
    """A rule that takes no node out of service, with one key more."""
    return {"condition": "Ready", "status": ["False"], "action": "observe", key: value}


def _grouped(rule: dict[str, object]) -> dict[str, Any]:
    """The rule in a group of nodes."""
    group = {"name": "gpu", "nodeSelector": {"matchLabels": {"pool": "gpu"}}, "rules": [rule]}
    return {"remediator": {"config": {"groups": [group]}}}


#: name -> (values, what the message must say: the key at fault, and the way out)
GUARDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing enabled": (
        {
            "worker": {"enabled": False},
            "rabbitmq": {"enabled": False},
            "remediator": {"enabled": False},
            "nodeProblemDetector": {"enabled": False},
        },
        ["nothing is enabled", "set worker.enabled"],
    ),
    "min above max": (
        {"autoscaling": {"minReplicas": 9, "maxReplicas": 5}},
        ["autoscaling.minReplicas is 9 and autoscaling.maxReplicas is 5", "must not be above"],
    ),
    "scale to zero without KEDA": (
        {"autoscaling": {"mode": "hpa", "minReplicas": 0}},
        ["only KEDA scales to zero", "set autoscaling.minReplicas to at least 1"],
    ),
    "HPA without a CPU request": (
        {
            "autoscaling": {"mode": "hpa", "minReplicas": 1},
            "worker": {"resources": {"requests": {"cpu": None}}},
        },
        ["worker.resources.requests.cpu is not set", "set it"],
    ),
    "fallback above max": (
        {"autoscaling": {"maxReplicas": 3, "keda": {"fallback": {"replicas": 4}}}},
        ["autoscaling.keda.fallback.replicas is 4", "autoscaling.maxReplicas (3)"],
    ),
    "nobody declares the queue": (
        {"topology": {"enabled": False}},
        ["topology.enabled is false", "no worker would ever start", "set topology.enabled=true"],
    ),
    "KEDA without a management API": (
        {"rabbitmq": {"enabled": False}, "broker": {"host": "b", "existingSecret": "s"}},
        ["autoscaling.mode=keda", "set broker.managementUrl"],
    ),
    "worker budget that blocks drains": (
        {"worker": {"podDisruptionBudget": {"maxUnavailable": 0}}},
        ["worker.podDisruptionBudget.maxUnavailable is 0", "set at least 1"],
    ),
    "remediator budget that blocks drains": (
        {"remediator": {"podDisruptionBudget": {"maxUnavailable": "0%"}}},
        ["remediator.podDisruptionBudget.maxUnavailable is 0%", "set at least 1"],
    ),
    "a renewal without a pause": (
        {"remediator": {"config": {"lease": {"renewInterval": "0s"}}}},
        ["remediator.config.lease.renewInterval is 0s", "50ms at least"],
    ),
    "a queue's name that is too long with what is appended": (
        {"queue": {"name": "ü" * 116}},
        ["queue.name has 232 bytes", "at most 230 bytes"],
    ),
    "a result queue's name that is too long": (
        {"queue": {"results": "ü" * 128}},
        ["queue.results has 256 bytes", "at most 255 bytes"],
    ),
    "a queue's name that RabbitMQ reserves": (
        {"queue": {"name": "amq.work"}},
        ["queue.name is amq.work", "RabbitMQ's own"],
    ),
    "a result queue with the name of a delay queue": (
        {"queue": {"name": "q", "results": "q.retry.30s"}},
        ["queue.results is q.retry.30s", "use another one"],
    ),
    "a dead-letter queue with a name for checks": (
        {"queue": {"name": "q", "deadLetters": "q.rights"}},
        ["queue.deadLetters is q.rights", "use another one"],
    ),
    "grace shorter than the model's deadline": (
        {"worker": {"shutdownGraceSeconds": 10}},
        ["worker.shutdownGraceSeconds (10)", "model.deadlineSeconds (60)", "leave it null"],
    ),
    "killed before the grace is over": (
        {"worker": {"terminationGracePeriodSeconds": 60}},
        ["worker.terminationGracePeriodSeconds (60)", "at least 65"],
    ),
    "workers that rank with their broker": (
        {"worker": {"priorityClass": {"value": 0}}},
        ["worker.priorityClass.value is 0", "their own broker", "set it to -10 to -1"],
    ),
    "workers that cluster-autoscaler does not count": (
        {"worker": {"priorityClass": {"value": -11}}},
        ["worker.priorityClass.value is -11", "adds no node", "worker.priorityClassName"],
    ),
    "two brokers": (
        {"broker": {"host": "rabbitmq.example"}},
        ['broker.host is "rabbitmq.example"', "two brokers", "set rabbitmq.enabled=false"],
    ),
    "TLS to the bundled broker": (
        {"broker": {"tls": {"enabled": True, "existingSecret": "s"}}},
        ["broker.tls.enabled", "set rabbitmq.enabled=false"],
    ),
    "external broker without a secret": (
        {
            "rabbitmq": {"enabled": False},
            "broker": {"host": "b", "managementUrl": "https://b:15671/"},
        },
        ["broker.existingSecret is empty", "set it to the name of a Secret"],
    ),
    "external broker that is nowhere": (
        {
            "rabbitmq": {"enabled": False},
            "broker": {"existingSecret": "s", "managementUrl": "https://b:15671/"},
        },
        ["nothing says where the broker is", "set broker.host"],
    ),
    "TLS without certificates": (
        {
            "rabbitmq": {"enabled": False},
            "autoscaling": {"mode": "none"},
            "broker": {"host": "b", "existingSecret": "s", "tls": {"enabled": True}},
        },
        ["broker.tls.existingSecret is empty", "certificate authority"],
    ),
    "client certificate without its key": (
        {
            "rabbitmq": {"enabled": False},
            "autoscaling": {"mode": "none"},
            "broker": {
                "host": "b",
                "existingSecret": "s",
                "tls": {"enabled": True, "existingSecret": "t", "certKey": "tls.crt"},
            },
        },
        ["broker.tls.certKey and broker.tls.keyKey belong together", "set both or neither"],
    ),
    "guest": (
        {"rabbitmq": {"auth": {"username": "guest"}}},
        ["rabbitmq.auth.username is guest", "set another name"],
    ),
    "one user for two jobs": (
        {"rabbitmq": {"auth": {"monitorUsername": "selfheal"}}},
        ["rabbitmq.auth.monitorUsername are the same", "set two different users"],
    ),
    "two queues with one name": (
        {"queue": {"name": "q", "results": "q"}},
        ["must be three different queues", "q, q.dead-letters, q"],
    ),
    "retry delays that shrink": (
        {"queue": {"retryDelays": [5, 1]}},
        ["queue.retryDelays must grow", "[1, 5, 30, 120]"],
    ),
    "provider without a model": (
        {"model": {"provider": "ollama", "baseUrl": "http://ollama:11434"}},
        ["model.provider=ollama needs model.name"],
    ),
    "provider without a URL": (
        {"model": {"provider": "openai", "name": "m"}},
        ["model.provider=openai needs model.baseUrl", "set it to the model server's URL"],
    ),
    "a server for the builtin model": (
        {"model": {"baseUrl": "http://ollama:11434"}},
        ["model.provider=builtin uses no server", "leave model.baseUrl empty"],
    ),
    "an active model that nobody named": (
        {"model": {"active": "x"}},
        ["model.active is x, which is not one of models ()", "add it there"],
    ),
    "a fallback that nobody named": (
        {"model": {"fallback": ["builtin", "x"]}, "models": {"own": {"provider": "builtin"}}},
        ["model.fallback names x, which is neither builtin nor one of models (own)"],
    ),
    "a model that falls back on itself": (
        {
            "model": {"active": "own", "fallback": ["own"]},
            "models": {"own": {"provider": "builtin"}},
        },
        ["name a model twice (own, own)", "name each once"],
    ),
    "a named model without a name": (
        {"models": {"own": {"provider": "ollama", "baseUrl": "http://ollama:11434"}}},
        ["models.own.provider=ollama needs models.own.name"],
    ),
    "a task for the builtin model": (
        {"task": "name: x"},
        ["task is set and the model builtin, which knows emotion analysis alone"],
    ),
    "a variable given twice": (
        {"worker": {"extraEnv": [{"name": "QUEUE_NAME", "value": "q"}]}},
        ["worker.extraEnv sets QUEUE_NAME, which is set already", "use the value of the chart"],
    ),
    "a label that selects pods": (
        {"remediator": {"podLabels": {"team": "a", "app.kubernetes.io/component": "worker"}}},
        ["remediator.podLabels sets app.kubernetes.io/component", "a label of another name"],
    ),
    "a label that the chart sets": (
        {"commonLabels": {"team": "a", "app.kubernetes.io/part-of": "platform"}},
        ["commonLabels sets app.kubernetes.io/part-of", "a label of another name"],
    ),
    "a model server that nobody uses": (
        {"ollama": {"enabled": True, "models": ["m"]}},
        [
            "model.provider is builtin, so nobody would use it",
            "set model.provider=ollama",
            "give one of models that provider",
        ],
    ),
    "a model server without a model": (
        {"ollama": {"enabled": True}, "model": {"provider": "ollama", "name": "m"}},
        ["ollama.models is empty", "set it to the models to have ready"],
    ),
    "two model servers": (
        {
            "ollama": {"enabled": True, "models": ["m"]},
            "model": {"provider": "ollama", "name": "m", "baseUrl": "http://other:11434"},
        },
        ["two model servers", "leave model.baseUrl empty"],
    ),
    "a model that the server does not have": (
        {
            "ollama": {"enabled": True, "models": ["a", "b"]},
            "model": {"provider": "ollama", "name": "m"},
        },
        ["model.name is m, which is not one of ollama.models (a, b)", "add it there"],
    ),
    "a model server's min above max": (
        {
            "ollama": {"enabled": True, "models": ["m"], "autoscaling": {"minReplicas": 6}},
            "model": {"provider": "ollama", "name": "m"},
        },
        ["ollama.autoscaling.minReplicas is 6", "ollama.autoscaling.maxReplicas is 5"],
    ),
    "GPUs scaled by CPU": (
        {
            "ollama": {"enabled": True, "models": ["m"], "gpu": {"count": 1}},
            "model": {"provider": "ollama", "name": "m"},
        },
        ["ollama.gpu.count is above 0", "set ollama.autoscaling.enabled=false"],
    ),
    "a model server's HPA without a CPU request": (
        {
            "ollama": {
                "enabled": True,
                "models": ["m"],
                "resources": {"requests": {"cpu": None}},
            },
            "model": {"provider": "ollama", "name": "m"},
        },
        ["ollama.resources.requests.cpu is not set"],
    ),
    "a volume that replicas cannot share": (
        {
            "ollama": {
                "enabled": True,
                "models": ["m"],
                "persistence": {"enabled": True, "accessModes": ["ReadWriteOnce"]},
            },
            "model": {"provider": "ollama", "name": "m"},
        },
        ["ollama.persistence.accessModes is ReadWriteOnce for up to 5 replicas", "[ReadWriteMany]"],
    ),
    "models in the image and on a volume": (
        {
            "ollama": {
                "enabled": True,
                "models": ["m"],
                "modelsInImage": "/models",
                "persistence": {"enabled": True},
            },
            "model": {"provider": "ollama", "name": "m"},
        },
        ["ollama.modelsInImage is /models and ollama.persistence.enabled is true"],
    ),
    "model server budget that blocks drains": (
        {
            "ollama": {
                "enabled": True,
                "models": ["m"],
                "podDisruptionBudget": {"maxUnavailable": 0},
            },
            "model": {"provider": "ollama", "name": "m"},
        },
        ["ollama.podDisruptionBudget.maxUnavailable is 0", "set at least 1"],
    ),
    "a worker in the midst of a call that counts as hung": (
        {
            "model": {"deadlineSeconds": 90},
            "worker": {"healingPolicy": {"unhealthyWhen": {"noProgressFor": "1m30s"}}},
        },
        ["noProgressFor (1m30s) is not longer than model.deadlineSeconds (90)", "leave it null"],
    ),
    "a policy for which nothing is broken": (
        {
            "worker": {
                "healingPolicy": {
                    "unhealthyWhen": {
                        "noProgressFor": "",
                        "waitingReasons": [],
                        "terminatingFor": None,
                    }
                }
            }
        },
        [
            "worker.healingPolicy.unhealthyWhen is empty",
            "set one of noProgressFor, waitingReasons",
            "or worker.healingPolicy.enabled=false",
        ],
    ),
    "a policy that restarts too often": (
        {"worker": {"healingPolicy": {"restart": {"backoff": "1s"}}}},
        ["worker.healingPolicy.restart.backoff is 1s", "5s at least"],
    ),
    "a policy that waits longer than its longest": (
        {"worker": {"healingPolicy": {"restart": {"backoff": "1m", "maxBackoff": "30s"}}}},
        ["worker.healingPolicy.restart.backoff (1m) is longer than maxBackoff (30s)"],
    ),
    "a hung worker with a long grace": (
        {"worker": {"healingPolicy": {"restart": {"gracePeriod": "30s"}}}},
        ["worker.healingPolicy.restart.gracePeriod is 30s", "10s at most"],
    ),
    "a remediator that may hold most of the cluster": (
        {"remediator": {"config": {"limits": {"maxUnavailable": "80%"}}}},
        ["remediator.config.limits.maxUnavailable is 80%", "set at most 50%"],
    ),
    "a rule about a drain": (
        {
            "remediator": {
                "externalConditions": ["Drained"],
                "config": {"rules": [{"condition": "Drained", "action": "observe"}]},
            }
        },
        ["remediator.config.rules[0] is about the condition Drained, which a drain reports"],
    ),
    "a group's rule about a drain": (
        {
            "remediator": {
                "config": {
                    "groups": [
                        {
                            "name": "a",
                            "nodeSelector": {},
                            "rules": [{"condition": "DrainInProgress", "action": "observe"}],
                        }
                    ],
                },
            }
        },
        ["remediator.config.groups[0].rules[0] is about the condition DrainInProgress"],
    ),
    "a verification by a drain": (
        {
            "remediator": {
                "externalConditions": ["Fault"],
                "config": {
                    "rules": [
                        {
                            "condition": "Fault",
                            "action": "drain",
                            "verify": {"condition": {"type": "Drained"}},
                        }
                    ],
                },
            }
        },
        ["remediator.config.rules[0] is about the condition Drained, which a drain reports"],
    ),
    "a taint of another system": (
        {"remediator": {"config": {"taint": {"key": "karpenter.sh/disrupted"}}}},
        ["remediator.config.taint.key is karpenter.sh/disrupted", "set a key of your own domain"],
    ),
    "a taint that keeps no pod away": (
        {
            "remediator": {
                "config": {"taint": {"key": "a/b", "effect": "PreferNoSchedule", "cordon": False}}
            }
        },
        ["remediator.config.taint has effect: PreferNoSchedule with", "set effect: NoSchedule"],
    ),
    "a remediator that can do nothing": (
        {"remediator": {"config": {"limits": {"maxUnavailable": 0, "minAllowed": 0}}}},
        ["it could never act", "set minAllowed to at least 1"],
    ),
    "a rule on a condition that nothing sets": (
        {"remediator": {"config": {"rules": [{"condition": "Foo", "action": "cordon"}]}}},
        [
            "remediator.config.rules[0] is about the condition Foo, which nothing sets",
            "KernelDeadlock, ReadonlyFilesystem",
            "nodeProblemDetector.customPlugins",
            "remediator.externalConditions",
        ],
    ),
    "a limit of groups that are not named": (
        {"remediator": {"config": {"limits": {"maxUnavailablePerGroup": 1}}}},
        [
            "remediator.config.limits.maxUnavailablePerGroup is set and groupLabel is empty",
            "set remediator.config.limits.groupLabel",
        ],
    ),
    "rollouts that may not stand still at all": (
        {"remediator": {"config": {"policies": {"rolloutDeadline": "500ms"}}}},
        ["remediator.config.policies.rolloutDeadline is 500ms", "1s at least"],
    ),
    "drains that are past their deadline at once": (
        {"remediator": {"config": {"drain": {"deadline": "0s"}}}},
        ["remediator.config.drain.deadline is 0s", "1s at least"],
    ),
    "steps after a drain that never comes": (
        {"remediator": {"config": {"rules": [_observing("then", [{"wait": "1m"}])]}}},
        ["rules[0] (Ready) has `then` with action: observe", "set action: drain"],
    ),
    "the verification of an uncordon that never comes": (
        {"remediator": {"config": {"rules": [_observing("verify", {"condition": {"type": "A"}})]}}},
        ["rules[0] (Ready) has `verify` with action: observe", "drain or cordon"],
    ),
    "a group's steps after a drain that never comes": (
        _grouped(_observing("then", [{"wait": "1m"}])),
        ["groups[0].rules[0] (Ready) has `then` with action: observe", "set action: drain"],
    ),
    "a group's verification of an uncordon that never comes": (
        _grouped(_observing("verify", {"condition": {"type": "A"}})),
        ["groups[0].rules[0] (Ready) has `verify` with action: observe", "drain or cordon"],
    ),
    "pods that are deleted and never evicted": (
        {"remediator": {"config": {"drain": {"deadline": "59s", "onDeadline": "delete"}}}},
        ["remediator.config.drain.deadline is 59s with onDeadline: delete", "1m at least"],
    ),
    "a wave of no length": (
        {"remediator": {"config": {"signal": {"window": "0s"}}}},
        ["remediator.config.signal.window is 0s", "signal.enabled=false"],
    ),
    "flaps that are never counted": (
        {"remediator": {"config": {"recovery": {"flapWindow": "0s"}}}},
        ["remediator.config.recovery.flapWindow is 0s", "1s at least"],
    ),
    "an uncordon by a person that counts for no time": (
        {"remediator": {"config": {"recovery": {"cancelFor": "0s"}}}},
        ["remediator.config.recovery.cancelFor is 0s", "1m at least"],
    ),
    "a rate of no time": (
        {"remediator": {"config": {"limits": {"rate": {"count": 1, "window": "0s"}}}}},
        ["remediator.config.limits.rate.window is 0s", "1s at least"],
    ),
    "pods that may take too long to answer": (
        {"remediator": {"config": {"policies": {"progressTimeout": "45s"}}}},
        ["remediator.config.policies.progressTimeout is 45s", "30s at most"],
    ),
    "a leader that is renewed too late": (
        {"remediator": {"config": {"lease": {"renewInterval": "20s"}}}},
        ["renewInterval 20s, renewDeadline 10s and duration 15s", "shorter than the next"],
    ),
    "a leader for less than a second": (
        {
            "remediator": {
                "config": {
                    "lease": {
                        "renewInterval": "100ms",
                        "renewDeadline": "200ms",
                        "duration": "500ms",
                    }
                }
            }
        },
        ["remediator.config.lease", "1s at least"],
    ),
    "two rules on one thing": (
        {
            "remediator": {
                "config": {
                    "rules": [
                        {"condition": "Ready", "status": ["False", "Unknown"], "action": "cordon"},
                        {"condition": "KernelDeadlock", "action": "drain"},
                        {"condition": "Ready", "status": ["Unknown"], "action": "drain"},
                        {"condition": "Ready", "status": ["True"], "action": "observe"},
                        {
                            "condition": "Ready",
                            "status": ["Unknown"],
                            "reason": "NodeStatusUnknown",
                            "action": "drain",
                        },
                    ]
                }
            }
        },
        ["remediator.config.rules[0] and rules[2] are both about Ready=Unknown", "keep one"],
    ),
    "a heartbeat that is always too old": (
        {
            "nodeProblemDetector": {"heartbeatPeriod": "20m"},
            "remediator": {
                "config": {
                    "rules": [
                        {"condition": "KernelDeadlock", "action": "drain"},
                        {"condition": "ReadonlyFilesystem", "action": "drain", "heartbeat": "1h"},
                        {"condition": "Ready", "status": ["False"], "action": "cordon"},
                    ]
                }
            },
        },
        ["nodeProblemDetector.heartbeatPeriod (20m)", "KernelDeadlock", "heartbeat"],
    ),
    "an authority in two places": (
        {"model": {"ca": {"existingSecret": "a", "existingConfigMap": "b"}}},
        ["model.ca.existingSecret is a", "model.ca.existingConfigMap is b", "set one of the two"],
    ),
    "an authority given twice": (
        {
            "model": {"ca": {"existingSecret": "a"}},
            "worker": {"extraEnv": [{"name": "SSL_CERT_FILE", "value": "/x"}]},
        },
        ["worker.extraEnv sets SSL_CERT_FILE, which is set already"],
    ),
    "a detector that monitors nothing": (
        {
            "nodeProblemDetector": {
                "systemLogMonitors": {"kernel-monitor": None, "readonly-monitor": None}
            },
            "remediator": {"enabled": False},
        },
        ["has no monitors", "nodeProblemDetector.enabled=false"],
    ),
    "a plugin with a monitor's name": (
        {
            "nodeProblemDetector": {
                "customPlugins": {
                    "kernel-monitor": {
                        "config": {"plugin": "custom", "source": "x", "rules": []},
                    }
                }
            }
        },
        ["customPlugins.kernel-monitor has the name of one of systemLogMonitors"],
    ),
    "a plugin without its script": (
        {
            "nodeProblemDetector": {
                "customPlugins": {
                    "clock": {
                        "config": {
                            "plugin": "custom",
                            "source": "clock",
                            "rules": [
                                {
                                    "type": "temporary",
                                    "reason": "ClockIsWrong",
                                    "path": "/plugins/clock/chek.sh",
                                }
                            ],
                        },
                        "scripts": {"check.sh": "exit 0"},
                    }
                }
            }
        },
        ["runs /plugins/clock/chek.sh", "scripts have no chek.sh"],
    ),
}


@pytest.fixture(scope="module")
def helms(helm: Helm, request: pytest.FixtureRequest) -> list[Helm]:
    """Helm 4, at full length Helm 3 too; they have begun to render them all."""
    found = [helm]
    if LONG:
        found.append(request.getfixturevalue("helm3"))
    for each in found:
        each.ahead(Rendering.of(values) for values, _ in GUARDS.values())
    return found


@pytest.mark.parametrize("name", GUARDS)
def test_refuses(helms: list[Helm], name: str) -> None:
    values, said = GUARDS[name]
    for helm in helms:
        message = helm.refusal(values=values)
        problems = [line for line in message.splitlines() if line.startswith("  * ")]
        assert len(problems) == 1, message
        for words in said:
            assert words in problems[0]


def test_says_all_that_is_wrong_at_once(helm: Helm, helm3: Helm) -> None:
    for each in (helm, helm3):
        message = each.refusal(
            "autoscaling.minReplicas=9",
            "model.provider=ollama",
            "remediator.podDisruptionBudget.maxUnavailable=0",
        )
        assert message.count("  * ") == 4


def test_a_part_that_is_off_is_not_checked(helm: Helm) -> None:
    """A second release of the healing alone need not say anything about brokers and models."""
    helm.template("worker.enabled=false", "rabbitmq.enabled=false", "model.provider=ollama")
