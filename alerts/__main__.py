"""Generated files: `write` makes them again, `check` says which are stale."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from alerts.contract import page
from alerts.records import RECORDS
from alerts.rules import GROUPS, Alert
from dashboards.boards import BOARDS

REPOSITORY = Path(__file__).resolve().parents[1]


def generated() -> dict[Path, str]:
    """The content of each generated file, by its path in the repository."""
    files = {Path("alerts/metrics.md"): page(), Path("chart/files/alerts/rules.json"): rules()}
    for board in BOARDS:
        name = board.uid.removeprefix("selfheal-")
        files[Path(f"chart/files/dashboards/{name}.json")] = board.text()
    return files


def rules() -> str:
    """The rules as the chart reads them."""
    ids = {board.uid: board.panel_ids() for board in BOARDS}
    data = {
        "records": [{"record": record.name, "expr": record.expr} for record in RECORDS],
        "groups": [
            {"name": name, "rules": [_rule(alert, ids) for alert in alerts]}
            for name, alerts in GROUPS.items()
        ],
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _rule(alert: Alert, ids: dict[str, dict[str, int]]) -> dict[str, object]:
    return {
        "alert": alert.name,
        "needs": list(alert.needs),
        "expr": alert.expr,
        "for": alert.for_,
        "severity": alert.severity,
        "team": alert.team,
        **({} if alert.threshold is None else {"threshold": alert.threshold}),
        "dashboard": alert.dashboard,
        "panel": ids[alert.dashboard][alert.panel],
        "annotations": {"summary": alert.summary, "description": alert.description},
    }


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, or 1 when a file is stale."""
    parser = argparse.ArgumentParser(prog="python -m alerts", description=__doc__)
    parser.add_argument("command", choices=["write", "check"])
    command = parser.parse_args(argv).command
    stale = 0
    for path, text in generated().items():
        target = REPOSITORY / path
        if target.exists() and target.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if command == "write":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
        else:
            print(f"{path} is stale: run `python -m alerts write`")
    return 1 if stale and command == "check" else 0


if __name__ == "__main__":
    sys.exit(main())
