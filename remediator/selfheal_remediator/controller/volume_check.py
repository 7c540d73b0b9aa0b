"""Whether volumes are attached to drained nodes whose ladder is to begin. On the main thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from selfheal_remediator.controller.reporter import Reporter
from selfheal_remediator.controller.step_requests import StepRequests
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.node.assessment import Attached
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.threads.pool import Purpose, Workers

log = logging.getLogger(__name__)

#: Seconds between two reads.
VOLUMES_EVERY = 10.0


class VolumeCheck:
    """See the module."""

    def __init__(
        self,
        requests: StepRequests,
        planner: Planner,
        workers: Workers,
        reporter: Reporter,
        clock: Callable[[], float],
    ) -> None:
        self._requests, self._planner, self._clock = requests, planner, clock
        self._workers, self._reporter = workers, reporter
        #: The nodes: uid -> name.
        self._waiting: dict[str, str] = {}
        self._read_at: float | None = None
        #: The nodes of the read under way: an older one may not be heard after a later one.
        self._reading: dict[str, str] | None = None

    def forget(self) -> None:
        """Another term or mode."""
        self._waiting.clear()
        self._read_at = self._reading = None
        self._planner.volumes({})

    def begin(self, uid: str, node: str, now: float) -> None:
        """The node's ladder waits for its volumes."""
        self._waiting[uid] = node
        self._read_at = now if self._read_at is None else self._read_at

    def end(self, uid: str) -> None:
        """It does not."""
        self._waiting.pop(uid, None)

    def advance(self, now: float) -> float | None:
        """Read them, if it is time to; returns when it is next."""
        if self._read_at is None or self._read_at > now:
            return self._read_at
        if not self._waiting:
            self.forget()
            return None
        self._read_at = now + VOLUMES_EVERY
        if self._reading is None:
            reading = self._reading = dict(self._waiting)
            answered = partial(self._known, reading)
            job = partial(self._requests.read_attached, reading, answered)
            self._workers.submit(job, Purpose.LOOKUPS)
        return self._read_at

    def _known(self, reading: dict[str, str], found: dict[str, str] | ApiFailure) -> None:
        if reading is not self._reading:
            return  # asked in another term
        self._reading = None
        if isinstance(found, ApiFailure):
            self._not_known(found)
            return
        now, current = self._clock(), {}
        for uid, text in found.items():
            if uid not in self._waiting:
                continue
            before = self._planner.attached.get(uid, Attached())
            current[uid] = Attached(text, before.since if before.text else now)
            if text and not before.text:
                message = f"the first step waits until detached: {text}"
                node = self._waiting[uid]
                self._reporter.of_node(node, uid, "VolumesAttached", message, warning=False)
        self._planner.volumes(current)

    def _not_known(self, failure: ApiFailure) -> None:
        """What was known before may have changed: no step begins by it."""
        log.warning("VolumeAttachments, which ladders wait for: %s", failure)
        current = {}
        for uid, node in self._waiting.items():
            before = self._planner.attached.get(uid, Attached())
            current[uid] = replace(before, readable=False)
            if before.readable:
                message = f"the first step waits until VolumeAttachments can be read: {failure}"
                self._reporter.of_node(node, uid, "VolumesUnknown", message, warning=True)
        self._planner.volumes(current)
