"""The workflows call what there is; lint checks their shape and what makes them unsafe."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci.release.artefacts import IMAGES
from ci.release.version import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def _jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return found


def _steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in _jobs(path).values() for step in job["steps"]]


def test_there_is_one_for_tests_and_one_for_releases() -> None:
    assert [path.name for path in WORKFLOWS] == ["release.yml", "test.yml"]


@every_workflow
def test_make_has_what_a_step_makes(path: Path) -> None:
    runs = "\n".join(step.get("run", "") for step in _steps(path))
    made = re.findall(r"\bmake ([a-z-]+)", runs)
    assert made
    assert set(made) <= TARGETS


@every_workflow
def test_there_are_the_modules_that_a_step_runs(path: Path) -> None:
    runs = "\n".join(step.get("run", "") for step in _steps(path))
    for module in re.findall(r"python -m ([\w.]+)", runs):
        assert importlib.util.find_spec(module), module


@every_workflow
def test_a_job_may_do_nothing_but_what_it_names(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["permissions"] == {}
    for name, job in _jobs(path).items():
        assert job["permissions"]["contents"], name
        assert job["timeout-minutes"], name


def test_an_action_has_one_commit_and_its_version_everywhere() -> None:
    pinned: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for line in re.findall(r"uses: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            match = re.fullmatch(r"([\w/-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)", line)
            assert match, line
            pinned.setdefault(match[1], set()).add(match[2])
    assert {action: len(pins) for action, pins in pinned.items() if len(pins) > 1} == {}


def test_a_release_has_our_images_for_both_platforms() -> None:
    job = _jobs(ROOT / ".github/workflows/release.yml")["images"]
    assert job["strategy"]["matrix"]["program"] == list(IMAGES)
    [build] = [step for step in job["steps"] if "build-push" in step.get("uses", "")]
    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"
    for name in IMAGES:
        assert (ROOT / name / "Dockerfile").is_file()
