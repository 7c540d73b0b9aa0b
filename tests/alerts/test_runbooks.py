"""Each alert has a runbook of one form, whose commands the programs understand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from alerts.__main__ import REPOSITORY
from alerts.rules import ALERTS
from remediator.__main__ import _parser as remediator_parser
from worker.__main__ import _parser as worker_parser

RUNBOOKS = sorted((REPOSITORY / "alerts/runbooks").glob("*.md"))
PARSERS = {"worker": worker_parser, "remediator": remediator_parser}
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


@every_runbook
def test_its_commands_are_understood(path: Path) -> None:
    for command in re.findall(r"`([^`]*selfheal-(?:worker|remediator) [^`]*)`", path.read_text()):
        match = re.search(r"(?:^|-- )selfheal-(worker|remediator) (.*)", command)
        assert match, command
        PARSERS[match[1]]().parse_args(shlex.split(match[2]))  # exits when it does not understand
