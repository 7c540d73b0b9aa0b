"""The few forms that every panel and dashboard here is made of.

A panel always has a unit, a description and a text for no data. Queries say `$release` and
`$namespace` by the matchers below, so that every panel follows the variables.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

with warnings.catch_warnings():
    # The classic schema is the one that Grafana 11 reads; the SDK warns of it when imported.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import common as common_builders
    from grafana_foundation_sdk.builders import dashboard as builders
    from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common, dashboard
    from grafana_foundation_sdk.models.dashboard import (
        DataSourceRef,
        Threshold,
        ThresholdsMode,
        VariableRefresh,
        VariableSort,
    )
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

#: Of Grafana 11.0. The SDK's own is newer; a newer Grafana brings an older one up to its own.
_SCHEMA = 39
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_TWO = "-[^-]+-[^-]+"
PLACE = 'cluster=~"$cluster",namespace="$namespace"'
#: Matchers of the release's series.
WORKER = f'{PLACE},pod=~"$release-worker{_TWO}"'
REMEDIATOR = f'{PLACE},pod=~"$release-remediator{_TWO}"'
BROKER = f'{PLACE},pod=~"$release-rabbitmq-[0-9]+"'
#: Of an external broker: the matchers of the selected one.
OWN_BROKER = 'cluster=~"$cluster",namespace=~"$broker"'
PODS = f'{PLACE},pod=~"$release-(worker|remediator|ollama){_TWO}|$release-rabbitmq-[0-9]+"'
CLUSTER = 'cluster=~"$cluster"'
DEPLOYMENT = f'{PLACE},deployment="$release-worker"'
_SCALED = 'scaledObject="$release-worker"'
AUTOSCALERS = f'{PLACE},horizontalpodautoscaler=~"(keda-hpa-)?$release-worker|$release-ollama"'
FIRING = f'{PLACE},release="$release",alertstate="firing"'
#: KEDA's own namespace may have taken the label's place.
KEDA = (f"{PLACE},{_SCALED}", f'{CLUSTER},exported_namespace="$namespace",{_SCALED}')
#: Series by which releases are found. With zero workers KEDA's autoscaler still exists.
_RELEASES = (
    '__name__=~"selfheal_worker_ready|selfheal_remediator_leader|'
    'kube_horizontalpodautoscaler_spec_max_replicas",'
    'horizontalpodautoscaler=~"(keda-hpa-.+-worker)?"'
)

_QUEUES = '__name__=~"rabbitmq_detailed_queue_messages_ready"'

#: Of a pod's name in a legend its kind and its last part are left: `worker-x2m4d`.
_SHORT_POD = "/^.*(worker|remediator|ollama|rabbitmq)(?:-[0-9a-z]+)?(-[0-9a-z]+)\\b/"
#: Where the axis of a graph ends at least: else Grafana ends that of zeros at 100. A line at 1 is
#: not at its edge.
_LEAST = {"short": 1.2, "percentunit": 0.01, "cps": 0.1, "reqps": 0.1}

LINKS = (
    ("Overview", "selfheal-overview"),
    ("Worker", "selfheal-worker"),
    ("Model", "selfheal-model"),
    ("Remediation", "selfheal-remediation"),
)


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and its legend."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. unit: Grafana's id. steps: (from value, colour), the first from minus infinity.

    kind: `graph`, `number`, `timeline` (states over time) or `table` (the newest values).
    empty: what is said when there is no data, and why that may be.
    whole: whether what has no unit (`short`) comes in whole numbers, and few of them.
    least: where the axis of a graph ends at least (None: by the unit).
    """

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    kind: str = "graph"
    empty: str = "no data"
    steps: Sequence[tuple[float | None, str]] = ((None, "green"),)
    width: int = 8
    height: int = 7
    minimum: float | None = 0
    mappings: dict[str, str] = field(default_factory=dict)
    stack: bool = False
    whole: bool = True
    least: float | None = None

    @property
    def several(self) -> bool:
        """Whether it may have more than one series."""
        return len(self.queries) > 1 or "{{" in self.queries[0].legend


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and the panels under it."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard: its uid never changes, links point at it."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]

    def panel_ids(self) -> dict[str, int]:
        """Title → id. Rows take part in the numbers."""
        ids: dict[str, int] = {}
        number = 0
        for row in self.rows:
            number += 1
            for panel in row.panels:
                number += 1
                if panel.title in ids:
                    raise ValueError(f"{self.uid}: two panels are called {panel.title!r}")
                ids[panel.title] = number
        return ids

    def queries(self) -> list[tuple[str, str]]:
        """(panel title, expression) of every query."""
        return [(p.title, q.expr) for row in self.rows for p in row.panels for q in p.queries]

    def text(self) -> str:
        """The JSON that Grafana loads."""
        model = _dashboard(self)
        return (
            json.dumps(model, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        )


def _dashboard(board: Board) -> dashboard.Dashboard:
    build = (
        builders.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["selfheal"])
        .time("now-3h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .readonly()
    )
    for variable in _variables():
        build.with_variable(variable)
    for title, uid in LINKS:
        if uid != board.uid:
            build.link(_link(title, uid))
    for annotation in _annotations():
        build.annotation(annotation)
    ids = board.panel_ids()
    for number, row in enumerate(board.rows):
        build.with_row(builders.Row(row.title).id(_row_id(board, number)))
        for panel in row.panels:
            build.with_panel(_BUILDERS[panel.kind](panel).id(ids[panel.title]))
    model = build.build()
    model.schema_version = _SCHEMA
    return model


def _row_id(board: Board, number: int) -> int:
    return 1 + sum(1 + len(row.panels) for row in board.rows[:number])


def _link(title: str, uid: str) -> builders.DashboardLink:
    return (
        builders.DashboardLink(title)
        .type(dashboard.DashboardLinkType.LINK)
        .url(f"/d/{uid}")
        .include_vars(True)
        .keep_time(True)
    )


def _variables() -> list[Any]:
    return [
        builders.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        _all(_query_variable("cluster", "Cluster", f"label_values({{{_RELEASES}}}, cluster)")),
        _query_variable(
            "namespace", "Namespace", f"label_values({{{_RELEASES},{CLUSTER}}}, namespace)"
        ),
        # Whole series: the name is in one label or the other.
        _query_variable(
            "release",
            "Release",
            f"query_result(last_over_time({{{_RELEASES},{PLACE}}}[$__range]))",
        ).regex(
            '/[{,](?:pod="|horizontalpodautoscaler="keda-hpa-)'
            '([^"]+)-(?:worker|remediator)(?:-[^-"]+-[^-"]+)?"/'
        ),
        # Only where the release has no broker of its own: there it shows what was chosen.
        _all(
            _query_variable(
                "broker",
                "Broker in namespace",
                f"label_values({{{_QUEUES},{CLUSTER}}}, namespace)",
            )
        ),
        _all(
            _query_variable(
                "queue", "Queues", f"label_values({{{_QUEUES},{OWN_BROKER}}}, queue)"
            ).multi(True)
        ),
    ]


def _all(variable: builders.QueryVariable) -> builders.QueryVariable:
    """Everything, until something is chosen."""
    chosen = dashboard.VariableOption(text="All", value="$__all")
    return variable.include_all(True).all_value(".*").current(chosen)


def _query_variable(name: str, label: str, query: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def _annotations() -> list[builders.AnnotationQuery]:
    # Scaling is a new generation too, and no news: both are of one state of the Deployment.
    rollout = (
        f"changes(kube_deployment_metadata_generation{{{PLACE}}}[2m])"
        f" > changes(kube_deployment_spec_replicas{{{PLACE}}}[2m])"
    )
    action = (
        f'sum by (action) (increase(selfheal_remediator_actions_total{{{REMEDIATOR},result="done",'
        'action=~"cordon|drain|uncordon"}[1m])) > 0'
    )
    return [
        _annotation("Deployments", rollout, "{{deployment}} changed", "blue"),
        _annotation("Remediation", action, "{{action}}", "orange"),
    ]


def _annotation(name: str, expr: str, title: str, colour: str) -> builders.AnnotationQuery:
    return (
        builders.AnnotationQuery()
        .name(name)
        .datasource(SOURCE)
        .enable(True)
        .icon_color(colour)
        .expr(expr)
        .title_format(title)
        .step("1m")
    )


def _targets(panel: Panel) -> list[Any]:
    instant = panel.kind in ("number", "table")
    targets = []
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expr).datasource(SOURCE)
        target = target.legend_format(query.legend) if query.legend else target
        target = target.instant() if instant else target.range()
        if panel.kind == "table":
            target = target.format(PromQueryFormat.TABLE)
        targets.append(target)
    return targets


def _steps(panel: Panel) -> builders.ThresholdsConfig:
    steps = [Threshold(value=value, color=colour) for value, colour in panel.steps]
    return builders.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _dress(builder: Any, panel: Panel) -> Any:
    """What all forms of panels have."""
    builder = (
        builder.title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .no_value(panel.empty)
        .datasource(SOURCE)
        .thresholds(_steps(panel))
        .targets(_targets(panel))
        .span(panel.width)
        .height(panel.height)
    )
    if any("{{pod}}" in query.legend for query in panel.queries):
        rename = {"regex": _SHORT_POD, "renamePattern": "$1$2"}
        builder = builder.with_transformation(
            dashboard.DataTransformerConfig(id_val="renameByRegex", options=rename)
        )
    if panel.mappings:
        options = {
            value: dashboard.ValueMappingResult(text=text) for value, text in panel.mappings.items()
        }
        builder = builder.mappings([dashboard.ValueMap(options=options)])
    return builder


def _graph(panel: Panel) -> Any:
    # Areas of several series cover each other.
    filled = panel.stack or not panel.several
    builder = timeseries.Panel().line_width(1 if filled else 2).fill_opacity(10 if filled else 0)
    legend = common_builders.VizLegendOptions().show_legend(panel.several)
    builder = builder.legend(
        legend.display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .calcs([])
    )
    mode = common.TooltipDisplayMode.MULTI if panel.several else common.TooltipDisplayMode.SINGLE
    tooltip = common_builders.VizTooltipOptions().mode(mode).sort(common.SortOrder.DESCENDING)
    builder = builder.tooltip(tooltip)
    if panel.whole and panel.unit == "short":
        builder = builder.decimals(0)
    least = panel.least or _LEAST.get(panel.unit)
    if least is not None:
        builder = builder.axis_soft_max(least)
    if panel.minimum is not None:
        builder = builder.min(panel.minimum)
    if len(panel.steps) > 1:
        style = common_builders.GraphThresholdsStyleConfig()
        builder = builder.thresholds_style(style.mode(common.GraphThresholdsStyleMode.DASHED))
    if panel.stack:
        stacking = common_builders.StackingConfig().mode(common.StackingMode.NORMAL)
        builder = builder.stacking(stacking)
    return _dress(builder, panel)


def _number(panel: Panel) -> Any:
    reduce = common_builders.ReduceDataOptions().calcs(["lastNotNull"])
    return _dress(stat.Panel().reduce_options(reduce), panel)


def _timeline(panel: Panel) -> Any:
    # By default it has the colours of a scale from green to red, whatever the steps are.
    by_steps = builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS)
    return _dress(statetimeline.Panel().merge_values(True).color_scheme(by_steps), panel)


def _table(panel: Panel) -> Any:
    return _dress(table.Panel(), panel)


_BUILDERS = {"graph": _graph, "number": _number, "timeline": _timeline, "table": _table}
