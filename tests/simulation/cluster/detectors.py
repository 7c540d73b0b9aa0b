"""What writes node conditions beside the kubelet: node-problem-detector and its like.

As node-problem-detector does it (pkg/exporters/k8sexporter, pkg/custompluginmonitor): all its
conditions are written after a change and as a heartbeat, every five minutes by default; a start
sets each to False whatever the cause; lastTransitionTime moves with the status and with the
reason, and, with its option, with the message. A detector that is dead leaves everything as it
was, only older. Times are by the node's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.simulation.cluster import conditions
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.messages import Json

HEARTBEAT = 300.0
#: A change is written within its update period (seconds).
UPDATE_PERIOD = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What a detector says of one condition."""

    status: str
    reason: str
    message: str = ""


@dataclass(slots=True)
class Detector:
    """The detector of one node. transitions_by_message: its option of that name.

    starts: how often it has started; two lives of it are never mixed up.
    """

    node: str
    findings: dict[str, Finding] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    runs: bool = False
    starts: int = 0
    transitions_by_message: bool = False


class Detectors:
    """All detectors of a cluster. kinds: the conditions that they know."""

    def __init__(
        self, cluster: Cluster, kinds: Iterable[str], *, heartbeat: float = HEARTBEAT
    ) -> None:
        self._cluster, self._simulation = cluster, cluster.simulation
        self.kinds, self.heartbeat = tuple(kinds), heartbeat
        self.of: dict[str, Detector] = {}
        self.manager = "node-problem-detector"

    # -- life ---------------------------------------------------------------------------

    def start(self, node: str) -> Detector:
        """A detector starts, also again: it reports every condition as False."""
        detector = self.of.setdefault(node, Detector(node))
        detector.runs, detector.starts = True, detector.starts + 1
        detector.findings = {kind: _good(kind) for kind in self.kinds}
        detector.moved = set(self.kinds)
        self._write(detector)
        offset = self.heartbeat * self._simulation.random.uniform(0.2, 1.0)
        self._simulation.after(offset, lambda: self._beat(detector, detector.starts))
        return detector

    def stop(self, node: str) -> None:
        """It dies; what it wrote stays."""
        if node in self.of:
            self.of[node].runs = False

    def restart(self, node: str, seconds: float = 2.0) -> None:
        """It dies and starts again after so long."""
        self.stop(node)
        self._simulation.after(seconds, lambda: self._start_again(node))

    def _start_again(self, node: str) -> None:
        if not self.of[node].runs and node in self._cluster.kubelets.of:
            self.start(node)

    def rollout(self, seconds_each: float = 5.0) -> None:
        """A new version comes: one after the other starts again."""
        for number, node in enumerate(sorted(self.of)):
            self._simulation.after(number * seconds_each, partial(self.restart, node))

    # -- what they say ------------------------------------------------------------------

    def report(
        self, node: str, kind: str, status: str, reason: str = "", message: str = ""
    ) -> None:
        """A detector finds this from now on; nothing while it does not run."""
        detector = self.of.get(node)
        if detector is None or not detector.runs:
            return
        reason = reason or (f"{kind}Found" if status == "True" else f"No{kind}")
        before, after = detector.findings.get(kind), Finding(status, reason, message)
        moves = before is None or (before.status, before.reason) != (status, reason)
        if moves or (before != after and detector.transitions_by_message):
            detector.moved.add(kind)
        detector.findings[kind] = after
        starts, wait = detector.starts, self._simulation.random.uniform(0.0, UPDATE_PERIOD)
        self._simulation.after(wait, lambda: self._write_if(detector, starts))

    def alternate(
        self,
        node: str,
        kind: str,
        findings: Sequence[tuple[str, str, str]],
        every: float,
        times: int,
    ) -> None:
        """These (status, reason, message) in turn: two failing checks, flapping."""

        def turn(number: int) -> None:
            if number < times:
                self.report(node, kind, *findings[number % len(findings)])
                self._simulation.after(every, lambda: turn(number + 1))

        turn(0)

    def flap(self, node: str, kind: str, every: float, times: int) -> None:
        """Bad and good in turn."""
        self.alternate(node, kind, (("True", "", ""), ("False", "", "")), every, times)

    def wave(self, nodes: Iterable[str], kind: str, within: float, lasts: float) -> None:
        """A wrong rule of the detector: many nodes are bad within seconds, for so long."""
        for node in nodes:
            start = self._simulation.random.uniform(0.0, within)
            self._simulation.after(start, partial(self.report, node, kind, "True"))
            self._simulation.after(start + lasts, partial(self.report, node, kind, "False"))

    def status(self, node: str, kind: str) -> str:
        """What it says; empty = nothing."""
        detector = self.of.get(node)
        found = detector.findings.get(kind) if detector is not None else None
        return found.status if found is not None else ""

    # -- writing ------------------------------------------------------------------------

    def _beat(self, detector: Detector, starts: int) -> None:
        if detector.runs and detector.starts == starts:
            self._write(detector)
            self._simulation.after(self.heartbeat, lambda: self._beat(detector, starts))

    def _write_if(self, detector: Detector, starts: int) -> None:
        if detector.runs and detector.starts == starts:
            self._write(detector)

    def _write(self, detector: Detector) -> None:
        kubelet = self._cluster.kubelets.of.get(detector.node)
        if kubelet is None or not kubelet.alive:
            return  # the machine is down, or its network
        now, moved = self._cluster.store.clock() + kubelet.skew, detector.moved

        def write(raw: Json) -> None:
            for kind, finding in detector.findings.items():
                conditions.put(
                    raw,
                    kind,
                    finding.status,
                    now,
                    reason=finding.reason,
                    message=finding.message,
                    heartbeat=True,
                    moved=kind in moved,
                )

        self._cluster.store.change(("nodes", "", detector.node), write, self.manager)
        detector.moved = set()


def _good(kind: str) -> Finding:
    return Finding("False", f"No{kind}", f"{kind} is not there")
