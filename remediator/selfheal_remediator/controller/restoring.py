"""Connects the restoring of the release's objects with the controller. All on the main thread."""

from __future__ import annotations

from collections.abc import Callable

from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.controller.mode import Mode
from selfheal_remediator.controller.reporter import Reporter
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.events import EventWriter, ObjectEvent
from selfheal_remediator.metrics import Metrics
from selfheal_remediator.restore.notices import Notice
from selfheal_remediator.restore.runner import Callbacks, Restorer
from selfheal_remediator.threads.pool import Post, Workers


class ObjectRestoring:
    """See the module."""

    def __init__(
        self,
        api: KubernetesApi,
        authority: Authority,
        mode: Mode,
        workers: Workers,
        post: Post,
        metrics: Metrics,
        events: EventWriter,
        reporter: Reporter,
        clock: Callable[[], float],
    ) -> None:
        self._authority, self._mode = authority, mode
        self._namespace, self._events, self._reporter = api.namespace, events, reporter
        callbacks = Callbacks(self._tell, metrics.restore.count, metrics.restore.set_state)
        self._restorer = Restorer(api, api.namespace, workers, post, callbacks, clock)

    def follow(self) -> None:
        """A term of leadership, or another configuration or mode, has begun, or another remediator
        comes first, or does no more."""
        self._restorer.follow(self._mode.config.restore, leading=self._authority.responsible)

    def end(self) -> None:
        """The process ends."""
        self._restorer.follow(self._mode.config.restore, leading=False)

    def advance(self, now: float, *, stopped: bool) -> float:
        """Restore what is due; returns when to be called again."""
        return self._restorer.advance(now, stopped=stopped)

    def _tell(self, notice: Notice) -> None:
        if notice.kind is None:
            self._reporter.of_itself(notice.reason, notice.text, warning=notice.warning)
            return
        kind, text = notice.kind, notice.text
        self._events.record(
            ObjectEvent(
                kind.api,
                kind.name,
                self._namespace,
                notice.name,
                notice.uid,
                notice.reason,
                text,
                notice.warning,
            )
        )
