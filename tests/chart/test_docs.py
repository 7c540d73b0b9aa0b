"""What the documents tell users to type is right."""

from __future__ import annotations

import re

import yaml

from tests.chart.rendering import CHART, Helm

ROOT = CHART.parent
FOLDERS = ("docs", "alerts", "chart", "ci", "dashboards", "worker", "remediator")


def test_no_document_advises_to_reuse_values() -> None:
    """With `--reuse-values` a key that the new chart brings is missing, and rendering fails."""
    places = [*ROOT.glob("*.md"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*"))]
    advised = []
    for path in places:
        if path.suffix not in {".md", ".txt", ".yaml", ".tmpl", ".tpl"}:
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if " --reuse-values" in line and "helm upgrade" in line:
                advised.append(f"{path.relative_to(ROOT)}: {line}")
    assert advised == []


def _page() -> str:
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    return readme.partition("\n## GitOps\n")[2].partition("\n## Values\n")[0]


def test_the_page_on_gitops_names_values_that_there_are() -> None:
    keys = _values_in(_page())
    assert {"rabbitmq.persistence", "topology.ttlSecondsAfterFinished"} <= set(keys)


def _values_in(text: str) -> list[str]:
    """The `a.b.c` in it, each of which must be a key of values.yaml."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    named = re.findall(r"`([a-z][A-Za-z]*(?:\.[a-zA-Z]+)+)(?:[=:][^`]*)?`", text)
    keys = [name for name in named if name.partition(".")[0] in values]
    for key in keys:
        place = values
        for part in key.split("."):
            assert part in place, key
            place = place[part]
    return keys


def test_what_other_charts_call_it_leads_to_values_that_there_are() -> None:
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    page = readme.partition("\n## If you know other charts\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    for there, here in rows:
        assert _values_in(here) or here.startswith(("none: ", "the same ", "`extraObjects`")), there
    there = " ".join(row[0] for row in rows)
    for name in ("replicaCount", "namespaceOverride", "fullnameOverride", "prometheusRule.enabled"):
        assert f"`{name}`" in there


def test_its_example_of_argo_cd_renders(helm: Helm) -> None:
    application, release = (
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", _page(), re.S)
    )
    given = application["spec"]["source"]["helm"]["valuesObject"]
    manifests = helm.template(values=given)
    assert "Secret" not in {m["kind"] for m in manifests}
    assert helm.template(values=release["spec"]["values"])
    assert release["spec"]["upgrade"]["crds"] == "CreateReplace"


def test_it_says_what_each_version_of_keda_costs() -> None:
    for version in ("2.16", "2.17", "2.17.0", "2.19", "2.20"):
        assert version in _page()
