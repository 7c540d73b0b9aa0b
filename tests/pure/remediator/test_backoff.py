"""The one formula for delays between attempts."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.config import Config
from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.controller.peer_check import PeerCheck
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.threads.pool import Purpose
from tests.pure.remediator.fake_runtime import FakeRuntime

SOURCES = Path(__file__).parents[3] / "remediator" / "selfheal_remediator"


def test_it_doubles_from_the_first_to_the_longest() -> None:
    delays = [delay_after(times, first=0.5, longest=15) for times in range(1, 9)]
    assert delays == [0.5, 1, 2, 4, 8, 15, 15, 15]
    assert delay_after(0, first=0.5, longest=15) == 0.5


@given(st.integers(0, 10**6), st.floats(0.001, 600), st.floats(0.001, 10**6))
def test_it_is_within_its_bounds(failures: int, first: float, longest: float) -> None:
    delay = delay_after(failures, first=first, longest=longest)
    assert min(first, longest) <= delay <= longest
    assert delay <= delay_after(failures + 1, first=first, longest=longest)


@pytest.mark.parametrize("part", ["controller", "drain", "healing", "kube", "node", "threads"])
def test_no_module_has_a_formula_of_its_own(part: str) -> None:
    found = [
        f"{path.name}:{node.lineno}"
        for path in (SOURCES / part).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Pow)
        and not isinstance(node.right, ast.Constant)
    ]
    assert found == []


def test_a_check_for_other_remediators_may_fail_any_number_of_times() -> None:
    class Reader:
        def read(self, *, machines_wanted: bool) -> NoReturn:
            raise ApiFailure(0, "", "no answer")

    class AtOnce:
        runtime = FakeRuntime()

        def submit(self, job: Callable[[], None], purpose: Purpose) -> None:
            job()

    now = [0.0]
    planner = Planner(Config(), "a/b", 0.0)
    check = PeerCheck(
        Reader(),  # type: ignore[arg-type]
        planner,
        Authority(),
        AtOnce(),  # type: ignore[arg-type]
        lambda job: job(),
        lambda: now[0],
    )
    waits = []
    for _ in range(1100):
        check.advance(now[0])
        waits.append(check.due - now[0])
        now[0] = check.due
    assert (waits[:5], set(waits[5:])) == ([2, 4, 8, 16, 30], {30})
