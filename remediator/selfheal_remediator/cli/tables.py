"""Tables for people, from what `inspection` found. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from selfheal_remediator.cli.inspection import ClusterPlan, ClusterStatus, CordonedNode, NodePlan
from selfheal_remediator.cli.ladder_view import LadderPlan, StepPlan
from selfheal_remediator.cli.policy_view import PolicyStatus

_COLORS = {"red": "31", "yellow": "33", "green": "32", "bold": "1"}
_MARK = re.compile(r"<(/?)(red|yellow|green|bold)>")


def painted(text: str, *, color: bool) -> str:
    """Replace the marks <red>…</red> by terminal colours, or take them out."""
    if not color:
        return _MARK.sub("", text)
    return _MARK.sub(lambda m: "\033[0m" if m[1] else f"\033[{_COLORS[m[2]]}m", text)


def _one_line(text: str) -> str:
    """What others wrote (a node's message, a reason) without what moves or colours a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be, two spaces apart; the last one is not padded."""
    lines = [[_one_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(_MARK.sub("", line[i])) for line in lines) for i in range(len(head))]
    out = []
    for number, line in enumerate(lines):
        cells = [
            cell + " " * (width - len(_MARK.sub("", cell)))
            for cell, width in zip(line, widths, strict=True)
        ]
        text = "  ".join(cells).rstrip()
        out.append(f"<bold>{text}</bold>" if number == 0 else text)
    return "\n".join(out)


def span(seconds: float) -> str:
    """42s, 5m10s, 2h3m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60}s"
    return f"{whole // 3600}h{whole % 3600 // 60}m"


def plan_text(found: ClusterPlan, *, detail: bool) -> str:
    """The answer of `plan`."""
    parts = [f"note: {note}" for note in found.notes]
    if found.observing_until:
        parts.append(f"observing until {found.observing_until}: none of this is done before")
    shown = [item for item in found.nodes if detail or item.action != "none" or _why(item)]
    if not shown:
        parts.append(f"nothing to do: {len(found.nodes)} nodes evaluated (mode {_mode(found)})")
        return "\n".join([*parts, *_policies_plan(found)])
    grouped = any(item.group for item in found.nodes)
    head = ("NODE", *(["GROUP"] if grouped else []), "STATE", "ACTION", "LIMIT", "WHY")
    rows = [
        (
            item.node,
            *([item.group or "-"] if grouped else []),
            *(item.state, _action(item), item.limit or item.drain_waits or "-", _why(item)),
        )
        for item in shown
    ]
    parts.append(table(head, rows))
    tainted = dict.fromkeys(item.taint for item in shown if item.taint)
    parts += [f"what is cordoned gets the taint {taint}" for taint in tainted]
    for item in shown:
        parts += [_pods(item)] if item.pods else []
        parts += [_ladder(item.node, item.ladder)] if item.ladder is not None else []
    quiet = len(found.nodes) - len(shown)
    if quiet:
        parts.append(f"{quiet} more nodes: nothing to do")
    return "\n\n".join([*parts, *_policies_plan(found)])


def _why(item: NodePlan) -> str:
    """Why that, and what a person requests beside."""
    texts = [item.why, "" if item.request in item.why else item.request]
    return "; ".join(text for text in texts if text)


def _mode(found: ClusterPlan | ClusterStatus) -> str:
    until = found.observing_until
    return f"{found.mode} (observing until {until})" if until else found.mode


def _policies_plan(found: ClusterPlan) -> list[str]:
    """What would become of pods under policies; nothing where there are no policies."""
    if not found.policies:
        return []
    if not found.pods:
        return [f"no pod to restart: {found.policies} policies evaluated"]
    rows = []
    for item in found.pods:
        action = "<red>restart</red>" if item.action == "restart" else "-"
        waits = " (waits)" if item.waits and item.action == "restart" else ""
        rows.append((item.policy, item.pod, action + waits, item.why, item.waits or "-"))
    return [table(("POLICY", "POD", "ACTION", "WHY", "WAITS FOR"), rows)]


def _action(item: NodePlan) -> str:
    if item.action == "none":
        return "-"
    color = {"drain": "red", "cordon": "yellow", "uncordon": "green"}.get(item.action, "bold")
    if item.drain_waits:
        return f"<yellow>cordon</yellow>, <{color}>{item.action}</{color}> (waits)"
    waits = item.limit and item.action != "annotate"
    return f"<{color}>{item.action}</{color}>" + (" (waits)" if waits else "")


def _pods(item: NodePlan) -> str:
    rows = []
    for pod in item.pods:
        what = f"evict, wave {pod.wave}" if pod.fate == "evict" else pod.fate
        why = "; ".join(text for text in (pod.reason, pod.waits, pod.server) if text)
        rows.append((pod.pod, what, why or "-"))
    notes = "".join(f"\nnote: {note}" for note in item.notes)
    if item.headroom:
        notes += f"\n<red>no headroom</red>: {item.headroom}; it would stay cordoned, not drained"
    title = f"pods of {item.node}, if it is drained:"
    return f"{title}\n{table(('POD', 'WHAT', 'WHY / WAITS FOR'), rows)}{notes}"


def _ladder(node: str, ladder: LadderPlan) -> str:
    rows = [(str(number), *_step(step)) for number, step in enumerate(ladder.steps, 1)]
    rows += [("verify", *_step(ladder.verify))] if ladder.verify is not None else []
    title = f"what follows on {node}" + (f" ({ladder.progress}):" if ladder.progress else ":")
    return f"{title}\n{table(('STEP', 'KIND', 'WHAT', 'TIMEOUT', 'SETTLE'), rows)}"


def _step(step: StepPlan) -> tuple[str, str, str, str]:
    settle = "-" if step.settle is None else span(step.settle)
    return (step.kind, step.what, span(step.timeout), settle)


def status_text(found: ClusterStatus) -> str:
    """The answer of `status`."""
    leader = found.leader or "<red>nobody</red>"
    lines = [f"lease {found.lease or '(none found)'}, held by {leader}, mode {_mode(found)}"]
    if found.paused:
        lines.append(f"<red>paused</red>: {found.paused}")
    if found.trusted_annotations:
        lines.append(
            f"<yellow>trusted</yellow> by a person: {', '.join(found.trusted_annotations)}"
        )
    lines.append(f"{len(found.cordoned)} of {found.nodes} nodes cordoned")
    if found.cordoned:
        head = ("NODE", "PHASE", "FOR", "CONDITION", "PODS LEFT", "BLOCKED BY")
        lines.append(table(head, [_cordoned_row(item, found.now) for item in found.cordoned]))
    lines += [_one_line(f"{node}: {request}") for node, request in found.requests.items()]
    lines += [f"group {name}: {state}" for name, state in found.groups.items()]
    for what, names in found.others.items():
        lines.append(f"{what}: {', '.join(names)}")
    lines += [f"note: {note}" for note in found.notes]
    if found.policies:
        head = ("POLICY", "STATE", "HEALTHY", "RESTARTS", "LAST HEAL", "WHAT")
        lines.append(table(head, [_policy_row(item, found.now) for item in found.policies]))
    return "\n".join(lines)


def _policy_row(item: PolicyStatus, now: float) -> tuple[str, ...]:
    color = {"Healthy": "green", "Idle": "green", "GaveUp": "red"}.get(item.state, "yellow")
    healed = f"{span(now - item.last_heal)} ago" if item.last_heal else "-"
    return (
        item.policy,
        f"<{color}>{item.state}</{color}>",
        f"{item.healthy}/{item.desired}",
        str(item.restarts),
        healed,
        item.message or "-",
    )


def _cordoned_row(item: CordonedNode, now: float) -> tuple[str, ...]:
    color = {"draining": "yellow", "drained": "green"}.get(item.phase, "bold")
    blocked = "; ".join(item.blockers) or item.note or "-"
    left = str(item.pods_left) if item.phase == "draining" else "-"
    condition = f"{item.condition} ({item.reason})" if item.reason else item.condition
    phase = f"<{color}>{item.phase}</{color}>"
    return (item.node, phase, span(now - item.since), condition, left, blocked)
