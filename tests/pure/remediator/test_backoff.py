"""The one formula for delays between attempts."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.backoff import delay_after

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


@pytest.mark.parametrize("part", ["drain", "kube", "threads"])
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
