"""Every mistake in the file is named at once, with its path and what is allowed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.config import (
    Config,
    SettingsError,
    load_config,
    parse_config,
)
from selfheal_remediator.environment import Environment
from selfheal_remediator.quantities import parse_amount, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1h30m", 5400), ("250ms", 0.25), (5, 5), ("0", 0), ("0s", 0), ("1d", 86400)],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["5x", "", "m5", "-1s", "5 m 3", True, None, -1, "1s2"])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@given(st.integers(0, 100), st.integers(0, 10_000))
def test_a_percentage_is_of_the_population_rounded_down(percent: int, population: int) -> None:
    assert parse_amount(f"{percent}%").of(population) == population * percent // 100


def test_all_mistakes_at_once() -> None:
    text = """
mode: enforced
surprise: 1
rules:
  - {condition: A, for: 1x, action: drains, colour: red}
  - {action: drain}
limits: {maxUnavailable: "110%"}
lease: {duration: 3s}
drain: {gracePeriod: 0}
"""
    with pytest.raises(SettingsError) as caught:
        parse_config(text, "here.yaml")
    problems = "\n".join(caught.value.problems)
    for piece in (
        "mode: Input should be 'enforce' or 'dryRun'",
        "surprise: unknown key",
        "rules[0].for: '1x' is not a duration",
        "rules[0].action: Input should be",
        "rules[0].colour: unknown key",
        "rules[1].condition: Field required",
        "limits.maxUnavailable: '110%' is over 100%",
        "lease: renewInterval < renewDeadline < duration",
        "drain.gracePeriod",
    ):
        assert piece in problems
    assert str(caught.value).startswith("here.yaml")


def test_rules_that_contradict() -> None:
    text = """
rules:
  - {condition: A, action: drain}
  - {condition: A, status: ["True", "Unknown"], action: cordon}
"""
    with pytest.raises(SettingsError, match="contradict"):
        parse_config(text, "f")


@pytest.mark.parametrize("text", ["[1]", "a: [", "just words"])
def test_what_is_no_mapping(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_config(text, "f")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")


def test_an_empty_file_is_the_defaults() -> None:
    assert parse_config("", "f") == Config()
    conditions = {rule.condition: rule for rule in Config().rules}
    assert conditions["KernelDeadlock"].latched
    assert conditions["Ready"].action == "cordon"


def test_an_unquoted_true_is_a_status() -> None:
    (rule,) = parse_config("rules: [{condition: A, status: [True], action: cordon}]", "f").rules
    assert rule.status == ("True",)


def test_the_heartbeat_of_kubelets_conditions_is_not_checked_unless_asked() -> None:
    text = "rules: [{condition: Ready, status: [Unknown], action: cordon, heartbeat: 1m}]"
    assert parse_config(text, "f").rules[0].max_heartbeat_age == 60
    text = "rules: [{condition: Ready, status: [Unknown], action: cordon}]"
    assert parse_config(text, "f").rules[0].max_heartbeat_age is None
    text = "rules: [{condition: Kernel, action: cordon}]"
    assert parse_config(text, "f").rules[0].max_heartbeat_age == 660


def test_wrong_variables_are_all_named() -> None:
    with pytest.raises(SettingsError) as caught:
        Environment.read({"HTTP_PORT": "http", "LOG_LEVEL": "loud", "LOG_FORMAT": "xml"})
    assert [line.split(":")[0] for line in caught.value.problems] == [
        "HTTP_PORT",
        "LOG_LEVEL",
        "LOG_FORMAT",
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("mode: !!bool x", "mode: !!int ''", "mode: !!float x", "mode: !!timestamp x"),
        *("mode: !!python/object:os.system x", "mode: !!binary é", "a: 2026-13-01"),
        *("nodeSelector: &a {b: *a}", "rules: &a [*a]", "mode:\tx\n\ty", "mode: \0"),
        *(
            "recovery: {stabilizationWindow: .nan}",
            "recovery: {stabilizationWindow: .inf}",
            "? [a]\n: b",
        ),
    ],
)
def test_whatever_yaml_makes_of_it_is_a_settings_error(text: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_config(text, "the file")
    assert str(raised.value).startswith("the file: ")
    assert raised.value.problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nodeSelector: {a b: c}", "nodeSelector: 'a b' is not the key of a label; allowed are"),
        ("nodeSelector: {a: b c}", "nodeSelector: 'b c' is not the value of a label; allowed"),
        ("excludeNodeSelector: {/a: b}", "excludeNodeSelector: '/a' is not the key of a label"),
        ("limits: {groupLabel: a/}", "limits.groupLabel: 'a/' is not the key of a label"),
        ("policies: {namespaces: [A]}", "policies.namespaces[0]: 'A' is not the name of a namesp"),
        (
            "policies: {namespaces: ['']}",
            "policies.namespaces[0]: '' is not the name of a namespace",
        ),
        ("lease: {name: ''}", "lease.name: '' is not the name of an object; allowed is"),
        ("lease: {name: a..b}", "lease.name: 'a..b' is not the name of an object; allowed is"),
        ("lease: {namespace: a.b}", "lease.namespace: 'a.b' is not the name of a namespace"),
        ("restore: {configMap: -a}", "restore.configMap: '-a' is not the name of an object"),
        (
            "groups: [{name: a, nodeSelector: {matchLabels: {é: b}}}]",
            "groups[0].nodeSelector.matchLabels (group a): 'é' is not the key of a label",
        ),
        (
            "groups: [{name: a, nodeSelector: {matchExpressions: [{key: '', operator: Exists}]}}]",
            "groups[0].nodeSelector.matchExpressions[0].key (group a): '' is not the key of a",
        ),
    ],
)
def test_a_name_that_kubernetes_refuses_is_refused_with_what_is_allowed(
    text: str, problem: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_config(text, "f")
    assert [one for one in raised.value.problems if one.startswith(problem)], raised.value.problems


@pytest.mark.parametrize(
    "text",
    [
        f"nodeSelector: {{{'a.' * 126}a/{'B' * 63}: {'c' * 63}}}",
        'nodeSelector: {node-role.kubernetes.io/worker: ""}',
        f"lease: {{name: {'a.' * 126}a, namespace: {'b' * 63}}}",
    ],
)
def test_the_longest_names_of_kubernetes_are_taken(text: str) -> None:
    parse_config(text, "f")


@pytest.mark.parametrize("text", ["10001d", "9" * 400 + "d", "999999999999h", 1e300])
def test_a_duration_beyond_all_dates_is_refused(text: object) -> None:
    """It would end the process when its end is reported: `observeFirst: 9999999d`, say."""
    with pytest.raises(ValueError, match="at most 10000d"):
        parse_duration(text)
    assert parse_duration("10000d") == 864_000_000


@pytest.mark.parametrize("port", ["\u00b2", "\u0661", "9" * 5000, "-1", ""])
def test_what_is_no_port_is_reported(port: str) -> None:
    with pytest.raises(SettingsError, match="is not a port"):
        Environment.read({"HTTP_PORT": port})


@pytest.mark.parametrize("text", ["0", "0s", "1ms", "49ms"])
def test_a_lease_that_is_renewed_without_a_pause_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="renewInterval must be at least 50ms"):
        parse_config(f"lease: {{renewInterval: {text}}}", "file")


@pytest.mark.parametrize("action", ["wait", "report", "delete"])
@pytest.mark.parametrize("text", ["0", "0s", "0.0", "1ms", "999ms"])
def test_a_drain_has_time_before_its_deadline(text: str, action: str) -> None:
    with pytest.raises(SettingsError, match="drain: deadline must be at least 1s, got 0"):
        parse_config(f"drain: {{deadline: {text}, onDeadline: {action}}}", "file")


@pytest.mark.parametrize("text", ["1s", "59s", "59.9"])
def test_no_pod_is_deleted_that_had_no_time_to_be_evicted(text: str) -> None:
    with pytest.raises(SettingsError, match="onDeadline: delete must be at least 1m"):
        parse_config(f"drain: {{deadline: {text}, onDeadline: delete}}", "file")
    assert parse_config(f"drain: {{deadline: {text}}}", "file").drain.on_deadline == "wait"
    parse_config("drain: {deadline: 60s, onDeadline: delete}", "file")


@pytest.mark.parametrize("text", ["0", "0s", "1ms"])
@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        ("limits: {{rate: {{count: 1, window: {0}}}}}", "limits.rate: window must be at least 1s"),
        ("signal: {{window: {0}}}", "signal: window must be at least 1s"),
        ("recovery: {{flapWindow: {0}}}", "recovery: flapWindow must be at least 1s"),
        ("recovery: {{cancelFor: {0}}}", "recovery: cancelFor must be at least 1m"),
    ],
)
def test_a_protection_is_not_switched_off_by_a_time_of_0(
    layout: str, problem: str, text: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        parse_config(layout.format(text), "file")


def test_without_a_wave_check_its_window_does_not_matter() -> None:
    assert not parse_config("signal: {enabled: false, window: 0}", "file").signal.enabled


@pytest.mark.parametrize(
    "text",
    [
        *("observeFirst: 0s", "limits: {minInterval: 0s}", "signal: {rolloutWindow: 0s}"),
        "recovery: {stabilizationWindow: 0s, resetStabilizationWindow: 0s}",
        "rules: [{condition: A, action: drain, for: 0s}]",
    ],
)
def test_where_0_means_at_once_it_is_allowed(text: str) -> None:
    parse_config(text, "file")


@pytest.mark.parametrize(
    "text", ["kruise.io/v1/DaemonSet", "apps/daemonset", "/Job", "", "1", "A b"]
)
def test_a_kind_of_owner_that_is_none_is_named(text: str) -> None:
    kinds = f"{{keepOwners: [apps.kruise.io/DaemonSet, ReplicationController, '{text}']}}"
    with pytest.raises(
        SettingsError, match=r"drain\.keepOwners\[2\]: .*API group and kind"
    ) as error:
        parse_config(f"drain: {kinds}", "f")
    assert len(error.value.problems) == 1
