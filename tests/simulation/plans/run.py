"""One seed: a cluster, its plan, what happened, and how much of the plan was right."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.plans.compare import findings
from tests.simulation.plans.finding import Finding
from tests.simulation.plans.scene import Scene
from tests.simulation.remediator.process import logged
from tests.simulation.scheduler import Simulation


@dataclass(slots=True)
class Result:
    """What became of a seed. unexpected: exceptions that the product did not expect."""

    seed: int
    findings: list[Finding] = field(default_factory=list)
    made_of: list[str] = field(default_factory=list)
    plans: list[tuple[float, object]] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


def run(seed: int) -> Result:
    """Run one seed."""
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(seed, Path(folder))
        simulation: Simulation = scene.simulation
        with logged(simulation), simulation:
            scene.run()
            found, trace = list(findings(scene)), list(simulation.trace)
    unexpected = [line for line in trace if ": unexpected " in line]
    return Result(seed, found, scene.story, list(scene.plans), trace, unexpected)


def pods_and_steps(found: Iterable[Finding]) -> list[Finding]:
    """Those of the first plan that are about pods and steps of ladders."""
    return [one for one in found if one.kind.startswith(("pod", "step"))]


def table(results: Iterable[Result]) -> str:
    """Right and all by kind, and the shares that were right."""
    found = [one for result in results for one in result.findings]
    whole = Counter(one.kind for one in found)
    right = Counter(one.kind for one in found if one.right)
    lines = [f"{right[kind]:5} of {number:5}  {kind}" for kind, number in sorted(whole.items())]
    shares = (_share("pods and steps", pods_and_steps(found)), _share("all", found))
    return "\n".join([*lines, *shares])


def _share(what: str, found: list[Finding]) -> str:
    right = sum(one.right for one in found)
    return f"{right:5} of {len(found):5}  {what}, {100 * right / max(1, len(found)):.1f} %"
