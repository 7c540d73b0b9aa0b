"""README and docs/: short where it must be, no dead link, and versions that are true elsewhere."""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from alerts.rules import ALERTS
from ci import docs
from ci.versions import pin, pins

ROOT = Path(__file__).parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "chart/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _anchors(page: str) -> set[str]:
    """The anchors that a forge gives the headings."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in LINK.findall(_text(page)):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        found = target.exists() and (not anchor or anchor in _anchors(_text(target)))
        dead += [] if found else [link]
    assert dead == []


def test_the_readme_fits_on_three_screens() -> None:
    assert len(_text(ROOT / "README.md").splitlines()) <= 110


def test_the_picture_is_for_light_and_dark_and_described() -> None:
    path = ROOT / "docs/overview.svg"
    svg = "{http://www.w3.org/2000/svg}"
    picture = ET.parse(path).getroot()
    assert picture.findtext(f"{svg}title")
    assert picture.findtext(f"{svg}desc")
    light, dark = (picture.findtext(f"{svg}style") or "").split("prefers-color-scheme: dark")
    coloured = re.compile(r"\.([\w-]+)[^{}]*\{[^}]*(?:fill|stroke): #")
    assert set(coloured.findall(light)) <= set(re.findall(r"\.([\w-]+)", dark))


def test_the_table_names_each_version_that_the_tests_run() -> None:
    table = docs.versions_table(pins())
    for name in ("kubernetes", "helm", "helm3", "keda", "ollama", "node-problem-detector"):
        assert pin("go", name).removeprefix("v") in table
    for name in ("rabbitmq", "older_rabbitmq"):
        assert pin("debian", name) in table


def test_the_table_goes_between_its_marks_and_nowhere_else() -> None:
    page = f"before\n{docs.BEGIN}old\n{docs.END}after\n"
    assert docs.with_versions(page, "new\n") == page.replace("old", "new")
    with pytest.raises(ValueError, match="must have"):
        docs.with_versions("no mark", "new\n")


def test_what_is_needed_is_what_the_chart_and_the_package_demand() -> None:
    chart = yaml.safe_load(_text(ROOT / "chart/Chart.yaml"))
    assert chart["kubeVersion"] == f">={pin('supported', 'kubernetes')}.0-0"
    project = tomllib.loads(_text(ROOT / "pyproject.toml"))["project"]
    assert project["requires-python"] == f">={pin('supported', 'python')}"
    assert f"Kubernetes {pin('supported', 'kubernetes')} or newer" in _text(ROOT / "README.md")
    assert (
        f"Needs Kubernetes {pin('supported', 'kubernetes')} or newer, [KEDA](https://keda.sh)"
        f" {pin('supported', 'keda')} or newer"
    ) in _text(ROOT / "chart/README.md")
    assert pin("debian", "older_rabbitmq") == pin("supported", "rabbitmq")


def test_the_chart_says_what_its_tests_ran() -> None:
    chart = yaml.safe_load(_text(ROOT / "chart/Chart.yaml"))
    tested = chart["annotations"]["selfheal.dev/tested-with"]
    for name in ("kubernetes", "helm", "helm3", "keda", "node-problem-detector"):
        minor = ".".join(pin("go", name).removeprefix("v").split(".")[:2])
        assert minor in tested, name
    assert f"RabbitMQ {pin('debian', 'rabbitmq')}" in tested


@pytest.mark.parametrize("page", ["README.md", "docs/operate.md"])
def test_the_number_of_alerts_is_true(page: str) -> None:
    assert {int(n) for n in re.findall(r"(\d+) (?:Prometheus )?alerts", _text(ROOT / page))} == {
        len(ALERTS)
    }
