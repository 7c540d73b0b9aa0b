"""Groups of nodes as settings: which group a node is of, and what is refused with which words."""

from typing import Any

import pytest
import yaml

from selfheal_remediator.config import Config, SettingsError, parse_config


def parsed(*groups: dict[str, Any], **more: Any) -> Config:
    return parse_config(yaml.safe_dump({**more, "groups": list(groups)}), "here.yaml")


def group(name: str = "gpu", **more: Any) -> dict[str, Any]:
    return {"name": name, "nodeSelector": {"matchLabels": {"pool": name}}, **more}


def test_a_node_belongs_to_the_first_group_that_matches() -> None:
    tainted = group(
        "all", nodeSelector={"matchExpressions": [{"key": "pool", "operator": "Exists"}]}
    )
    found = parsed(group("gpu"), tainted)
    names = [
        of.name if (of := found.group_of(labels)) else None
        for labels in ({"pool": "gpu"}, {"pool": "web"}, {"zone": "a"})
    ]
    assert names == ["gpu", "all", None]


@pytest.mark.parametrize(
    ("expression", "matching"),
    [
        ({"operator": "In", "values": ["a", "b"]}, [True, False, False]),
        ({"operator": "NotIn", "values": ["a"]}, [False, True, True]),
        ({"operator": "Exists"}, [True, True, False]),
        ({"operator": "DoesNotExist"}, [False, False, True]),
    ],
)
def test_expressions_match_as_the_api_server_matches(
    expression: dict[str, Any], matching: list[bool]
) -> None:
    found = parsed(group(nodeSelector={"matchExpressions": [{"key": "k", **expression}]}))
    labels: list[dict[str, str]] = [{"k": "a"}, {"k": "c"}, {}]
    assert [found.group_of(one) is not None for one in labels] == matching


def test_rules_of_a_group_replace_the_top_level_rules() -> None:
    own = [{"condition": "GpuLost", "for": 0, "action": "drain"}]
    found = parsed(group(rules=own), group("web"))
    assert [rule.condition for rule in found.for_node({"pool": "gpu"}).rules] == ["GpuLost"]
    assert found.for_node({"pool": "web"}).rules == found.rules
    assert found.for_node({}) is found


def test_a_group_that_observes_takes_no_node_out_of_service() -> None:
    found = parsed(group(mode="observe"))
    rules = found.for_node({"pool": "gpu"}).rules
    assert [rule.condition for rule in rules] == [rule.condition for rule in found.rules]
    assert not any(rule.cordons for rule in rules)


def test_limits_of_a_group_restrict_only_by_the_keys_that_are_set() -> None:
    limits = parsed(group(limits={"maxDraining": 2})).groups[0].limits
    assert (limits.max_draining, str(limits.max_unavailable)) == (2, "100%")
    assert limits.keep_schedulable == 0


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"mode": "dryRun"}, "groups[0].mode (group gpu): Input should be 'enforce' or 'observe'"),
        ({"colour": 1}, "groups[0].colour (group gpu): unknown key"),
        (
            {"limits": {"groupLabel": "x"}},
            "groups[0].limits (group gpu): groupLabel: allowed in the top-level",
        ),
        ({"limits": {"maxDraining": -1}}, "groups[0].limits.maxDraining (group gpu): "),
        ({"name": "GPU"}, "groups[0].name (group GPU): String should match pattern"),
        ({"nodeSelector": {"pool": "gpu"}}, "groups[0].nodeSelector.pool (group gpu): unknown key"),
        (
            {
                "nodeSelector": {
                    "matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]
                }
            },
            "groups[0].nodeSelector.matchExpressions[0].operator (group gpu): Input should",
        ),
        (
            {"nodeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "groups[0].nodeSelector.matchExpressions[0] (group gpu): operator In needs values",
        ),
        (
            {
                "rules": [
                    {"condition": "A", "action": "drain"},
                    {"condition": "A", "action": "cordon"},
                ]
            },
            "groups[0].rules[1] and groups[0].rules[0] contradict",
        ),
        (
            {"maintenanceWindows": [{"start": "22:00", "end": "25:00"}]},
            "groups[0].maintenanceWindows[0].end (group gpu): '25:00' is not a time of day",
        ),
        (
            {"outsideWindows": {"cordon": "never"}},
            "groups[0].outsideWindows.cordon (group gpu): Input should be 'allow' or 'wait'",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_what_is_allowed(
    wrong: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        parsed(group(**wrong))
    assert any(problem in line for line in caught.value.problems), caught.value.problems


def test_two_groups_of_one_name_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"groups\[1\].name: groups\[0\] is named gpu too"):
        parsed(group(), group())


@pytest.mark.parametrize("first", [{}, {"matchLabels": {"pool": "gpu"}}])
def test_a_group_that_gets_no_node_is_a_warning(first: dict[str, Any]) -> None:
    selector = {"matchLabels": {"pool": "gpu", "size": "l"}}
    found = parsed(group("first", nodeSelector=first), group("large", nodeSelector=selector))
    (warning,) = found.warnings
    assert warning.startswith("group large gets no node: each that it selects belongs to the group")
    assert not parsed(group("gpu"), group("web")).warnings
