"""Quantities, requests as the scheduler sums them, and node selectors."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.kube.placement import node_terms, terms_match
from selfheal_remediator.kube.resources import allocatable, amounts, pod_requests


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("1", 1),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1.5Gi", 3 * 2**29),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("1e3", 1000),
        ("1E3", 1000),
        ("100m", 1),
        ("1500m", 2),
        ("1n", 1),
        ("1u", 1),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_quantities(text: str, bytes_: int) -> None:
    assert amounts({"memory": text}) == {"memory": bytes_}


@given(st.integers(0, 10**15))
def test_millicores_are_exact(milli: int) -> None:
    assert amounts({"cpu": f"{milli}m"}) == {"cpu": milli}
    assert amounts({"cpu": f"{Decimal(milli) / 1000:f}"}) == {"cpu": milli}


def test_what_is_no_quantity() -> None:
    with pytest.raises(ValueError, match="no quantity"):
        amounts({"cpu": "many"})
    assert allocatable({"cpu": "many", "memory": "1"}) == {"cpu": 0, "memory": 1}


def _box(cpu: int, *, sidecar: bool = False) -> dict[str, Any]:
    box: dict[str, Any] = {"resources": {"requests": {"cpu": f"{cpu}m"}}}
    return {**box, "restartPolicy": "Always"} if sidecar else box


@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 500), st.booleans()), max_size=6),
)
def test_requests_are_the_most_that_run_at_once(
    boxes: list[int], steps: list[tuple[int, bool]]
) -> None:
    spec = {
        "containers": [_box(cpu) for cpu in boxes],
        "initContainers": [_box(cpu, sidecar=side) for cpu, side in steps],
    }
    moments = []
    for index, (cpu, _) in enumerate(steps):
        moments.append(cpu + sum(size for size, side in steps[:index] if side))
    moments.append(sum(boxes) + sum(size for size, side in steps if side))
    assert pod_requests(spec)["cpu"] == max(moments)


def test_limits_overhead_and_the_pods_own_resources() -> None:
    limited = {"resources": {"limits": {"nvidia.com/gpu": "8", "ephemeral-storage": "1Gi"}}}
    spec: dict[str, Any] = {"containers": [limited, _box(100)], "overhead": {"cpu": "250m"}}
    assert pod_requests(spec) == {"nvidia.com/gpu": 8, "ephemeral-storage": 2**30, "cpu": 350}
    spec["resources"] = {"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}}
    assert pod_requests(spec)["cpu"] == 2250
    assert pod_requests(spec)["memory"] == 2**30


@pytest.mark.parametrize(
    ("operator", "values", "matches"),
    [
        ("In", ["5", "6"], True),
        ("In", ["6"], False),
        ("NotIn", ["6"], True),
        ("NotIn", ["5"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
        ("Gt", ["4"], True),
        ("Gt", ["5"], False),
        ("Lt", ["6"], True),
        ("Lt", ["x"], False),
        ("Unheard", ["5"], False),
    ],
)
def test_operators(operator: str, values: list[str], matches: bool) -> None:
    item = {"key": "size", "operator": operator, "values": values}
    terms = node_terms({"nodeSelectorTerms": [{"matchExpressions": [item]}]})
    assert terms_match(terms, {"size": "5"}, "n") is matches


def test_terms_are_alternatives_and_an_empty_one_selects_nothing() -> None:
    field = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}
    label = {"matchExpressions": [{"key": "a", "operator": "Exists"}]}
    either = node_terms({"nodeSelectorTerms": [field, label]})
    assert terms_match(either, {}, "n")
    assert terms_match(either, {"a": ""}, "m")
    assert not terms_match(either, {}, "m")
    assert not terms_match(node_terms({"nodeSelectorTerms": [{}]}), {}, "n")
    assert terms_match(None, {}, "n")
