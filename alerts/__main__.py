"""Generated files: `write` makes them again, `check` says which are stale."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from alerts.contract import page
from alerts.records import RECORDS
from alerts.rules import GROUPS, Alert
from ci.generated import write_or_check
from dashboards.boards import BOARDS


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
    return write_or_check("alerts", __doc__, generated, argv)


if __name__ == "__main__":
    sys.exit(main())
