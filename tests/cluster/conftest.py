"""One run of the demo on a cluster of the tests' own, which the other modules use too."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ci.cluster import Cluster

_ROOT = Path(__file__).parents[2]
_NAME = "demo-test"


@dataclass(frozen=True)
class Told:
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
    status, out = _run(request, "--report", str(report))
    assert status == 0, out
    yield Told(out, json.loads(report.read_text()), Cluster(_NAME))
    status, out = _run(request, "--down")
    assert status == 0, out
    assert Cluster(_NAME).status().phase == "absent"


def _run(request, *arguments):
    """The demo as a user runs it; its lines go to the terminal at once."""
    command = [sys.executable, "-u", "-m", "ci.demo", "--cluster", _NAME, *arguments]
    capture = request.config.pluginmanager.getplugin("capturemanager")
    out = []
    with (
        capture.global_and_fixture_disabled(),
        subprocess.Popen(
            command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        for line in process.stdout:
            sys.stdout.write(line)
            out.append(line)
    return process.returncode, "".join(out)
