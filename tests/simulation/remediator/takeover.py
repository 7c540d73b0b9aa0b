"""A leader is killed while nothing else is wrong: the other replica leads soon."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.simulation.remediator.invariants import Watcher, holder_of
from tests.simulation.remediator.problems import Problem
from tests.simulation.remediator.world import World

#: design: a killed leader is replaced within 16 s.
WITHIN = 16.0


@dataclass(slots=True)
class Takeover:
    """See the module."""

    world: World
    watcher: Watcher
    problems: list[Problem] = field(default_factory=list)

    def kill(self) -> None:
        """Kill the leader, if there is another replica."""
        holder = holder_of(self.world)
        leaders = [one for one in self.world.replicas if holder.startswith(f"{one.name}_")]
        if len(self.world.replicas) < 2 or not leaders or not leaders[0].runs:
            return
        leaders[0].kill(60.0)
        self.world.simulation.after(WITHIN, lambda: self._check(leaders[0].name))

    def _check(self, killed: str) -> None:
        holder = holder_of(self.world)
        since = self.world.simulation.now - self.watcher.renewed
        if holder.startswith(f"{killed}_") or since > WITHIN:
            what = f"{WITHIN:g} s after {killed} was killed the Lease names {holder}"
            self.problems.append(Problem("takeover", what))
