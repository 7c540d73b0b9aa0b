"""Seeds on all cores: each answer comes, whatever process it is from, and nothing is left."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import pytest

from tests.simulation.pool import run_all


def _doubled(number: int) -> int:
    return 2 * number


def _hash_of(text: str) -> int:
    return hash(text)


def _die(_: int) -> None:
    os._exit(1)


def _hang(_: int) -> None:
    sys.stdout.write("hangs\n")
    sys.stdout.flush()
    signal.pause()


def _hang_all() -> None:
    """What a terminal's Ctrl-C ends."""
    try:
        list(run_all(_hang, range(9), processes=2))
    except KeyboardInterrupt:
        sys.stdout.write("ended\n")


def _digest(seed: int) -> str:
    from tests.simulation.remediator.run import run

    logging.disable(logging.NOTSET)
    story = run(seed, chaos=100.0, quiet=20.0, detail=True).story()
    return hashlib.sha256(story.encode()).hexdigest()


def test_every_task_is_answered_once() -> None:
    assert sorted(run_all(_doubled, range(20), processes=2)) == list(range(0, 40, 2))


def test_no_tasks_no_answers() -> None:
    assert list(run_all(_doubled, [])) == []


def test_sets_have_the_same_order_in_each_process_and_the_caller_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: set[int] = set()
    for given in ("7", "8"):
        monkeypatch.setenv("PYTHONHASHSEED", given)
        answers.update(run_all(_hash_of, ["node-01"], processes=1))
        assert os.environ["PYTHONHASHSEED"] == given
    assert len(answers) == 1


def test_a_process_that_dies_ends_the_run() -> None:
    with pytest.raises(BrokenProcessPool):
        list(run_all(_die, range(3), processes=1))


def test_what_a_process_ran_before_changes_no_story() -> None:
    fresh = list(run_all(_digest, [3], processes=1))
    assert set(run_all(_digest, [5, 3, 5], processes=1)) > set(fresh)


def test_ctrl_c_ends_all_processes_at_once() -> None:
    source = "from tests.simulation.test_pool import _hang_all; _hang_all()"
    with subprocess.Popen(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        assert [running.stdout.readline() for _ in range(2)] == ["hangs\n"] * 2
        os.killpg(running.pid, signal.SIGINT)
        # Both ends are open until the last of its processes has ended.
        told, complaints = running.communicate()
    assert (told, complaints) == ("ended\n", "")
