"""`selfheal-remediator run`: checks everything that can be checked, then works until a signal."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

from selfheal_remediator import logs
from selfheal_remediator.actions.permissions import permissions as rights_of
from selfheal_remediator.config import (
    Config,
    LeaseSettings,
    SettingsError,
    load_config,
)
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.controller.parts import Identity
from selfheal_remediator.drain import autoscaler
from selfheal_remediator.environment import Environment
from selfheal_remediator.failures import Failure
from selfheal_remediator.healing.progress_probe import Fetch, fetch
from selfheal_remediator.health import Reply, serve
from selfheal_remediator.kube import custom_resources
from selfheal_remediator.kube.access import Access, load_configuration
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.election import Leader
from selfheal_remediator.kube.events import EventWriter
from selfheal_remediator.kube.lease import holder_identity
from selfheal_remediator.kube.permissions import Permission
from selfheal_remediator.kube.transport import Pool
from selfheal_remediator.metrics import Metrics
from selfheal_remediator.restore.release import KINDS
from selfheal_remediator.status_page.html import HEADERS
from selfheal_remediator.status_page.pages import Pages
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.runtime import REAL, Runtime

log = logging.getLogger("remediator")

#: How long the start waits for an API server that does not answer.
API_PATIENCE = 60.0
_M_ARENA_MAX = -8
#: A ConfigMap's change takes up to a minute to arrive in the pod; checking is cheap.
CONFIG_EVERY = 3.0


def permissions(config: Config, namespace: str, lease: str) -> list[Permission]:
    """Everything that `run` uses, as the README's and the chart's RBAC grant it."""
    leases = "coordination.k8s.io"
    wanted = [Permission(verb, "", "nodes") for verb in ("get", "list", "watch", "patch")]
    wanted += [Permission(verb, "", "pods") for verb in ("get", "list", "watch")]
    wanted.append(Permission("create", "", "pods", "eviction"))
    if config.drain.lifecycle_conditions:
        wanted.append(Permission("patch", "", "nodes", "status"))
    if config.drain.on_deadline == "delete":
        wanted.append(Permission("delete", "", "pods"))
    wanted.append(Permission("get", "", "persistentvolumeclaims"))
    wanted.append(Permission("get", "", "persistentvolumes"))
    wanted += [
        Permission(verb, "policy", "poddisruptionbudgets") for verb in ("get", "list", "watch")
    ]
    wanted.append(Permission("list", "apps", "daemonsets"))
    wanted += _for_repairs(config, namespace)
    if config.drain.surge:
        wanted += _FOR_SURGE
    if config.policies.enabled:
        wanted += _for_policies(config.policies.namespaces or ("",))
    if config.restore.enabled:
        wanted += _for_restoring(namespace, config.restore.config_map)
    wanted.append(Permission("list", leases, "leases"))
    if config.drain.headroom:
        wanted.append(Permission("list", "", "namespaces"))
    if config.drain.headroom and config.drain.autoscaler == "auto":
        status = {"namespace": autoscaler.STATUS_NAMESPACE, "name": autoscaler.STATUS_NAME}
        wanted.append(Permission("get", "", "configmaps", **status))
    wanted += [
        Permission("create", "", "events", namespace=place)
        for place in dict.fromkeys(("default", namespace))
    ]
    wanted.append(Permission("create", leases, "leases", namespace=namespace))
    wanted += [
        Permission(verb, leases, "leases", namespace=namespace, name=lease)
        for verb in ("list", "watch", "patch")
    ]
    return list(dict.fromkeys(wanted))


#: Rolling out a Deployment whose only pod a budget keeps, and telling its owner.
_FOR_SURGE = [
    Permission("get", "apps", "replicasets"),
    Permission("get", "apps", "deployments"),
    Permission("patch", "apps", "deployments"),
    Permission("create", "", "events"),
]


def _for_repairs(config: Config, namespace: str) -> list[Permission]:
    """What the steps after drains need: only of the kinds in use."""
    wanted = []
    if any(rule.then for rule in config.all_rules):
        wanted.append(Permission("list", "storage.k8s.io", "volumeattachments"))
    parts = [part for rule in config.all_rules for part in (*rule.then, rule.verify)]
    if any(part is not None and part.job is not None for part in parts):
        wanted += [
            Permission(verb, "batch", "jobs", namespace=namespace) for verb in ("get", "create")
        ]
    others = [step.machine or step.resource for rule in config.all_rules for step in rule.then]
    wanted += [
        Permission(verb, right.group, right.resource, namespace=right.namespace)
        for other in others
        if other is not None
        for right in rights_of(other)
        for verb in right.verbs
    ]
    return list(dict.fromkeys(wanted))


def _for_policies(namespaces: Iterable[str]) -> list[Permission]:
    """What pod healing needs beside: policies, their status, what stands behind their pods."""
    group, apps = (
        custom_resources.GROUP,
        ("replicasets", "deployments", "statefulsets", "daemonsets"),
    )
    wanted = []
    for place in namespaces:
        wanted += [
            Permission(verb, group, custom_resources.PLURAL, namespace=place)
            for verb in ("get", "list", "watch")
        ]
        wanted.append(
            Permission("patch", group, custom_resources.PLURAL, "status", namespace=place)
        )
        wanted += [Permission("get", "apps", resource, namespace=place) for resource in apps]
        wanted.append(Permission("create", "", "events", namespace=place))
    return wanted


def _for_restoring(namespace: str, config_map: str) -> list[Permission]:
    """What making deleted objects again needs: all in our namespace. The chart grants `patch` for
    the release's objects alone, by their names, which only their ConfigMap has."""
    wanted = [
        Permission(verb, "", "configmaps", namespace=namespace, name=config_map)
        for verb in ("get", "list", "watch")
    ]
    wanted += [
        Permission(verb, kind.group, kind.plural, namespace=namespace)
        for kind in KINDS.values()
        for verb in ("list", "watch", "create")
    ]
    return wanted


def run(options: argparse.Namespace) -> int:
    """Run the daemon; raises Failure if it cannot start.

    After a signal the process ends here with status 0 (the return type is for the commands'
    table): threads that wait for an answer must not delay it.
    """
    _limit_arenas()
    environment = Environment.read()
    config = load_config(options.config or environment.config_file)
    logs.set_up(environment.log_level, environment.log_format)
    access, default_namespace = load_configuration(options.kubeconfig, options.context)
    namespace = (
        options.namespace
        or config.lease.namespace
        or environment.pod_namespace
        or default_namespace
    )
    lease = config.lease
    if options.lease:
        lease = lease.model_copy(update={"name": options.lease})
    place = Place(namespace, lease, _identity(environment), environment.pod_uid)
    api, metrics, remediator = assemble(config, access, place)
    more = {"/status": partial(status_page, remediator, Pages())}
    healthy, ready = remediator.healthy, remediator.ready
    try:
        server = serve(environment.http_port, healthy, ready, metrics.render, more)
    except OSError as error:
        port = environment.http_port
        raise Failure(f"HTTP_PORT: port {port} cannot be used: {error.strerror}") from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, partial(_stop, remediator))
    log.info(
        "started: mode %s, %d rules, API server %s, lease %s, http port %d",
        config.mode,
        len(config.rules),
        api.server,
        place.owner,
        server.server_port,
    )
    for warning in config.warnings:
        log.warning("%s", warning)
    path = options.config or environment.config_file
    follow = partial(_follow_config, path, config, remediator, metrics)
    supervision.start("config", follow, REAL.event())
    remediator.run()
    log.info("stopped")
    _end_process()


@dataclass(frozen=True, slots=True)
class Place:
    """Where it runs. identity: what the Lease names as its holder; pod_uid: of our pod, empty
    outside one."""

    namespace: str
    lease: LeaseSettings
    identity: str
    pod_uid: str = ""

    @property
    def owner(self) -> str:
        """The name of the installation."""
        return f"{self.namespace}/{self.lease.name}"


class Daemon(NamedTuple):
    """Everything that `run` starts and serves."""

    api: KubernetesApi
    metrics: Metrics
    remediator: Remediator


def assemble(
    config: Config,
    access: Access,
    place: Place,
    *,
    pool: Pool | None = None,
    fetch: Fetch = fetch,
    runtime: Runtime = REAL,
) -> Daemon:
    """Check that it can do its work, and make the daemon. Raises Failure if it could not.

    pool: answers requests to the API server; fetch: those to pods.
    """
    metrics = Metrics(restores=config.restore.enabled, runtime=runtime)
    api = KubernetesApi(
        access,
        place.namespace,
        config.api,
        dry_run=config.dry_run,
        on_request=metrics.api.count_request,
        pool=pool,
        runtime=runtime,
    )
    _check_permissions(api, permissions(config, place.namespace, place.lease.name))
    events = EventWriter(api, place.identity, metrics.api.count_event, runtime=runtime)
    leader_of, owner = partial(_leader_of, api, place), Identity(place.owner, place.pod_uid)
    remediator = Remediator(
        config, api, leader_of, events, metrics, owner, fetch=fetch, runtime=runtime
    )
    return Daemon(api, metrics, remediator)


def _leader_of(
    api: KubernetesApi,
    place: Place,
    on_change: Callable[[bool], None],
    on_annotations: Callable[[Mapping[str, str]], None],
) -> Leader:
    namespace, lease, identity = place.namespace, place.lease, place.identity
    watch = api.lease(namespace, lease.name)
    return Leader(
        api, watch, lease, namespace, identity, on_change, on_annotations, runtime=api.runtime
    )


def status_page(remediator: Remediator, pages: Pages) -> Reply | None:
    """The page, from the last snapshot; None = it is off. For any thread."""
    if not remediator.config.status_page.enabled:
        return None
    snapshot = remediator.status.snapshot
    if snapshot is None:
        return Reply(503, "text/plain", b"there is nothing to show yet: see its log\n", HEADERS)
    page = pages.page(snapshot, remediator.clock())
    return Reply(200, "text/html; charset=utf-8", page, HEADERS)


def _stop(remediator: Remediator, _number: int, _frame: object) -> None:
    """A signal to end has come."""
    remediator.stop()


def _end_process() -> NoReturn:
    """Requests under way are the API server's now; their threads are not waited for."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def _follow_config(path: Path, config: Config, remediator: Remediator, metrics: Metrics) -> None:
    """Take up changes of the file; one that cannot be used is reported and not taken."""
    complaint = ""
    while True:
        REAL.sleep(CONFIG_EVERY)
        try:
            fresh = load_config(path)
        except SettingsError as error:
            if str(error) != complaint:
                complaint = str(error)
                log.error(
                    "the new configuration is rejected, the previous one stays in effect: %s", error
                )
                metrics.controller.config_ok.set(0)
            continue
        complaint = ""
        metrics.controller.config_ok.set(1)
        if fresh != config:
            config = fresh
            remediator.reconfigure(fresh)


def _check_permissions(api: KubernetesApi, wanted: list[Permission]) -> None:
    """Raises Failure that names each missing permission, or when no API server answers."""
    runtime = api.runtime
    given_up = runtime.monotonic() + API_PATIENCE
    while True:
        try:
            missing = api.missing(wanted)
            break
        except Exception as error:
            if runtime.monotonic() > given_up:
                message = f"the API server {api.server} does not answer: {error}"
                raise Failure(message) from error
            log.warning("the API server %s does not answer yet: %s", api.server, error)
            runtime.sleep(2.0)
    if missing:
        names = "; ".join(str(item) for item in missing)
        raise Failure(f"missing permissions (RBAC): {names}", code=3)


def _identity(environment: Environment) -> str:
    """Pod name and uid; outside a pod something as unique."""
    if environment.pod_name and environment.pod_uid:
        return holder_identity(environment.pod_name, environment.pod_uid)
    return holder_identity(socket.gethostname(), str(uuid.uuid4()))


def _limit_arenas() -> None:
    """Keep glibc from giving each thread a heap of its own: they are many and do little."""
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    except (OSError, AttributeError):
        log.debug("mallopt is not available: the C library manages memory")
