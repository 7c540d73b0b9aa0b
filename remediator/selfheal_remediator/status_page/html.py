"""The status page as HTML, from a snapshot. Pure, but for the files beside it.

Everything that comes from the cluster goes through `text`: shortened, on one line, escaped.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.node.spans import span
from selfheal_remediator.status_page.snapshot import (
    DrainRow,
    EventRow,
    Level,
    NodeRow,
    PolicyRow,
    Role,
    Rows,
    Snapshot,
    WorkloadRow,
)

#: Characters of one text at most: names have up to 253, `namespace/name` of a policy 317.
LONGEST = 320
#: Seconds after which a snapshot is called stale: the main loop makes one every ten at least.
STALE_AFTER = 30.0

_PAGE_SOURCE, _STYLE, _SCRIPT = (
    files("selfheal_remediator.status_page").joinpath(name).read_text(encoding="utf-8")
    for name in ("page.html", "style.css", "script.js")
)
_PAGE = Template(_PAGE_SOURCE)


def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


#: Nothing is loaded from anywhere, and no script or style runs but the two of this page.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def text(foreign: str) -> str:
    """A text of the cluster as it may stand in the page: at most LONGEST characters, none of which
    ends a line, moves the text around it, or means anything to HTML."""
    short = foreign if len(foreign) <= LONGEST else foreign[: LONGEST - 1] + "…"
    if not short.isprintable():
        short = "".join(char if char.isprintable() else " " for char in short)
    return escape(short)


@dataclass(frozen=True, slots=True)
class _Cell:
    """Of a table. html: escaped already. short: it stays on one line where there is room."""

    html: str
    level: Level = Level.NORMAL
    short: bool = False


@dataclass(frozen=True, slots=True)
class _Section:
    """A heading with its table. columns: the first one names the row; nothing: said of no rows."""

    id: str
    title: str
    caption: str
    columns: tuple[str, ...]
    nothing: str
    also: str = ""


def render(snapshot: Snapshot, now: float) -> str:
    """The whole page; `now` by the clock of the snapshot."""
    sections = _sections(snapshot, now)
    links = "".join(
        f'<li><a href="#{section.id}">{section.title} '
        f'(<span id="count-{section.id}" data-live>{rows.total}</span>)</a></li>'
        for section, rows, _ in sections
    )
    return _PAGE.substitute(
        title=_title(snapshot),
        style=_STYLE,
        installation=text(snapshot.installation),
        links=links,
        summary=_summary(snapshot, now),
        sections="\n".join(_table(*section) for section in sections),
        stop=_stop(snapshot),
        script=_SCRIPT,
    )


def _stop(snapshot: Snapshot) -> str:
    """The command that pauses it, in this pod."""
    namespace = text(snapshot.installation.partition("/")[0])
    pod = text(_pod(snapshot.process))
    return (
        f"kubectl -n {namespace} exec {pod} -c remediator -- "
        "selfheal-remediator pause --why &quot;…&quot;"
    )


def _title(snapshot: Snapshot) -> str:
    """What a tab says: how many nodes it took out of service."""
    cordoned = snapshot.counts.cordoned
    found = snapshot.role.value if cordoned is None else f"{cordoned} cordoned"
    if snapshot.dry_run:
        found = "dry run"
    return f"{found} · {text(snapshot.installation)}"


# -- summary ---------------------------------------------------------------------------------


def _summary(snapshot: Snapshot, now: float) -> str:
    counts, dry_run = snapshot.counts, snapshot.dry_run
    cordoned = "not known here"
    if counts.cordoned is not None:
        cordoned = f"{counts.cordoned} of {counts.allowed} allowed"
    facts = {
        "Nodes": str(counts.nodes),
        "Would be cordoned" if dry_run else "Cordoned by it": cordoned,
        "Mode": f"dry run ({text(dry_run)})" if dry_run else "enforce",
        "Answered by": f"{text(_pod(snapshot.process))} ({snapshot.role.value})",
    }
    if snapshot.leader != snapshot.process:
        facts["Leader"] = text(_pod(snapshot.leader)) or "none"
    if counts.states:
        facts["States"] = _numbers(counts.states)
    if counts.limited:
        facts["Limited by"] = _numbers(counts.limited)
    listed = "".join(f"<div><dt>{name}</dt><dd>{fact}</dd></div>" for name, fact in facts.items())
    age = max(0.0, now - snapshot.at)
    made = f'<p class="quiet">As of {_time(snapshot.at, now)}, {span(age)} ago.</p>'
    return "".join(_notes(snapshot, age)) + f"{made}<dl>{listed}</dl>"


def _notes(snapshot: Snapshot, age: float) -> Iterable[str]:
    """What must be known before anything else is read."""
    if age > STALE_AFTER:
        said = f"The remediator's main loop has reported nothing for {span(age)}: "
        yield _note(Level.BAD, "Stale.", f"{said}what is shown may be wrong by now.")
    written = "This page shows only what is written on the nodes."
    if snapshot.role is Role.STANDBY:
        leader = text(_pod(snapshot.leader))
        known = f"{leader} leads: open the page of that pod." if leader else "Nobody leads."
        yield _note(Level.WARNING, "This replica is on standby.", f"{known} {written}")
    if snapshot.role is Role.READ_ONLY:
        yield _note(Level.WARNING, "Read-only.", f"It changes nothing. {written}")
    if snapshot.role is Role.STARTING:
        known = "This replica has begun to lead, and does not know everything yet."
        yield _note(Level.WARNING, "Starting.", f"{known} {written}")
    if snapshot.dry_run and snapshot.role is Role.LEADER:
        said = "It changes nothing: the page shows what it would do."
        yield _note(Level.WARNING, "Dry run.", said)
    if snapshot.stopped:
        yield _note(Level.WARNING, "Nothing new is begun:", text(snapshot.stopped))


def _note(level: Level, title: str, html: str) -> str:
    return f'<p class="note {level.value}"><b>{title}</b> {html}</p>'


def _pod(identity: str) -> str:
    """The pod of an identity `name_uid`."""
    return identity.rpartition("_")[0] or identity


def _numbers(pairs: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{text(name)} {number}" for name, number in pairs)


# -- tables ----------------------------------------------------------------------------------


_Row = tuple[_Cell, ...]


_NODES = _Section(
    "nodes",
    "Nodes",
    "Nodes with something to report, the most urgent first",
    ("Node", "Phase", "Since", "Reason", "Limit"),
    "There is nothing to report of any node.",
)
_DRAINS = _Section(
    "drains",
    "Drains",
    "Drains under way, the oldest first",
    ("Node", "Progress", "Since", "Deadline", "State", "Blocked by"),
    "No drain is under way.",
)
_POLICIES = _Section(
    "policies",
    "Policies",
    "HealingPolicies, the most urgent first",
    ("Policy", "State", "Healthy", "Restarts", "Last restart", "Message"),
    "No HealingPolicy.",
)
_WORKLOADS = _Section(
    "workloads",
    "Workloads",
    "Pods of each owner that a policy selects",
    ("Workload", "Pods", "Unhealthy", "Policy", "State"),
    "No HealingPolicy selects a pod.",
    "How many messages wait in the queue is not known here: <code>kubectl get scaledobject -A"
    "</code>, the workers’ metrics and <code>selfheal-worker dead-letters list</code> show it.",
)
_EVENTS = _Section(
    "events",
    "Events",
    "Of the last hour, the newest first",
    ("Time", "Reason", "About", "Message"),
    "None.",
)


def _sections(snapshot: Snapshot, now: float) -> list[tuple[_Section, Rows[Any], list[_Row]]]:
    tables: list[tuple[_Section, Rows[Any], Callable[[Any, float], _Row]]] = [
        (_NODES, snapshot.nodes, _node),
        (_DRAINS, snapshot.drains, _drain),
        (_POLICIES, snapshot.policies, _policy),
        (_WORKLOADS, snapshot.workloads, _workload),
        (replace(_EVENTS, also=_which_events(snapshot, now)), snapshot.events, _event),
    ]
    unknown: dict[str, str] = {}
    if snapshot.role is not Role.LEADER:
        said = "Not known here: this replica does not act."
        unknown = dict.fromkeys(("drains", "policies", "workloads"), said)
    elif not snapshot.policies_known:
        said = "Policies are off, or are not known yet."
        unknown = dict.fromkeys(("policies", "workloads"), said)
    return [
        (
            replace(section, nothing=unknown.get(section.id, section.nothing)),
            rows,
            [row(one, now) for one in rows.shown],
        )
        for section, rows, row in tables
    ]


def _which_events(snapshot: Snapshot, now: float) -> str:
    since = snapshot.events_since
    begin = f" since {_time(since, now)}" if since > now - 3600 else ""
    return (
        f"Those that this process wrote{begin}. Others: <code>kubectl get events -A "
        "--field-selector reportingComponent=selfheal-remediator</code>"
    )


def _table(section: _Section, rows: Rows[Any], cells: list[_Row]) -> str:
    also = f'<p class="quiet">{section.also}</p>' if section.also else ""
    begin = (
        f'<section id="{section.id}" aria-labelledby="h-{section.id}">'
        f'<h2 id="h-{section.id}">{section.title}</h2>{also}'
        f'<div id="rows-{section.id}" data-live>'
    )
    if not cells:
        return f"{begin}<p>{section.nothing}</p></div></section>"
    # The roles are those that tables have, until a narrow screen shows their rows as blocks.
    head = "".join(
        f'<th scope="col" role="columnheader">{column}</th>' for column in section.columns
    )
    body = "".join(_row(section.columns, row) for row in cells)
    more = f"<p>{rows.more} more are not shown.</p>" if rows.more else ""
    return (
        f'{begin}<table role="table"><caption>{section.caption}</caption>'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table>{more}</div></section>'
    )


def _row(columns: tuple[str, ...], cells: _Row) -> str:
    first, *others = cells
    html = [f'<th scope="row" role="rowheader">{first.html}</th>']
    for column, cell in zip(columns[1:], others, strict=True):
        level = cell.level.value if cell.level is not Level.NORMAL else ""
        kind = " ".join(filter(None, ("short" if cell.short else "", level)))
        given = f' class="{kind}"' if kind else ""
        # A narrow screen lays a label beside the content, which has to be one element for that.
        content = f"<div>{cell.html}</div>" if cell.html else ""
        html.append(f'<td role="cell" data-label="{column}"{given}>{content}</td>')
    return f'<tr role="row">{"".join(html)}</tr>'


def _node(row: NodeRow, now: float) -> _Row:
    return (
        _Cell(text(row.name)),
        _Cell(text(row.phase), row.level, short=True),
        _Cell(_since(row.since, now), short=True),
        _Cell(text(row.reason)),
        _Cell(text(row.limit)),
    )


def _drain(row: DrainRow, now: float) -> _Row:
    progress = "its pods are being read"
    if row.left is not None:
        whole = row.gone + row.left
        label = f"{row.gone} of {whole} pods are gone"
        progress = f'<progress max="{max(whole, 1)}" value="{row.gone}" aria-label="{label}">'
        progress += f"</progress>{label}"
        progress += f", {row.staying} stay" if row.staying else ""
    left = row.deadline - now
    deadline = f"in {span(left)}" if left >= 0 else f"over since {span(-left)}"
    return (
        _Cell(text(row.node)),
        _Cell(progress),
        _Cell(_since(row.since, now), short=True),
        _Cell(deadline if row.deadline else "", short=True),
        _Cell(text(row.state), row.level),
        _Cell(text(row.blockers)),
    )


def _policy(row: PolicyRow, now: float) -> _Row:
    return (
        _Cell(text(row.name)),
        _Cell(text(row.state), row.level, short=True),
        _Cell(f"{row.healthy} of {row.desired}", short=True),
        _Cell(str(row.restarts), short=True),
        _Cell(_since(row.last_restart, now) or "never", short=True),
        _Cell(text(row.message)),
    )


def _workload(row: WorkloadRow, _now: float) -> _Row:
    return (
        _Cell(text(row.name)),
        _Cell(f"{row.running} of {row.desired}", short=True),
        _Cell(str(row.unhealthy), row.level, short=True),
        _Cell(text(row.policy)),
        _Cell(text(row.message)),
    )


def _event(row: EventRow, now: float) -> _Row:
    message = text(row.message)
    if row.problem:
        message += f" <b>({text(row.problem)})</b>"
    return (
        _Cell(_since(row.at, now)),
        _Cell(text(row.reason), Level.WARNING if row.warning else Level.NORMAL, short=True),
        _Cell(text(row.about)),
        _Cell(message),
    )


def _since(moment: float, now: float) -> str:
    """How long ago, and when; empty if that is not known."""
    return f"{span(now - moment)} ago, {_time(moment, now)}" if moment else ""


def _time(moment: float, now: float) -> str:
    """Of another day with its date."""
    whole, today = time_text(moment), time_text(now)[:10]
    day = "" if whole[:10] == today else f"{whole[:10]} "
    return f'<time datetime="{whole}">{day}{whole[11:16]} UTC</time>'
