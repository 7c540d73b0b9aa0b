"""The node-problem-detector on each node: writes conditions and their heartbeats.

As the real one it writes all its conditions every HEARTBEAT seconds and after each change, and
begins with all of them False when it starts (its problemdaemon and k8sexporter).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.simulation.cluster import conditions
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.messages import Json
from tests.simulation.scheduler import Simulation

HEARTBEAT = 60.0


@dataclass(slots=True)
class Detector:
    """Of one node. reports: status and reason of each condition; runs: whether it writes."""

    node: str
    reports: dict[str, tuple[str, str]]
    runs: bool = True
    starts: int = 0
    moved: set[str] = field(default_factory=set)


class Detectors:
    """All of them. kinds: the conditions that they know."""

    def __init__(self, simulation: Simulation, cluster: Cluster, kinds: Iterable[str]) -> None:
        self._simulation, self._cluster, self.kinds = simulation, cluster, tuple(kinds)
        self.of: dict[str, Detector] = {}

    def start(self, node: str) -> None:
        """The detector of a node starts, also again: it knows of nothing bad yet."""
        before = self.of.get(node)
        starts = before.starts + 1 if before is not None else 1
        good = {kind: ("False", f"No{kind}") for kind in self.kinds}
        detector = self.of[node] = Detector(node, good, starts=starts, moved=set(self.kinds))
        offset = HEARTBEAT * self._simulation.random.random()
        self._write(detector)
        self._simulation.after(offset, lambda: self._beat(detector))

    def stop(self, node: str) -> None:
        """It dies: its conditions stay as they are, without heartbeats."""
        if node in self.of:
            self.of[node].runs = False

    def say(self, node: str, kind: str, status: str, reason: str = "") -> None:
        """What the detector finds from now on; written at once, if it runs."""
        detector = self.of.get(node)
        if detector is None:
            return
        detector.reports[kind] = status, reason or ("Fault" if status == "True" else f"No{kind}")
        self._write(detector)

    def finds(self, node: str, kind: str) -> str:
        """The status that it reports."""
        detector = self.of.get(node)
        return detector.reports.get(kind, ("", ""))[0] if detector is not None else ""

    def _beat(self, detector: Detector) -> None:
        if detector.runs and self.of.get(detector.node) is detector:
            self._write(detector)
            self._simulation.after(HEARTBEAT, lambda: self._beat(detector))

    def _write(self, detector: Detector) -> None:
        kubelet = self._cluster.kubelets.of.get(detector.node)
        if not detector.runs or kubelet is None or not kubelet.alive:
            return
        now, moved = self._cluster.store.clock(), detector.moved

        def write(raw: Json) -> None:
            for kind in self.kinds:
                status, reason = detector.reports[kind]
                conditions.put(
                    raw, kind, status, now, reason=reason, heartbeat=True, moved=kind in moved
                )

        self._cluster.store.change(("nodes", "", detector.node), write, "node-problem-detector")
        detector.moved = set()
