"""Asks a Prometheus for all that a dashboard shows, as Grafana would."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ci.cluster.prometheus import Prometheus

#: Grafana's number of points in a panel of this width.
_POINTS = 480


class Unanswered(Exception):
    """A variable offers nothing to choose; the message names it and its query."""


@dataclass(frozen=True)
class Span:
    """What is shown: Unix times, and seconds between two scrapes."""

    start: float
    end: float
    scrape: float

    @property
    def step(self) -> float:
        """Seconds between two points: not more of them than a panel has, nor than there are."""
        return max(self.scrape, (self.end - self.start) // _POINTS)

    @property
    def windows(self) -> dict[str, str]:
        """Grafana's own variables of this span."""
        rate = max(self.step + self.scrape, 4 * self.scrape)
        return {"__rate_interval": f"{rate:.0f}s", "__range": f"{self.end - self.start:.0f}s"}


@dataclass(frozen=True)
class Answers:
    """The answers for one dashboard: by panel and letter of the query; the variables' labels."""

    results: dict[int, dict[str, list[dict[str, Any]]]]
    variables: list[tuple[str, str]]
    annotations: list[dict[str, Any]] = field(default_factory=list)


def ask(prometheus: Prometheus, board: Mapping[str, Any], span: Span) -> Answers:
    """All that the dashboard (Grafana's JSON) shows of this span.

    Raises Unanswered, and ClusterError where Prometheus does not answer or refuses a query.
    """
    values = dict(span.windows)
    shown = []
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            values[variable["name"]], text = _chosen(prometheus, variable, values, span)
            shown.append((variable["label"], text))
    results = {}
    for panel in board["panels"]:
        if panel["type"] != "row":
            results[panel["id"]] = {
                target["refId"]: _series(prometheus, filled(target["expr"], values), target, span)
                for target in panel["targets"]
            }
    marks = [
        {"time": float(time), "color": annotation["iconColor"]}
        for annotation in board["annotations"]["list"]
        for series in prometheus.range(
            filled(annotation["expr"], values), span.start, span.end, span.step
        )
        for time in _beginnings(series["values"], span.step)
    ]
    return Answers(results, shown, marks)


def filled(text: str, values: Mapping[str, str]) -> str:
    """The text with each `$name` replaced; a name without a value stays, and is refused later."""
    return re.sub(r"\$(\w+)", lambda match: values.get(match[1], match[0]), text)


def _beginnings(values: list[tuple[float, str]], step: float) -> list[float]:
    """Of each run of values: Grafana marks a region by its begin."""
    times = [time for time, _ in values]
    return [
        time for number, time in enumerate(times) if not number or time - times[number - 1] > step
    ]


def _series(
    prometheus: Prometheus, expr: str, target: Mapping[str, Any], span: Span
) -> list[dict[str, Any]]:
    if target["instant"]:
        found = prometheus.query(expr, span.end)
        return [{"metric": one["metric"], "values": [one["value"]]} for one in found]
    return prometheus.range(expr, span.start, span.end, span.step)


def _chosen(
    prometheus: Prometheus, variable: Mapping[str, Any], values: Mapping[str, str], span: Span
) -> tuple[str, str]:
    """The value that Grafana chooses when the dashboard is opened, and how it shows it."""
    if variable["includeAll"]:
        return variable["allValue"], "All"
    first = offered(prometheus, variable, values, span)[0]
    return first, first


def offered(
    prometheus: Prometheus, variable: Mapping[str, Any], values: Mapping[str, str], span: Span
) -> list[str]:
    """What Grafana lets people choose from for a variable of a dashboard, sorted, at least one.

    Raises Unanswered.
    """
    query = filled(variable["query"]["query"], values)
    found = _answered(prometheus, query, span)
    if pattern := variable.get("regex"):
        matches = [re.search(pattern.strip("/"), text) for text in found]
        found = {match[1] for match in matches if match}
    if not found:
        raise Unanswered(f"the variable {variable['name']} has no value: nothing answers {query}")
    return sorted(found)


def _answered(prometheus: Prometheus, query: str, span: Span) -> set[str]:
    """A label's values, or series as text."""
    call = re.fullmatch(r"(label_values|query_result)\((.*?)(?:, ?(\w+))?\)", query)
    if not call:
        raise Unanswered(f"a variable's query is none of label_values and query_result: {query}")
    kind, inner, label = call.groups()
    if kind == "label_values":
        asked = {"match[]": inner, "start": f"{span.start}", "end": f"{span.end}"}
        return {one[label] for one in prometheus.api("series", **asked) if label in one}
    found = prometheus.query(inner, span.end)
    pairs = [[f'{name}="{value}"' for name, value in one["metric"].items()] for one in found]
    return {"{" + ",".join(one) + "}" for one in pairs}
