"""What the documents tell users to type is right."""

from __future__ import annotations

from tests.chart.rendering import CHART

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
