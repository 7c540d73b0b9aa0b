"""The policies by which workers and model servers heal."""

from __future__ import annotations

import pytest

from tests.chart.rendering import CHART, Helm, Manifest, by_kind, containers, environment

OLLAMA = CHART / "ci" / "ollama-values.yaml"


def _policies(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {name: m["spec"] for name, m in by_kind(manifests, "HealingPolicy").items()}


@pytest.mark.parametrize("component", ["worker", "ollama"])
def test_a_policy_takes_the_pods_of_its_deployment_and_no_others(
    helm: Helm, component: str
) -> None:
    manifests = helm.template(files=[OLLAMA])
    selector = _policies(manifests)[f"selfheal-{component}"]["selector"]["matchLabels"]
    taken = [
        name
        for name, deployment in by_kind(manifests, "Deployment").items()
        if selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert taken == [f"selfheal-{component}"]


def test_a_worker_is_judged_by_its_progress_and_never_by_its_readiness(helm: Helm) -> None:
    policy = _policies(helm.case("default"))["selfheal-worker"]
    assert policy["unhealthyWhen"].keys() == {"noProgressFor", "waitingReasons", "terminatingFor"}
    key = "worker.healingPolicy.unhealthyWhen.notReadyFor"
    assert "notReadyFor" in helm.refusal(f"{key}=5m")


def test_progress_is_asked_at_a_port_that_the_worker_has(helm: Helm) -> None:
    manifests = helm.case("default")
    progress = _policies(manifests)["selfheal-worker"]["progress"]
    [worker] = containers(by_kind(manifests, "Deployment")["selfheal-worker"]["spec"]["template"])
    assert progress["port"] in {port["name"] for port in worker["ports"]}
    assert progress["path"] == "/progress"


@pytest.mark.parametrize(
    ("deadline", "no_progress_for"), [("60", "120s"), ("0.5", "61s"), ("600", "660s")]
)
def test_a_call_may_take_its_deadline_before_a_worker_counts_as_hung(
    helm: Helm, deadline: str, no_progress_for: str
) -> None:
    """Its own liveness probe, which finds a hung call 35 s after the deadline, is first."""
    policy = _policies(helm.template(f"model.deadlineSeconds={deadline}"))["selfheal-worker"]
    assert policy["unhealthyWhen"]["noProgressFor"] == no_progress_for


def test_progress_need_not_be_asked(helm: Helm) -> None:
    policy = _policies(helm.template("worker.healingPolicy.unhealthyWhen.noProgressFor="))
    assert "progress" not in policy["selfheal-worker"]
    assert "noProgressFor" not in policy["selfheal-worker"]["unhealthyWhen"]


def test_a_model_server_is_judged_by_its_readiness_once_it_has_loaded(helm: Helm) -> None:
    policy = _policies(helm.template(files=[OLLAMA]))["selfheal-ollama"]
    assert policy["unhealthyWhen"]["notReadyFor"] == "5m"
    assert "progress" not in policy


@pytest.mark.parametrize(
    ("sets", "made"),
    [
        ([], {"selfheal-worker", "selfheal-ollama"}),
        (["healingPolicies.enabled=false"], set()),
        (["worker.healingPolicy.enabled=false"], {"selfheal-ollama"}),
        (["ollama.healingPolicy.enabled=false"], {"selfheal-worker"}),
        (["worker.enabled=false"], {"selfheal-ollama"}),
        # The remediator of another release manages the policies of this one.
        (["remediator.enabled=false"], {"selfheal-worker", "selfheal-ollama"}),
    ],
)
def test_which_policies_are_made(helm: Helm, sets: list[str], made: set[str]) -> None:
    assert _policies(helm.template(*sets, files=[OLLAMA])).keys() == made


def test_the_type_comes_with_the_chart_and_is_no_part_of_the_release(helm: Helm) -> None:
    """So an uninstall leaves it, and the policies of other releases, where they are."""
    kind = "CustomResourceDefinition"
    assert by_kind(helm.case("default"), kind) == {}
    with_types = by_kind(helm.case("default", flags=["--include-crds"]), kind)
    assert with_types.keys() == {"healingpolicies.selfheal.dev"}


def test_calls_hang_on_demand_only_when_values_say_so(helm: Helm) -> None:
    for sets, file in [((), None), (("faults.modelHangFile=/tmp/hang",), "/tmp/hang")]:
        worker = by_kind(helm.template(*sets), "Deployment")["selfheal-worker"]
        [container] = containers(worker["spec"]["template"])
        assert environment(container).get("FAULT_MODEL_HANG_FILE") == file
