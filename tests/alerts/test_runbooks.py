"""Each alert has a runbook of one form, whose commands the programs understand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from alerts.contract import LABELS
from alerts.rules import ALERTS, Alert
from ci.generated import ROOT as REPOSITORY
from dashboards.boards import BOARDS
from selfheal_remediator.__main__ import parser as remediator_parser
from selfheal_worker.__main__ import parser as worker_parser

RUNBOOKS = sorted((REPOSITORY / "alerts/runbooks").glob("*.md"))
PARSERS = {"worker": worker_parser, "remediator": remediator_parser}
OPERATE = REPOSITORY / "docs/operate.md"
#: Names of others that are written like our Events and conditions.
_THEIRS = {
    *("RabbitMQ", "StatefulSet", "DaemonSet", "ClusterRole", "PodDisruptionBudgets", "MiB"),
    *("CustomResourceDefinition", "HealingPolicy", "ScaledObject", "ReplicaFailure", "OnDelete"),
    *("ImagePullBackOff", "CreateContainerConfigError", "AbleToScale", "ScalingActive"),
}
#: Values of another chart: KEDA's.
_THEIR_VALUES = "prometheus.operator."
HEADINGS = ["Meaning", "Impact", "Look at", "Do", "Silence when"]
every_runbook = pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)


def test_there_is_one_for_each_alert_and_no_other() -> None:
    assert [path.stem for path in RUNBOOKS] == sorted(alert.name for alert in ALERTS)


@every_runbook
def test_it_has_the_form(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"^# (.*)$", text, re.MULTILINE) == [path.stem]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_remediation_begins_with_the_way_to_stop_it(alert: object) -> None:
    path = REPOSITORY / f"alerts/runbooks/{alert.name}.md"  # type: ignore[attr-defined]
    first = path.read_text(encoding="utf-8").splitlines()[0]
    nodes = alert.dashboard == "selfheal-remediation"  # type: ignore[attr-defined]
    assert ("selfheal-remediator pause --why" in first) == nodes


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_it_says_why_a_person_must_act_at_night_or_nobody_is_woken(alert: Alert) -> None:
    text = (REPOSITORY / f"alerts/runbooks/{alert.name}.md").read_text(encoding="utf-8")
    assert bool(alert.night) == (alert.severity == "critical")
    assert re.findall(r"^Why at night: (.*)$", text, re.MULTILINE) == [alert.night] * bool(
        alert.night
    )
    assert not alert.night or re.fullmatch(r"[A-Z][^.]*(?:\d\.\d[^.]*)*\.", alert.night)


@every_runbook
def test_its_commands_are_understood(path: Path) -> None:
    for command in re.findall(r"`([^`]*selfheal-(?:worker|remediator) [^`]*)`", path.read_text()):
        match = re.search(r"(?:^|-- )selfheal-(worker|remediator) (.*)", command)
        assert match, command
        PARSERS[match[1]]().parse_args(shlex.split(match[2]))  # exits when it does not understand


def test_commands_without_their_program_are_understood_too() -> None:
    """`dead-letters …` of a worker; and those of the page for operators."""
    for path in RUNBOOKS:
        for command in re.findall(r"`(dead-letters [^`]*)`", path.read_text(encoding="utf-8")):
            PARSERS["worker"]().parse_args(shlex.split(command))
    text = OPERATE.read_text(encoding="utf-8")
    found = re.findall(r"selfheal-(worker|remediator) ((?:-?[a-z]|\w+)[^`\n]*)", _commands(text))
    assert len(found) > 10
    for program, arguments in found:
        PARSERS[program]().parse_args(shlex.split(arguments))


def _commands(page: str) -> str:
    """What a page has in blocks and between backticks, a line each, without lists of choices."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    ticks = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", page, flags=re.M | re.S))
    return "\n".join([*blocks, *(one for one in ticks if "|" not in one)])


@pytest.mark.parametrize("path", [*RUNBOOKS, OPERATE], ids=lambda path: path.stem)
def test_the_events_conditions_and_annotations_that_it_names_exist(path: Path) -> None:
    package = REPOSITORY / "remediator/selfheal_remediator"
    source = "".join(one.read_text(encoding="utf-8") for one in package.rglob("*.py"))
    text = path.read_text(encoding="utf-8")
    alerts = {alert.name for alert in ALERTS}
    for name in set(re.findall(r"\b[A-Z][a-z0-9]+(?:[A-Z][a-z0-9]*)+\b", text)) - _THEIRS:
        assert name in alerts or f'"{name}"' in source, name
    for name in re.findall(r"\bselfheal\.dev/[a-z-]*[a-z]", text):
        assert f'"{name}"' in source, name


@every_runbook
def test_the_dashboards_and_components_that_it_names_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    titles = {board.title.removeprefix("selfheal / ") for board in BOARDS}
    assert set(re.findall(r"the dashboard (\w+)", text)) <= titles
    components = set(re.findall(r"app\.kubernetes\.io/component=([\w-]+)", text))
    assert components <= {
        folder.name for folder in (REPOSITORY / "chart/templates").iterdir() if folder.is_dir()
    }


@pytest.mark.parametrize(
    ("alert", "metric"),
    [
        ("SelfhealDrainBlocked", "selfheal_remediator_drain_blocked_pods"),
        ("SelfhealLimitReached", "selfheal_remediator_limited_nodes"),
        ("SelfhealDeadLettersGrowing", "selfheal_worker_dead_letters"),
    ],
)
def test_what_to_do_is_said_for_each_value_that_the_alert_can_name(alert: str, metric: str) -> None:
    [(label, values)] = [(key[1], said) for key, said in LABELS.items() if key[0] == metric]
    [expr] = [one.expr for one in ALERTS if one.name == alert]
    assert f"by ({label})" in expr
    left_out = re.findall(rf'{label}!~"([^"]*)"', expr)
    possible = {value for value in values if value not in "|".join(left_out).split("|")}
    text = (REPOSITORY / f"alerts/runbooks/{alert}.md").read_text(encoding="utf-8")
    steps = re.findall(r"^\d\. (.*)$", text, re.MULTILINE)
    assert {name for step in steps for name in re.findall(r"`([\w-]+)`", step)} >= possible


@every_runbook
def test_it_says_for_which_time_or_number_the_alert_waits_as_the_alert_does(path: Path) -> None:
    """Of those that say one."""
    [alert] = [alert for alert in ALERTS if alert.name == path.stem]
    text = path.read_text(encoding="utf-8")
    meaning = text[text.index("## Meaning") : text.index("## Impact")]
    units = {"m": "minute", "h": "hour"}
    known = {f"{n} {units[unit]}" for n, unit in re.findall(r"\b(\d+)([mh])\b", alert.for_)}
    known |= {f"{n} {units[unit]}" for n, unit in re.findall(r"\[(\d+)([mh])\]", alert.expr)}
    for said in re.findall(r"\bfor (\d+ (?:minute|hour))s?\b|within (\d+ minute)s", meaning):
        assert "%" in alert.for_ or {*said} - {""} <= known, said


IN_A_WORKER = [path for path in RUNBOOKS if "exec deploy/RELEASE-worker" in path.read_text()]


@pytest.mark.parametrize("path", IN_A_WORKER, ids=lambda path: path.stem)
def test_what_runs_in_a_worker_begins_and_ends_with_one_that_runs(path: Path) -> None:
    """By default there is none while the queue is empty."""
    text = path.read_text(encoding="utf-8")
    start, end = re.findall(r"^(?:-|\d\.) (.*paused-replicas(?:=1|-).*)$", text, re.MULTILINE)
    assert "paused-replicas=1 --overwrite" in start
    assert "paused-replicas-`" in end
    inside = text[text.index(start) : text.index(end)]
    assert inside.count("exec deploy/RELEASE-worker") == text.count("exec deploy/RELEASE-worker")


def test_a_worker_is_started_in_the_same_words_everywhere() -> None:
    lines = [line for path in IN_A_WORKER for line in path.read_text().splitlines()]
    steps = [re.sub(r"^\d\. ", "", line) for line in lines if "paused-replicas" in line]
    assert (len(steps), len(set(steps))) == (2 * len(IN_A_WORKER), 2)


@every_runbook
def test_the_values_that_it_names_are_there(path: Path) -> None:
    values = yaml.safe_load((REPOSITORY / "chart/values.yaml").read_text(encoding="utf-8"))
    for said in re.findall(r"`(?:--set )?([a-z]\w+(?:\.\w+)+)(?:[=:][^`]*)?`", path.read_text()):
        found, names = values, said.split(".")
        if said.startswith(_THEIR_VALUES):
            continue
        # What is empty or null may hold anything, such as resources or changes of alerts.
        while names and isinstance(found, dict) and found:
            if names[0] not in found and names[0] == "limits":
                break
            assert names[0] in found, said
            found = found[names.pop(0)]


@pytest.mark.parametrize("container", ["worker", "remediator", "ollama", "rabbitmq"])
def test_who_is_killed_for_memory_finds_what_to_do(container: str) -> None:
    text = (REPOSITORY / "alerts/runbooks/SelfhealOutOfMemory.md").read_text(encoding="utf-8")
    do = text[text.index("## Do") :]
    assert re.search(rf"^\d\. `{container}`: .*`{container}\.resources\.limits\.memory`", do, re.M)


@every_runbook
def test_what_destroys_messages_is_a_command_with_a_caution(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.search(r"\b(purge|purged|purging)\b", line) and "SelfhealDeadLetters" not in line:
            assert re.search(r"`kubectl [^`]*(purge_queue|dead-letters purge)[^`]*`", line), line
            assert "Caution: " in line, line
