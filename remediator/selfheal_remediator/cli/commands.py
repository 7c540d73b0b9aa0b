"""The commands for people: plan, status, pause, resume, exclude, include, drain, uncordon."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from selfheal_remediator.cli import inspection, tables, uninstall
from selfheal_remediator.cli.inspection import ClusterStatus
from selfheal_remediator.cli.reading import read_all
from selfheal_remediator.config import Config, load_config
from selfheal_remediator.environment import Environment
from selfheal_remediator.failures import ApiFailure, Failure
from selfheal_remediator.kube.access import load_configuration
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.json_values import timestamp
from selfheal_remediator.kube.lease import (
    LABEL,
    PAUSE_KEY,
    LeaseView,
    lease_from_json,
    trusted_annotations,
)
from selfheal_remediator.kube.objects import DRAIN_KEY, Json, Node, node_from_json
from selfheal_remediator.node import lifecycle
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import (
    EXCLUDE_KEY,
    STATE_KEY,
    Phase,
    State,
    Unreadable,
    read_state,
)
from selfheal_remediator.node.drain_request import DRAIN_REQUESTED, UNTIL_KEY
from selfheal_remediator.node.patches import annotation_path, node_patch, withdrawal
from selfheal_remediator.node.selection import foreign_mark, selected
from selfheal_remediator.node.taints import taken, uncordon_ops
from selfheal_remediator.quantities import parse_duration
from selfheal_remediator.threads.runtime import REAL, Runtime

_MERGE = "application/merge-patch+json"
_CLEAR = "\033[H\033[J"


def connect(options: argparse.Namespace) -> tuple[KubernetesApi, Config, str]:
    """The API, the configuration (the defaults if there is no file), the namespace."""
    environment = Environment.read()
    path: Path = options.config or environment.config_file
    given = options.config is not None or "CONFIG_FILE" in os.environ
    config = load_config(path) if given or path.exists() else Config()
    access, default_namespace = load_configuration(options.kubeconfig, options.context)
    namespace = options.namespace or config.lease.namespace or environment.pod_namespace
    api = KubernetesApi(
        access,
        namespace or default_namespace,
        config.api,
        pool=options.pool,
        runtime=options.runtime,
    )
    return api, config, namespace


# -- reading -------------------------------------------------------------------------------


def plan(options: argparse.Namespace) -> int:
    """Say what would be done; changes nothing."""
    api, config, namespace = connect(options)
    lease = _find_lease(api, config, namespace, options.lease, required=False)
    owner = f"{lease.namespace}/{lease.name}" if lease else f"{namespace}/{config.lease.name}"
    paused = lease.annotations.get(PAUSE_KEY, "") if lease else ""
    trusted = trusted_annotations(lease.annotations) if lease else frozenset()
    now, only = api.runtime.time(), options.nodes
    own_uid = lease.holder_uid if lease else ""
    found = inspection.plan(
        api, config, owner, paused, now, only=only, trusted=trusted, own_uid=own_uid
    )
    if lease is not None:
        found = replace(found, observing_until=inspection.observing_until(config, lease, now))
    unknown = set(options.nodes) - {item.node for item in found.nodes}
    if unknown:
        raise Failure(f"no such node: {', '.join(sorted(unknown))}")
    _print(options, found.to_json(), lambda: tables.plan_text(found, detail=bool(options.nodes)))
    return 0


def status(options: argparse.Namespace) -> int:
    """Show the cordoned nodes and their progress."""
    api, config, namespace = connect(options)

    def look() -> ClusterStatus:
        lease = _find_lease(api, config, namespace, options.lease, required=False)
        return inspection.status(api, config, lease, api.runtime.time())

    if options.watch is not None:
        return watch(look, options.watch, as_json=options.output == "json", runtime=options.runtime)
    found = look()
    _print(options, found.to_json(), lambda: tables.status_text(found))
    return 0


def watch(
    look: Callable[[], ClusterStatus],
    seconds: float,
    *,
    as_json: bool = False,
    runtime: Runtime = REAL,
) -> int:
    """Show what `look` returns, every `seconds`, until Ctrl-C.

    A terminal shows the newest; elsewhere, and as JSON (an object a line), each change is added.
    An API server that becomes unavailable later is waited for; if the first read fails, this fails.
    """
    screen = sys.stdout.isatty() and not as_json
    before: object = None
    try:
        while True:
            try:
                found = look()
                seen: object = replace(found, now=0.0, renewed="")
                text = json.dumps(found.to_json()) if as_json else tables.status_text(found)
            except ApiFailure as error:
                if before is None:
                    raise
                seen = str(error)
                text = json.dumps({"error": seen}) if as_json else f"<red>API server</red>: {error}"
            if screen or seen != before:
                moment = f"{_now(runtime):%Y-%m-%d %H:%M:%S}Z"
                head = "" if as_json else f"{_CLEAR if screen else ''}<bold>{moment}</bold>\n"
                sys.stdout.write(tables.painted(head + text, color=screen) + "\n")
                sys.stdout.flush()
            before = seen
            runtime.sleep(seconds)
    except KeyboardInterrupt:
        return 0


def _now(runtime: Runtime) -> datetime:
    return datetime.fromtimestamp(runtime.time(), UTC)


# -- changing ------------------------------------------------------------------------------


def pause(options: argparse.Namespace) -> int:
    """Write the reason on the Lease; the leader's watch reports it at once."""
    why = options.why.strip()
    if not why:
        raise Failure("--why: a reason is required, so that others know why it is paused", code=2)
    lease = _annotate_lease(options, why)
    return _reported(options, {"paused": why, "lease": lease}, f"paused ({lease}): {why}")


def resume(options: argparse.Namespace) -> int:
    """Take the pause off the Lease."""
    lease = _annotate_lease(options, None)
    return _reported(options, {"paused": None, "lease": lease}, f"resumed ({lease})")


def exclude(options: argparse.Namespace) -> int:
    """Annotate a node so that it is left as it is."""
    why = options.why.strip()
    if not why:
        raise Failure("--why: a reason is required, so that others know why it is excluded", code=2)
    api, _, _ = connect(options)
    text = f"{why} ({_now(api.runtime):%Y-%m-%d %H:%M}Z)"
    body = {"metadata": {"annotations": {EXCLUDE_KEY: text}}}
    _written(api, "PATCH", f"/api/v1/nodes/{quote(options.node)}", body, _MERGE)
    return _reported(
        options, {"node": options.node, "excluded": text}, f"{options.node} excluded: {text}"
    )


def drain(options: argparse.Namespace) -> int:
    """Annotate a node so that the remediator drains it."""
    why = options.why.strip()
    if not why:
        raise Failure("--why: a reason is required, so that others know why it is drained", code=2)
    api, config, _ = connect(options)
    now = api.runtime.time()
    until = None if options.until is None else time_text(_end(options.until, now))
    refusal = _not_drained(node_from_json(api.node(options.node)), config)
    if refusal:
        raise Failure(f"{options.node} would not be drained: {refusal}")
    text = f"{why} ({_now(api.runtime):%Y-%m-%d %H:%M}Z)"
    body = {"metadata": {"annotations": {DRAIN_KEY: text, UNTIL_KEY: until}}}
    _written(api, "PATCH", f"/api/v1/nodes/{quote(options.node)}", body, _MERGE)
    done = {"node": options.node, "drain": text, "until": until}
    ends = f" until {until}" if until else f"; `uncordon {options.node}` ends that"
    return _reported(options, done, f"{options.node}: drain requested{ends}: {text}")


def _end(text: str, now: float) -> float:
    """Seconds since the epoch of `--until`. Raises Failure."""
    try:
        end = timestamp(text)
    except ValueError:
        try:
            end = now + parse_duration(text)
        except ValueError:
            end = None
    if end is None or end <= now:
        allowed = "a later time with its zone (2027-01-31T04:00Z), or a duration from now (4h)"
        raise Failure(f"--until: {text!r} is not {allowed}", code=2)
    return end


def _not_drained(node: Node, config: Config) -> str:
    """Why a request would wait in vain, empty = it would not."""
    try:
        state = read_state(node)
    except Unreadable as error:
        return f"annotation {STATE_KEY}: {error}"
    if EXCLUDE_KEY in node.annotations:
        return f"excluded: {node.annotations[EXCLUDE_KEY]}; `include {node.name}` ends that"
    if not selected(node, config):
        return "it is not among the nodes that the configuration selects (see --config)"
    if node.unschedulable and not (state is not None and state.phase.cordoned):
        return f"somebody else cordoned it; `kubectl uncordon {node.name}` ends that"
    in_place = "" if state is not None and state.phase.cordoned else taken(node, config.taint)
    if in_place:
        return f"{in_place}; remove it to end that"
    return _waits(node, state, config) or foreign_mark(node)


def _waits(node: Node, state: State | None, config: Config) -> str:
    """Why it would wait without end, empty = it would not."""
    group = config.group_of(node.labels)
    if group is not None and group.mode == "observe":
        return f"its group {group.name} only observes (mode: observe)"
    if state is not None and (state.phase, state.condition) == (Phase.CANCELLED, DRAIN_REQUESTED):
        return f"somebody uncordoned it despite a request; `uncordon {node.name}` withdraws that"
    return ""


def include(options: argparse.Namespace) -> int:
    """Take the annotation of `exclude` off a node."""
    api, _, _ = connect(options)
    annotations = api.node(options.node)["metadata"].get("annotations") or {}
    excluded = EXCLUDE_KEY in annotations
    done = {"node": options.node, "included": excluded}
    if not excluded:
        return _reported(options, done, f"{options.node} was not excluded by `exclude`")
    body = {"metadata": {"annotations": {EXCLUDE_KEY: None}}}
    _written(api, "PATCH", f"/api/v1/nodes/{quote(options.node)}", body, _MERGE)
    return _reported(options, done, f"{options.node} included")


def uncordon(options: argparse.Namespace) -> int:
    """End our cordon of one node, or of all before an uninstall."""
    return _uncordon_all(options) if options.all else _uncordon_node(options)


def _uncordon_node(options: argparse.Namespace) -> int:
    """Uncordon what a remediator cordoned, and void what is written on the node."""
    api, config, namespace = connect(options)
    raw = api.node(options.node)
    owner = _owner(api, config, namespace, options.lease)
    ops, uncordoned = uncordon_patch(options.node, raw, owner, api.runtime.time())
    done = {"node": options.node, "uncordoned": uncordoned, "forgotten": bool(ops)}
    if not ops:
        return _reported(options, done, f"{options.node}: no remediator cordoned it")
    path = f"/api/v1/nodes/{quote(options.node)}"
    _written(api, "PATCH", path, ops, "application/json-patch+json")
    text = "uncordoned" if uncordoned else f"annotation {STATE_KEY} removed"
    node = node_from_json(raw)
    stays = node.unschedulable and not uncordon_ops(node)
    if uncordoned and stays:
        text += f" by us; `kubectl uncordon {options.node}` ends somebody else's cordon"
    if any(op["path"] == annotation_path(DRAIN_KEY) for op in ops):
        text += ", the request of a drain is withdrawn"
    return _reported(options, done, f"{options.node}: {text}")


def _uncordon_all(options: argparse.Namespace) -> int:
    """Uncordon all that this installation cordoned, and have it change nothing any more."""
    api, config, namespace = connect(options)
    try:
        lease = _find_lease(api, config, namespace, options.lease, required=False)
        if lease is not None:
            uninstall.stop(api, lease, options.timeout + uninstall.STOPPED_AFTER)
            namespace, name = lease.namespace, lease.name
        else:
            name = options.lease or config.lease.name
        found = uninstall.uncordon_all(api, f"{namespace}/{name}", options.timeout)
        if lease is not None:
            uninstall.stop(api, lease, uninstall.STOPPED_AFTER, forget=True)
    except ApiFailure as failure:
        if not options.best_effort:
            raise
        found = uninstall.Result(left={"(all nodes)": f"the API server refused: {failure}"})
    _reported(options, found.to_json(), found.text)
    return 1 if (found.left or found.conditions) and not options.best_effort else 0


def _owner(api: KubernetesApi, config: Config, namespace: str, name: str | None) -> str | None:
    """The installed remediator, None = there is none; empty = the caller may not read it."""
    try:
        lease = _find_lease(api, config, namespace, name, required=False)
    except ApiFailure as failure:
        if failure.status not in (401, 403):
            raise
        return ""
    return f"{lease.namespace}/{lease.name}" if lease is not None else None


def uncordon_patch(name: str, raw: Json, owner: str | None, now: float) -> tuple[list[Json], bool]:
    """Uncordon a node that any remediator cordoned; whether one had cordoned it.

    The annotation records for the installed remediator (`owner`) that a person did it, otherwise it
    would cordon the node again at once. In any other phase the annotation is removed.
    """
    node = node_from_json(raw)
    try:
        state = read_state(node)
    except Unreadable as error:
        raise Failure(f"node {name}: annotation {STATE_KEY}: {error}") from error
    withdraw = withdrawal(node)
    if state is None and not withdraw:
        return [], False
    if state is None or not state.phase.cordoned:
        action = Action(Kind.CLEAR, name, node.uid, None, "", "")
        return node_patch(action, node, scale_down_disabled=False) + withdraw, False
    cancelled = replace(
        lifecycle.cancelled(state, now), by=owner or state.by, reported=0, cordons=()
    )
    after = None if owner is None else cancelled
    action = Action(Kind.UNCORDON, name, node.uid, after, "", "")
    return node_patch(action, node, scale_down_disabled=False) + withdraw, True


def _annotate_lease(options: argparse.Namespace, why: str | None) -> str:
    api, config, namespace = connect(options)
    lease = _find_lease(api, config, namespace, options.lease, required=True)
    assert lease is not None
    path = (
        f"/apis/coordination.k8s.io/v1/namespaces/{quote(lease.namespace)}/leases/"
        f"{quote(lease.name)}"
    )
    _written(api, "PATCH", path, {"metadata": {"annotations": {PAUSE_KEY: why}}}, _MERGE)
    return f"{lease.namespace}/{lease.name}"


def _find_lease(
    api: KubernetesApi, config: Config, namespace: str, name: str | None, *, required: bool
) -> LeaseView | None:
    """The remediator's Lease: the one named, here or in a configuration, else the only one."""
    found, unread = read_all(api.leases(f"{LABEL}=true"), lease_from_json)
    if namespace:
        found = [lease for lease in found if lease.namespace == namespace]
    wanted = name or (config.lease.name if "lease" in config.model_fields_set else None)
    if wanted and (name or len(found) > 1):
        found = [lease for lease in found if lease.name == wanted] or ([] if name else found)
    if len(found) == 1:
        return found[0]
    if not required:
        return min(found, key=lambda lease: lease.created or 0.0, default=None)
    for item in unread:
        if not found and name in (None, item.name) and namespace in ("", item.namespace):
            raise Failure(f"Lease {item.id} cannot be read: {item.problem}")
    if not found:
        where = f" in namespace {namespace}" if namespace else ""
        raise Failure(f"no remediator's Lease (label {LABEL}=true) found{where}: is it running?")
    names = ", ".join(f"{lease.namespace}/{lease.name}" for lease in found)
    raise Failure(f"several remediators: {names}; choose with --namespace and --lease", code=2)


def _written(api: KubernetesApi, method: str, path: str, body: object, content_type: str) -> None:
    answer = api.write(method, path, body, content_type=content_type)
    if not answer.ok:
        raise answer.failure()


# -- saying --------------------------------------------------------------------------------


def _print(options: argparse.Namespace, value: Any, text: Callable[[], str]) -> None:
    if options.output == "json":
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(tables.painted(text(), color=sys.stdout.isatty()) + "\n")


def _reported(options: argparse.Namespace, value: dict[str, Any], text: str) -> int:
    if options.output == "json":
        text = json.dumps(value, ensure_ascii=False)
    sys.stdout.write(text + "\n")
    return 0
