"""Generated files of the chart: `write` makes them again, `check` says which are stale."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ci.chart.readme import readme
from ci.chart.schema import schema
from ci.chart.values import ValuesError, read

CHART = Path(__file__).resolve().parents[2] / "chart"


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
    parser = argparse.ArgumentParser(prog="python -m ci.chart", description=__doc__)
    parser.add_argument("command", choices=["write", "check"])
    command = parser.parse_args(argv).command
    try:
        files = generated()
    except ValuesError as error:
        print(error, file=sys.stderr)
        return 1
    stale = [
        path
        for path, text in files.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        if command == "write":
            path.write_text(files[path], encoding="utf-8")
            print(f"wrote {path.relative_to(CHART.parent)}")
        else:
            print(f"{path.relative_to(CHART.parent)} is stale: run `python -m ci.chart write`")
    return 1 if stale and command == "check" else 0


if __name__ == "__main__":
    sys.exit(main())
