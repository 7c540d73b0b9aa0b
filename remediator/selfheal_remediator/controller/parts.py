"""The parts of the controller and how they are connected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selfheal_remediator.config import Config
from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.controller.claims_reader import ClaimsReader
from selfheal_remediator.controller.drain_control import DrainControl
from selfheal_remediator.controller.drain_status import DrainStatus
from selfheal_remediator.controller.metrics_publisher import MetricsPublisher
from selfheal_remediator.controller.mode import Mode
from selfheal_remediator.controller.node_feed import NodeFeed
from selfheal_remediator.controller.node_writer import NodeWriter
from selfheal_remediator.controller.peer_check import PeerCheck
from selfheal_remediator.controller.pod_healing import PodHealing
from selfheal_remediator.controller.repairs import Repairs
from selfheal_remediator.controller.reporter import Reporter
from selfheal_remediator.controller.restoring import ObjectRestoring
from selfheal_remediator.healing.progress_probe import Fetch, fetch
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.election import Leader
from selfheal_remediator.kube.events import EventWriter
from selfheal_remediator.metrics import Metrics
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.threads.pool import Post, Workers
from selfheal_remediator.threads.runtime import REAL, Event, Runtime


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are: `owner` names the installation, `pod_uid` this pod (empty outside one)."""

    owner: str
    pod_uid: str = ""


@dataclass(frozen=True, slots=True)
class Parts:
    """All of them belong to the main thread, but for what their modules say."""

    api: KubernetesApi
    authority: Authority
    mode: Mode
    planner: Planner
    writer: NodeWriter
    drains: DrainControl
    drain_status: DrainStatus
    repairs: Repairs
    pods: PodHealing
    restoring: ObjectRestoring
    nodes: NodeFeed
    peer_check: PeerCheck
    publisher: MetricsPublisher
    metrics: Metrics
    events: EventWriter
    reporter: Reporter


def assemble(
    config: Config,
    api: KubernetesApi,
    leader: Leader,
    events: EventWriter,
    metrics: Metrics,
    identity: Identity,
    post: Post,
    clock: Callable[[], float],
    stop: Event,
    *,
    fetch: Fetch = fetch,
    runtime: Runtime = REAL,
) -> Parts:
    """The parts for this configuration; `post` hands jobs to the main thread, `stop` ends them."""
    authority, mode = Authority(), Mode(config, clock())
    api.dry_run = mode.config.dry_run
    workers = Workers(config.api.max_in_flight, runtime=runtime)
    planner = Planner(mode.config, identity.owner, clock())
    reporter = Reporter(events, identity.owner, leader)
    writer = NodeWriter(api, planner, authority, mode, workers, post, metrics, reporter, clock)
    drains = DrainControl(
        api, planner, writer, mode, workers, post, identity.pod_uid, metrics, reporter, clock
    )
    parts = api, planner, writer, authority, mode, workers, post, metrics, reporter, clock
    pods = PodHealing(
        api, planner, authority, mode, workers, post, metrics, events, clock, fetch=fetch
    )
    restoring = ObjectRestoring(
        api, authority, mode, workers, post, metrics, events, reporter, clock
    )
    return Parts(
        api=api,
        authority=authority,
        mode=mode,
        planner=planner,
        writer=writer,
        drains=drains,
        drain_status=DrainStatus(api, planner, writer, authority, mode, workers, post, clock),
        repairs=Repairs(*parts),
        pods=pods,
        restoring=restoring,
        nodes=NodeFeed(
            api,
            planner,
            writer,
            pods.healer,
            mode,
            post,
            metrics,
            clock,
            stop,
            runtime=runtime,
        ),
        peer_check=PeerCheck(ClaimsReader(api, clock), planner, authority, workers, post, clock),
        publisher=MetricsPublisher(metrics, planner, authority, drains.draining, pods.healer),
        metrics=metrics,
        events=events,
        reporter=reporter,
    )
