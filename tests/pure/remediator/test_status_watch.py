"""`status --watch`: what it shows, and when it shows it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from selfheal_remediator.__main__ import parser
from selfheal_remediator.cli.commands import watch
from selfheal_remediator.cli.inspection import ClusterStatus
from selfheal_remediator.failures import ApiFailure
from tests.pure.remediator.fake_runtime import FakeRuntime

QUIET = ClusterStatus(
    lease="selfheal/selfheal-remediator",
    leader="selfheal-remediator-a",
    renewed="1",
    paused="",
    mode="enforce",
    nodes=3,
    cordoned=(),
    others={},
    now=1.0,
)
AWAY = ApiFailure(0, "", "connection refused")


def _statuses(*found: ClusterStatus | ApiFailure) -> Callable[[], ClusterStatus]:
    """One after the other; then somebody presses Ctrl-C."""
    left: Iterator[ClusterStatus | ApiFailure] = iter(found)

    def look() -> ClusterStatus:
        one = next(left, None)
        if one is None:
            raise KeyboardInterrupt
        if isinstance(one, ApiFailure):
            raise one
        return one

    return look


def test_only_what_changed_is_added_to_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    later = replace(QUIET, now=3.0, renewed="2")
    paused = replace(later, paused="maintenance")
    assert watch(_statuses(QUIET, later, paused, paused), 2, runtime=FakeRuntime()) == 0
    said = capsys.readouterr().out
    assert said.count("0 of 3 nodes cordoned") == 2
    assert said.count("paused: maintenance") == 1
    assert "\033" not in said


def test_json_is_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    statuses = _statuses(QUIET, AWAY, replace(QUIET, paused="x"))
    assert watch(statuses, 2, as_json=True, runtime=FakeRuntime()) == 0
    first, away, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["nodes"] == 3
    assert "connection refused" in away["error"]
    assert last["paused"] == "x"


def test_an_api_server_that_goes_away_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert watch(_statuses(QUIET, AWAY, AWAY, QUIET), 2, runtime=FakeRuntime()) == 0
    said = capsys.readouterr().out
    assert said.count("no answer") == 1
    assert said.count("0 of 3 nodes cordoned") == 2


def test_a_first_read_that_fails_is_a_failure() -> None:
    with pytest.raises(ApiFailure):
        watch(_statuses(AWAY), 2, runtime=FakeRuntime())


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [(["status"], None), (["status", "--watch"], 2.0), (["status", "-w", "0.5"], 0.5)],
)
def test_how_often(arguments: list[str], seconds: float | None) -> None:
    assert parser().parse_args(arguments).watch == seconds


@pytest.mark.parametrize("text", ["0", "-1", "nan", "x", "1e9"])
def test_what_is_not_a_time_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["status", f"--watch={text}"])
    assert "allowed: 0.1 to 3600" in capsys.readouterr().err
