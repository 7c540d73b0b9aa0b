"""ci/test: of the runs that start clusters one continues at a time, because clusters have names."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SLOW

ROOT = Path(__file__).parents[3]
#: Succeeds only where another has the lock; leaves a daemon, as a test that is killed may.
_TIER = """#!/usr/bin/env bash
[ -e LOCK ] && flock --nonblock LOCK true && exit 3
echo "$@" >>arguments
sleep 300 <&- >&- 2>&- &
echo $! >>daemons
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A repository with ci/test, three tiers, and a pytest that does nothing."""
    script = (ROOT / "ci/test").read_text(encoding="utf-8")
    assert script.count("/run/lock") == 1
    files = {
        "ci/test": script.replace("/run/lock", str(tmp_path)),
        ".venv/bin/pytest": _TIER.replace("LOCK", str(_lock(tmp_path))),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    for tier in ("pure/worker", "pure/remediator", "broker", "control_plane/drain"):
        (tmp_path / "tests" / tier).mkdir(parents=True)
    yield tmp_path
    for pid in (tmp_path / "daemons").read_text().split():
        os.kill(int(pid), signal.SIGKILL)


def _lock(folder: Path) -> Path:
    return folder / "selfheal.tests.lock"


def _run(here: Path, *tiers: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(here / "ci/test"), *tiers],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_lock_is_the_run_s_and_no_daemon_keeps_it(here: Path) -> None:
    with _run(here, "broker+control_plane", "control_plane") as run:
        assert run.wait(60) == 0
    assert len((here / "daemons").read_text().split()) == 3
    with _lock(here).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("tier", ["control_plane", "control_plane/drain"])
def test_a_second_run_says_so_and_waits(here: Path, tier: str) -> None:
    with _lock(here).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with _run(here, "pure", tier) as run:
            assert run.stderr is not None
            assert "waiting" in run.stderr.readline()
            # What starts no cluster did not wait.
            assert len((here / "daemons").read_text().split()) == 1
            # From here on the run has it, and its pytest finds that somebody has.
            fcntl.flock(file, fcntl.LOCK_UN)
            assert run.wait(60) == 0


@pytest.mark.parametrize(
    ("group", "runs"),
    [
        ("pure", {"pure": []}),
        ("pure+pure/remediator", {"pure": ["pure/remediator"], "pure/remediator": []}),
        ("pure/remediator+pure", {"pure": ["pure/remediator"], "pure/remediator": []}),
        ("pure/remediator+pure/worker", {"pure/remediator": [], "pure/worker": []}),
        (
            "pure/worker+pure/remediator+pure",
            {"pure/worker": [], "pure/remediator": [], "pure": ["pure/worker", "pure/remediator"]},
        ),
        ("pure+broker", {"pure": [], "broker": []}),
    ],
)
def test_a_folder_that_runs_beside_its_tier_is_left_out_of_it(
    here: Path, group: str, runs: dict[str, list[str]]
) -> None:
    """Each test once, whether the folder is named before or after."""
    with _run(here, group) as run:
        assert run.wait(60) == 0
    found = {}
    for line in (here / "arguments").read_text().splitlines():
        tier, *options = line.split()
        ignored = [one for one in options if one.startswith("--ignore=")]
        found[tier] = ignored
    assert found == {
        f"tests/{tier}": [f"--ignore=tests/{one}" for one in apart] for tier, apart in runs.items()
    }


def test_what_fails_beside_another_fails_the_run_and_is_shown(here: Path) -> None:
    (here / ".venv/bin/pytest").write_text(
        '#!/usr/bin/env bash\necho "$1 was run"; touch daemons; [ "$1" != tests/pure ]\n'
    )
    run = subprocess.run(
        [str(here / "ci/test"), "pure/remediator+pure"], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 1
    assert run.stdout.count("was run") == 2
    assert [line.split()[:2] for line in run.stdout.splitlines() if "passed" in line] == [
        ["pure/remediator", "passed"]
    ]
    assert [line.split()[:2] for line in run.stdout.splitlines() if "FAILED" in line] == [
        ["pure", "FAILED"]
    ]


def test_fast_leaves_out_only_modules_that_are_there() -> None:
    assert sorted(name for name in SLOW if not (ROOT / name).is_file()) == []
