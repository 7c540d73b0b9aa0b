"""The taint as a setting: what is refused, and with which words."""

from typing import Any

import pytest
import yaml

from selfheal_remediator.config import Config, SettingsError, parse_config
from selfheal_remediator.node.selection import FOREIGN_TAINTS
from selfheal_remediator.node.taints import how_cordoned
from tests.pure.remediator.builders import node


def parsed(**taint: Any) -> Config:
    return parse_config(yaml.safe_dump({"taint": {"key": "example.com/bad", **taint}}), "here.yaml")


def test_without_it_there_is_none() -> None:
    assert Config().taint is None


@pytest.mark.parametrize(
    ("taint", "how"),
    [
        ({}, "cordoned, with the taint example.com/bad:NoSchedule"),
        ({"value": "yes", "cordon": False}, "cordoned by taint example.com/bad=yes:NoSchedule"),
        (
            {"key": f"{'a.' * 126}a/{'b' * 63}"},
            f"cordoned, with the taint {'a.' * 126}a/{'b' * 63}:NoSchedule",
        ),
        (
            {"key": "Bad_1.x", "effect": "PreferNoSchedule"},
            "cordoned, with the taint Bad_1.x:PreferNoSchedule",
        ),
    ],
)
def test_it_decides_how_nodes_are_cordoned(taint: dict[str, Any], how: str) -> None:
    assert how_cordoned(node("n"), parsed(**taint).taint) == how


@pytest.mark.parametrize(
    ("taint", "problem"),
    [
        ({"effect": "NoExecute"}, "taint.effect: NoExecute deletes pods without regard to PodDisr"),
        ({"effect": "Never"}, "taint.effect: Input should be 'NoSchedule' or 'PreferNoSchedule'"),
        ({"effect": "PreferNoSchedule", "cordon": False}, "taint: effect: PreferNoSchedule with"),
        ({"key": ""}, "taint.key: '' is not the key of a taint"),
        ({"key": "a/b/c"}, "taint.key: 'a/b/c' is not the key of a taint"),
        ({"key": "-a"}, "taint.key: '-a' is not the key of a taint"),
        ({"key": "A.example/b"}, "is not the key of a taint, such as example.com/cordoned"),
        ({"key": "a" * 64}, "is not the key of a taint"),
        ({"key": f"{'a' * 254}/b"}, "at most 253 characters and '/'"),
        ({"key": "node.kubernetes.io/unschedulable"}, "belongs to another system"),
        ({"key": "kubernetes.io/x"}, "belongs to another system: choose a key of your own domain"),
        ({"value": "a b"}, "taint.value: 'a b' is not the value of a taint"),
        ({"until": "1h"}, "taint.until: unknown key"),
    ],
)
def test_what_is_refused_says_why(taint: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parsed(**taint)
    assert any(problem in one for one in caught.value.problems), caught.value.problems


@pytest.mark.parametrize("key", [key for key, _ in FOREIGN_TAINTS])
def test_by_no_taint_of_ours_a_node_counts_as_changed_by_another_system(key: str) -> None:
    with pytest.raises(SettingsError, match="belongs to another system"):
        parsed(key=f"{key}x" if key.endswith("/") else key)
