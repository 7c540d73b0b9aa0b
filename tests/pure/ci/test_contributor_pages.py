"""The pages for contributors and for those who care about security: what they name is there."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from ci.release.version import ROOT

PAGES = ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
VALUES = yaml.safe_load((ROOT / "chart/values.yaml").read_text(encoding="utf-8"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
every_page = pytest.mark.parametrize("page", PAGES)


def quoted(page: str) -> list[str]:
    """Everything between backquotes or in a block of code."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [*inline, *(line for block in blocks for line in block.splitlines())]


@every_page
def test_paths_are_there(page: str) -> None:
    for words in quoted(page):
        for word in re.findall(r"(?:^|(?<=\s))[\w.-]+(?:/[\w.-]+)+/?(?=\s|$)", words):
            if word.startswith((".venv/", "dist/")) or "<" in words:
                continue
            assert (ROOT / word).exists(), f"{page} names {word}"


@every_page
def test_values_are_there(page: str) -> None:
    roots = "|".join(key for key in VALUES if key.isidentifier())
    for words in quoted(page):
        for path in re.findall(rf"^((?:{roots})(?:\.\w+)+)(?:: .*)?$", words):
            found: Any = VALUES
            for part in path.split("."):
                assert part in found, f"{page} names the value {path}"
                found = found[part]


def test_test_long_has_each_tier_with_a_long_form() -> None:
    (tiers,) = re.findall(r"SELFHEAL_LONG=1 ci/test (.*)", (ROOT / "Makefile").read_text())
    long = re.compile(r"environ\.get\(.SELFHEAL_LONG")
    with_one = {
        path.relative_to(ROOT / "tests").parts[0]
        for path in (ROOT / "tests").rglob("*.py")
        if long.search(path.read_text(encoding="utf-8"))
    }
    assert with_one == set(tiers.split())


@every_page
def test_make_has_the_targets(page: str) -> None:
    for words in quoted(page):
        for made in re.findall(r"\bmake ((?:[a-z-]+ ?)+)", words):
            assert set(made.split()) <= TARGETS, f"{page} says make {made}"
