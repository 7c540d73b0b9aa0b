"""Asks the cluster's Prometheus and Alertmanager, and gives Prometheus its rules."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from ci.cluster.errors import ClusterError

_SECONDS = 30.0
#: No proxy is between this machine and itself.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Prometheus:
    """One server; `alertmanager` is where its alerts go, `rules` the folder of its rules."""

    url: str
    alertmanager: str
    rules: Path

    def query(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """The series of an expression `at` a Unix time (now); a scalar is one without labels."""
        asked = {"query": expr} | ({} if at is None else {"time": f"{at}"})
        return _series(self.api("query", **asked))

    def range(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of an expression at each `step` seconds of a span of Unix times."""
        asked = {"query": expr, "start": f"{start}", "end": f"{end}", "step": f"{step}"}
        return _series(self.api("query_range", **asked))

    def value(self, expr: str) -> float | None:
        """The one number that an expression is now; None when it is nothing, or several."""
        found = self.query(expr)
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def firing(self) -> list[dict[str, str]]:
        """The labels of the alerts that fire, as Alertmanager has them now."""
        url = f"{self.alertmanager}/api/v2/alerts?active=true&silenced=true&inhibited=true"
        return [dict(alert["labels"]) for alert in json.loads(_asked(url))]

    def load_rules(self, name: str, groups: list[dict[str, Any]]) -> None:
        """Takes these rule groups (as in a PrometheusRule's spec) in place of those of `name`."""
        target = self.rules / f"{name}.yaml"
        target.write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
        try:
            self.reload()
        except ClusterError:
            target.unlink()  # else it could not be started again
            raise

    def reload(self) -> None:
        """Reads configuration and rules again; ClusterError, and no change, when it cannot."""
        _asked(f"{self.url}/-/reload", b"")

    def api(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of the HTTP API; ClusterError with Prometheus' words."""
        return json.loads(_asked(f"{self.url}/api/v1/{path}?{urlencode(parameters)}"))["data"]


def _series(data: dict[str, Any]) -> list[dict[str, Any]]:
    if data["resultType"] == "scalar":
        return [{"metric": {}, "value": data["result"]}]
    return list(data["result"])


def _asked(url: str, body: bytes | None = None) -> bytes:
    try:
        with _OPENER.open(urllib.request.Request(url, data=body), timeout=_SECONDS) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        raise ClusterError(f"{url}: {error.code}: {error.read().decode()[:2000]}") from error
    except OSError as error:
        raise ClusterError(f"{url}: {error}") from error
