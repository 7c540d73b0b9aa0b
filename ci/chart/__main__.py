"""Generated files of the chart: `write` makes them again, `check` says which are stale."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ci.chart.readme import readme
from ci.chart.schema import schema
from ci.chart.values import ValuesError, read
from ci.generated import ROOT, write_or_check

CHART = ROOT / "chart"


def generated(chart: Path = CHART) -> dict[Path, str]:
    """The content of each generated file. Raises ValuesError when a key is not described."""
    values = read((chart / "values.yaml").read_text(encoding="utf-8"))
    template = (Path(__file__).with_name("README.md.tmpl")).read_text(encoding="utf-8")
    return {
        chart / "values.schema.json": json.dumps(schema(values), indent=2, ensure_ascii=False)
        + "\n",
        chart / "README.md": readme(template, values),
    }


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, or 1 when a file is stale or values.yaml is wrong."""
    try:
        return write_or_check("ci.chart", __doc__, generated, argv)
    except ValuesError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
