"""The guides in docs/ say what tests hold: each paragraph has its tests, and they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from ci import docs

ROOT = Path(__file__).parents[2]
TESTED = docs.read()
#: What is not there has no test.
ABSENT = "What it does not do"
LEAD = re.compile(r"\*\*(.+?)\.\*\* ", re.DOTALL)


def _sections(page: str) -> dict[str, list[str]]:
    """Heading -> its paragraphs."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    bodies = [re.split(r"\n\s*\n", body.strip()) for body in parts[1::2]]
    return dict(zip(parts[::2], bodies, strict=True))


def _names(path: Path) -> set[str]:
    kinds = (ast.FunctionDef, ast.ClassDef)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {item.name for item in tree.body if isinstance(item, kinds)}


@pytest.mark.parametrize("page", TESTED)
def test_each_paragraph_has_tests_unless_it_says_what_is_absent(page: str) -> None:
    points = []
    for heading, paragraphs in _sections(page).items():
        leads = [LEAD.match(paragraph) for paragraph in paragraphs]
        assert all(leads), [p for p, lead in zip(paragraphs, leads, strict=True) if not lead]
        if heading != ABSENT:
            points += [" ".join(lead[1].split()) for lead in leads if lead]
    assert points == list(TESTED[page])


@pytest.mark.parametrize("page", TESTED)
def test_each_test_of_a_point_exists(page: str) -> None:
    for point, tests in TESTED[page].items():
        assert tests, point
        for test in tests:
            path, _, name = test.partition("::")
            assert name in _names(ROOT / "tests" / path), f"{point}: no {test}"


@pytest.mark.parametrize("page", TESTED)
def test_each_module_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    package = ROOT / "remediator/selfheal_remediator"
    missing = {one for one in re.findall(r"`([\w/]+\.py)`", text) if not (package / one).is_file()}
    assert not missing


def test_the_table_is_in_step() -> None:
    assert docs.main(["check"]) == 0


def test_the_guides_lose_no_point() -> None:
    assert {page: len(points) for page, points in TESTED.items()} == {"features": 73, "traps": 41}
