"""KEDA gets what it must know to count the messages, and nothing else scales beside it."""

from __future__ import annotations

import pytest

from tests.chart.rendering import Helm, Manifest, by_kind

EXTERNAL = (
    "rabbitmq.enabled=false",
    "broker.host=b",
    "broker.existingSecret=creds",
    "broker.managementUrl=https://b:15671/rabbit/",
)


def trigger(manifests: list[Manifest]) -> dict[str, str]:
    """The metadata of the one trigger."""
    [scaled] = by_kind(manifests, "ScaledObject").values()
    [only] = scaled["spec"]["triggers"]
    assert only["type"] == "rabbitmq"
    assert only["authenticationRef"] == {"name": "selfheal-worker"}
    metadata: dict[str, str] = only["metadata"]
    return metadata


def parameters(manifests: list[Manifest]) -> dict[str, tuple[str, str]]:
    """What KEDA reads from secrets: parameter → (secret, key)."""
    [auth] = by_kind(manifests, "TriggerAuthentication").values()
    references = auth["spec"]["secretTargetRef"]
    return {r["parameter"]: (r["name"], r["key"]) for r in references}


def test_counts_by_the_management_api_so_that_messages_in_work_count(helm: Helm) -> None:
    assert trigger(helm.case("default")) == {
        "protocol": "http",
        "host": "http://selfheal-rabbitmq.selfheal.svc:15672/",
        "vhostName": "/",
        "queueName": "feedback",
        "mode": "QueueLength",
        "value": "20",
        "activationValue": "0",
    }


def test_reads_with_the_read_only_user(helm: Helm) -> None:
    assert parameters(helm.case("default")) == {
        "username": ("selfheal-rabbitmq", "monitor-username"),
        "password": ("selfheal-rabbitmq", "monitor-password"),
    }


def test_an_external_broker_keeps_the_path_of_its_url(helm: Helm) -> None:
    manifests = helm.template(*EXTERNAL)
    assert trigger(manifests)["host"] == "https://b:15671/rabbit/"
    assert parameters(manifests) == {
        "username": ("creds", "username"),
        "password": ("creds", "password"),
    }


def test_keda_gets_a_certificate_authority_of_ones_own(helm: Helm) -> None:
    tls = ("broker.tls.enabled=true", "broker.tls.existingSecret=certs")
    manifests = helm.template(*EXTERNAL, *tls)
    told = parameters(manifests)
    assert told["ca"] == ("certs", "ca.crt")
    assert told["tls"] == ("selfheal-worker-keda", "tls")
    assert "cert" not in told
    assert by_kind(manifests, "Secret")["selfheal-worker-keda"]["stringData"] == {"tls": "enable"}
    client = ("broker.tls.certKey=tls.crt", "broker.tls.keyKey=tls.key")
    told = parameters(helm.template(*EXTERNAL, *tls, *client))
    assert (told["cert"], told["key"]) == (("certs", "tls.crt"), ("certs", "tls.key"))


def test_the_fallback_and_the_pause_are_values(helm: Helm) -> None:
    [scaled] = by_kind(helm.case("default"), "ScaledObject").values()
    assert scaled["spec"]["fallback"] == {
        "failureThreshold": 3,
        "replicas": 1,
        "behavior": "currentReplicasIfHigher",
    }
    assert "annotations" not in scaled["metadata"]
    off = helm.template("autoscaling.keda.fallback.enabled=false", "autoscaling.keda.paused=true")
    [scaled] = by_kind(off, "ScaledObject").values()
    assert "fallback" not in scaled["spec"]
    assert scaled["metadata"]["annotations"] == {"autoscaling.keda.sh/paused": "true"}


def test_polls_only_where_there_may_be_no_worker(helm: Helm) -> None:
    """KEDA warns of settings that do nothing."""
    [zero] = by_kind(helm.case("default"), "ScaledObject").values()
    assert (zero["spec"]["pollingInterval"], zero["spec"]["cooldownPeriod"]) == (10, 120)
    [one] = by_kind(helm.template("autoscaling.minReplicas=1"), "ScaledObject").values()
    assert not {"pollingInterval", "cooldownPeriod"} & one["spec"].keys()


@pytest.mark.parametrize(
    ("flags", "kind"),
    [(["--api-versions=keda.sh/v1alpha1"], "ScaledObject"), ([], "HorizontalPodAutoscaler")],
)
def test_auto_takes_keda_where_it_is(helm: Helm, flags: list[str], kind: str) -> None:
    manifests = helm.template("autoscaling.mode=auto", flags=flags)
    scalers = {m["kind"] for m in manifests if "scaleTargetRef" in m.get("spec", {})}
    assert scalers == {kind}


def test_auto_without_keda_never_goes_to_zero(helm: Helm) -> None:
    [scaler] = by_kind(helm.template("autoscaling.mode=auto"), "HorizontalPodAutoscaler").values()
    assert scaler["spec"]["minReplicas"] == 1


def test_both_autoscalers_have_the_same_manners(helm: Helm) -> None:
    [keda] = by_kind(helm.case("default"), "ScaledObject").values()
    hpa_mode = ("autoscaling.mode=hpa", "autoscaling.minReplicas=1")
    [hpa] = by_kind(helm.template(*hpa_mode), "HorizontalPodAutoscaler").values()
    behavior = keda["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior == hpa["spec"]["behavior"]
