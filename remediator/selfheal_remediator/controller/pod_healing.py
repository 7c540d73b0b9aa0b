"""Connects pod healing with what is known of nodes. All methods run on the main thread."""

from __future__ import annotations

from collections.abc import Callable

from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.controller.mode import Mode
from selfheal_remediator.healing.callbacks import Callbacks
from selfheal_remediator.healing.node_view import node_path, node_trouble, reported_of_nodes
from selfheal_remediator.healing.plan import RestartAction
from selfheal_remediator.healing.policy import PAUSED
from selfheal_remediator.healing.progress_probe import Fetch, fetch
from selfheal_remediator.healing.runner import Healer
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.events import EventWriter
from selfheal_remediator.metrics import Metrics
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.threads.pool import Post, Workers


class PodHealing:
    """See the module."""

    def __init__(
        self,
        api: KubernetesApi,
        planner: Planner,
        authority: Authority,
        mode: Mode,
        workers: Workers,
        post: Post,
        metrics: Metrics,
        events: EventWriter,
        clock: Callable[[], float],
        *,
        fetch: Fetch = fetch,
    ) -> None:
        self._planner, self._authority, self._mode, self._metrics = (
            planner,
            authority,
            mode,
            metrics,
        )
        callbacks = Callbacks(
            publish=events.record,
            node_trouble=self._node_trouble,
            node_path=self._node_path,
            restarted=self._restarted,
            refused=self._refused,
            probed=self._probed,
            gone=metrics.healing.forget_policy,
        )
        self.healer = Healer(
            api,
            mode.config,
            workers,
            post,
            callbacks,
            clock,
            fetch=fetch,
            runtime=workers.runtime,
        )

    def advance(self, now: float, unhealthy: str) -> float | None:
        """Restart what is to be restarted, and tell the planner which nodes have hung pods;
        returns when to be called again."""
        paused = self._authority.paused
        wake = self.healer.advance(now, stopped=f"{PAUSED}{paused}" if paused else unhealthy)
        planner, healer = self._planner, self.healer
        signals = reported_of_nodes(
            planner.signals, healer.findings, planner.pods_hung, now, known=healer.known
        )
        if signals != planner.signals:
            planner.signal(signals, now)
            return now
        return wake

    def _node_trouble(self, name: str) -> str:
        return node_trouble(self._planner.entry_named(name), self._planner.marks)

    def _node_path(self, name: str) -> bool:
        entry = self._planner.entry_named(name)
        return node_path(entry, self._mode.config, self._planner.marks)

    def _restarted(self, action: RestartAction) -> None:
        self._metrics.healing.count_restart(action.policy, action.cause.value)

    def _refused(self, cause: str) -> None:
        self._metrics.healing.refused.labels(cause).inc()

    def _probed(self, result: str) -> None:
        self._metrics.healing.probes.labels(result).inc()
