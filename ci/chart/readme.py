"""chart/README.md from chart/README.md.tmpl and chart/values.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ci.chart.values import Value

MARKER = "{{ values }}"
#: A longer default is left to values.yaml.
LONGEST_DEFAULT = 60


def readme(template: str, values: Mapping[str, Value]) -> str:
    """The template with its marker replaced by a table of all values."""
    if template.count(MARKER) != 1:
        raise ValueError(f"the template must contain {MARKER} exactly once")
    return template.replace(MARKER, table(values))


def table(values: Mapping[str, Value]) -> str:
    """A Markdown table: key, default, description."""
    rows = ["| Key | Default | What it is |", "|---|---|---|"]
    rows += [_row(leaf) for value in values.values() for leaf in value.leaves()]
    return "\n".join(rows)


def _row(value: Value) -> str:
    default = json.dumps(value.default, ensure_ascii=False)
    shown = f"`{default}`" if len(default) <= LONGEST_DEFAULT else "see values.yaml"
    cells = (f"`{value.path}`", shown, value.description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
