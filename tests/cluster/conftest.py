"""One run of the demo on a cluster of the tests' own, which the other modules use too."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ci.cluster import Cluster
from tests.cluster.leftovers import machine_folders, processes_with, traces

_ROOT = Path(__file__).parents[2]
_NAME = "demo-test"


@dataclass(frozen=True)
class DemoRun:
    """The demo's output and report, and the cluster on which its release is still installed."""

    out: str
    report: dict[str, Any]
    cluster: Cluster


@pytest.fixture(scope="session")
def demo(request, tmp_path_factory, unavailable):
    """The demo, shown as it goes; taken down at the end, which must leave nothing."""
    if os.geteuid() != 0 or sys.platform != "linux":
        unavailable("the local cluster needs Linux and root")
    report = tmp_path_factory.mktemp("demo") / "report.json"
    temporary = tmp_path_factory.mktemp("temporary")
    folders = machine_folders()
    status, out = _run(request, temporary, "--report", str(report))
    assert status == 0, out
    yield DemoRun(out, json.loads(report.read_text()), Cluster(_NAME))
    # The demo has ended, and the cluster's processes do not have its environment.
    assert processes_with(f"TMPDIR={temporary}", "environ") == []
    status, out = _run(request, temporary, "--down")
    assert status == 0, out
    assert traces(_NAME) == []
    assert list(temporary.iterdir()) == []
    assert machine_folders() == folders


@pytest.fixture(scope="session")
def cluster(request) -> Cluster:
    """The demo's, on which its release is still installed, until the last module removes it.

    SELFHEAL_TEST_CLUSTER=NAME takes one that is up and has a release `selfheal` in `selfheal`.
    """
    name = os.environ.get("SELFHEAL_TEST_CLUSTER")
    return Cluster(name) if name else request.getfixturevalue("demo").cluster


@pytest.fixture(scope="module")
def say(request) -> Callable[[str], None]:
    """Prints a figure of the module's subject, past the capture."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    subject = request.module.__name__.rpartition("test_")[2]

    def print_it(text: str) -> None:
        with capture.global_and_fixture_disabled():
            sys.stdout.write(f"  {subject}: {text}\n")

    return print_it


def _run(request, temporary, *arguments):
    """The demo as a user runs it; its lines go to the terminal at once."""
    command = [sys.executable, "-u", "-m", "ci.demo", "--cluster", _NAME, *arguments]
    capture = request.config.pluginmanager.getplugin("capturemanager")
    out = []
    with (
        capture.global_and_fixture_disabled(),
        subprocess.Popen(
            command,
            cwd=_ROOT,
            env=os.environ | {"TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        for line in process.stdout or ():
            sys.stdout.write(line)
            out.append(line)
    return process.returncode, "".join(out)
