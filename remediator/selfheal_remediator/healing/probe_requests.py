"""Sends the probes for progress. `_probe` runs in a worker of its own pool, all else on the main
thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.progress_probe import NoAnswer, ProgressProbe
from selfheal_remediator.healing.progress_reports import Probe
from selfheal_remediator.healing.term import Term
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Workers

log = logging.getLogger(__name__)


class ProbeRequests:
    """probed: receives the label of each result, in any thread."""

    def __init__(
        self,
        pool: Workers,
        adapter: ProgressProbe,
        term: Term,
        healing: Healing,
        probed: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._pool, self._adapter = pool, adapter
        self._term, self._healing = term, healing
        self._probed, self._clock = probed, clock

    def send(self, probe: Probe) -> None:
        """Probe a pod; its answer reaches the policy's evaluation."""
        self._pool.submit(partial(self._probe, probe))

    def _probe(self, probe: Probe) -> None:
        begun = self._clock()
        reading, result, what = None, "answered", f"the probe of {probe.address}"
        try:
            with supervision.expected("worker", what, NoAnswer, runtime=self._pool.runtime):
                reading = self._adapter.probe(probe.address, probe.port, probe.path, begun)
        except (NoAnswer, ApiFailure) as error:
            result = "silent"
            log.debug("%s %s: progress probe failed: %s", probe.policy, probe.address, error)
        self._probed(result)
        self._term.post(partial(self._healing.answered, probe.policy, probe.uid, reading, begun))
