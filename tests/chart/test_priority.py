"""On a full cluster the workers make room for what they cannot work without."""

from __future__ import annotations

import pytest

from tests.chart.rendering import Helm, Manifest, by_kind, pod_specs


def ranks(manifests: list[Manifest]) -> dict[str, str | None]:
    """The priority class of each component's pods."""
    return {
        owner["metadata"]["labels"]["app.kubernetes.io/component"]: spec.get("priorityClassName")
        for owner, spec in pod_specs(manifests)
    }


def test_only_the_workers_rank_below_what_has_no_class(helm: Helm) -> None:
    manifests = helm.case("ollama")
    [(name, made)] = by_kind(manifests, "PriorityClass").items()
    assert made["value"] == -1
    assert not made.get("globalDefault")
    assert {part: rank for part, rank in ranks(manifests).items() if rank} == {"worker": name}
    assert {"rabbitmq", "ollama", "topology", "remediator"} < ranks(manifests).keys()


def test_a_class_belongs_to_one_release_and_has_one_value(helm: Helm) -> None:
    """It is the whole cluster's, and Kubernetes never changes the value of one."""

    def name(*sets: str, release: str = "selfheal", namespace: str = "selfheal") -> str:
        manifests = helm.template(*sets, release=release, flags=[f"--namespace={namespace}"])
        [made] = by_kind(manifests, "PriorityClass")
        assert ranks(manifests)["worker"] == made
        return made

    names = [
        name(),
        name(release="tickets"),
        name(namespace="other"),
        name("worker.priorityClass.value=-2"),
        name("worker.priorityClass.value=-10"),
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("sets", "rank"),
    [
        (["worker.priorityClassName=batch"], "batch"),
        (["worker.priorityClassName=batch", "worker.priorityClass.value=7"], "batch"),
        (["worker.priorityClass.create=false"], None),
        (["worker.priorityClass.create=false", "worker.priorityClassName=batch"], "batch"),
    ],
)
def test_none_is_made_where_there_is_another_or_none_is_wanted(
    helm: Helm, sets: list[str], rank: str | None
) -> None:
    manifests = helm.template(*sets)
    assert by_kind(manifests, "PriorityClass") == {}
    assert ranks(manifests)["worker"] == rank


def test_without_workers_there_is_none(helm: Helm) -> None:
    assert by_kind(helm.case("remediator-only"), "PriorityClass") == {}


def test_whoever_has_a_namespace_alone_makes_objects_in_it_alone(helm: Helm) -> None:
    for manifest in helm.case("namespaced"):
        assert manifest["metadata"]["namespace"] == "selfheal", manifest["kind"]
