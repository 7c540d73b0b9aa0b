"""Each fix that `tests.simulation.reverts` undoes can still be undone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.reverts.__main__ import ROOT, Found, fault_of, patches, undone

SIDES = ("worker", "remediator")


@pytest.mark.parametrize(
    ("side", "patch"),
    [(side, one) for side in SIDES for one in patches(side)],
    ids=lambda given: given.stem if isinstance(given, Path) else given,
)
def test_a_patch_applies_and_says_what_it_undoes(side: str, patch: Path, tmp_path: Path) -> None:
    said, _, _ = patch.read_text().partition("\n\n---")
    assert said.strip().endswith(".")
    product = undone(patch, side, tmp_path)
    changed = [
        one
        for one in product.rglob("*.py")
        if one.read_bytes() != (ROOT / side / one.relative_to(product)).read_bytes()
    ]
    assert changed
    for one in changed:
        compile(one.read_text(), str(one), "exec")


def test_the_table_says_how_many_seeds_it_took() -> None:
    assert Found("x", 7, ("it_settles",)).line(5, 300).split() == ["x", "3", "it_settles"]
    assert Found("x").line(0, 300).split() == ["x", ">", "300", "not", "found"]
    assert "error" in Found("x", error="it does not apply").line(0, 300)


def test_a_patch_names_the_fault_that_was_fixed(tmp_path: Path) -> None:
    patch = tmp_path / "x.patch"
    patch.write_text("R14: lists are sent in a loop.\n")
    assert fault_of(patch) == "R14"
    patch.write_text("Any number of nodes is drained.\n")
    assert fault_of(patch) == ""
