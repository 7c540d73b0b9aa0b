"""Named models, fallbacks and tasks: what the worker gets, and what a change touches."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from selfheal_worker.task import task_file
from tests.chart.rendering import CHART, Helm, by_kind, containers, environment

MODELS = CHART / "ci" / "models-values.yaml"
TASK = CHART / "ci" / "task-values.yaml"


def _worker(objects: Any) -> dict[str, Any]:
    found: dict[str, Any] = by_kind(objects, "Deployment")["selfheal-worker"]
    return found


def _environment(objects: Any) -> dict[str, Any]:
    [container] = containers(_worker(objects)["spec"]["template"])
    return environment(container)


def test_named_models_reach_the_worker_without_their_secrets(helm: Helm) -> None:
    environment = _environment(helm.template(files=[MODELS]))
    assert (environment["MODEL_ACTIVE"], environment["MODEL_FALLBACK"]) == (
        "small",
        "larger,builtin",
    )
    models = json.loads(environment["MODELS"])
    assert models["small"]["baseUrl"] == "http://selfheal-ollama:11434"
    assert models["larger"]["requestsPerMinute"] == 120
    assert "existingSecret" not in environment["MODELS"]
    assert "MODEL_API_KEY_LARGER" in environment


def test_a_swap_of_the_active_model_changes_the_worker_alone(helm: Helm) -> None:
    before = by_kind(helm.template(files=[MODELS]), "Deployment")
    after = by_kind(
        helm.template("model.active=larger", "model.fallback={builtin}", files=[MODELS]),
        "Deployment",
    )
    assert {name for name in before if before[name] != after[name]} == {"selfheal-worker"}


def test_a_task_is_a_file_that_the_worker_can_read(helm: Helm) -> None:
    objects = helm.template(files=[TASK])
    file = by_kind(objects, "ConfigMap")["selfheal-worker-task"]["data"]["task.yaml"]
    assert task_file.parse(file.encode(), "task.yaml").name == "ticket-triage"
    template = _worker(objects)["spec"]["template"]
    [container] = containers(template)
    assert environment(container)["TASK_FILE"] == "/etc/selfheal/task/task.yaml"
    assert {"name": "task", "configMap": {"name": "selfheal-worker-task"}} in (
        template["spec"]["volumes"]
    )


def test_another_task_restarts_the_worker(helm: Helm) -> None:
    def annotations(*sets: str) -> Any:
        template = _worker(helm.template(*sets, files=[TASK]))["spec"]["template"]
        return template["metadata"]["annotations"]

    assert annotations() != annotations("task=name: other")


@pytest.mark.parametrize(
    ("sets", "ports"), [((), {443}), (("models.larger.baseUrl=http://m.example:8000/v1",), {8000})]
)
def test_the_worker_may_reach_the_servers_of_all_models(
    helm: Helm, sets: tuple[str, ...], ports: set[int]
) -> None:
    objects = helm.template("networkPolicy.enabled=true", *sets, files=[MODELS])
    [policy] = [
        one for name, one in by_kind(objects, "NetworkPolicy").items() if name.endswith("-worker")
    ]
    to_anywhere = [rule for rule in policy["spec"]["egress"] if "to" not in rule]
    assert {port["port"] for rule in to_anywhere for port in rule["ports"]} == ports


@pytest.mark.parametrize(
    ("case", "prunes"), [("ollama", True), ("gpu", False), ("model-in-image", False)]
)
def test_only_a_server_with_a_volume_of_its_own_prunes(helm: Helm, case: str, prunes: bool) -> None:
    """On a shared one it would remove what another replica is pulling."""
    server = by_kind(helm.case(case), "Deployment")["selfheal-ollama"]
    for container in containers(server["spec"]["template"]):
        assert ("OLLAMA_NOPRUNE" not in environment(container)) == prunes, container["name"]


@pytest.mark.parametrize("before", ["", "\n", "# A note.\n", "---\n"])
@pytest.mark.parametrize("indent", ["", "  ", "    "])
def test_an_indented_task_file_stays_what_it_is(helm: Helm, before: str, indent: str) -> None:
    lines = yaml.safe_load(TASK.read_text(encoding="utf-8"))["task"].splitlines()
    task = before + "".join(f"{indent}{line}\n" for line in lines)
    objects = helm.template(files=[TASK], values={"task": task})
    file = by_kind(objects, "ConfigMap")["selfheal-worker-task"]["data"]["task.yaml"]
    assert file == task
    assert task_file.parse(file.encode(), "task.yaml").name == "ticket-triage"
