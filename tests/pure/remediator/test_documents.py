"""What the pages say is held by a test is held by one that is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = {"pure": "pure/remediator", "api": "control_plane", "cluster": "cluster"}
NAMED = re.compile(r"`(pure|api|cluster)/(\w+\.py)::(\w+)`")


def _there(path: Path) -> set[str]:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {item.name for item in ast.parse(path.read_text()).body if isinstance(item, kinds)}


@pytest.mark.parametrize(("page", "rows"), [("traps", 40), ("features", 48)])
def test_every_row_names_a_test_that_exists_or_says_no(page: str, rows: int) -> None:
    lines = (ROOT / "docs" / f"{page}.md").read_text().splitlines()
    found = [line for line in lines if re.match(r"\| \d+ \|", line)]
    assert [int(line.split("|")[1]) for line in found] == list(range(1, rows + 1))
    for line in found:
        named = NAMED.findall(line)
        assert bool(named) != ("| no |" in line), line
        for folder, file, test in named:
            path = ROOT / "tests" / FOLDERS[folder] / file
            assert test in _there(path), f"{path}: no {test}"
        # Nothing that looks like a test is left out by the pattern.
        assert line.count("::") == len(named), line
