"""A leader is killed while nothing else is wrong: the other replica leads soon."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.simulation.remediator.invariants import Watcher
from tests.simulation.remediator.problems import Problem
from tests.simulation.remediator.states import holder_of, leader_of
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
        leader = leader_of(self.world)
        if len(self.world.replicas) < 2 or leader is None:
            return
        leader.kill(60.0)
        self.world.simulation.after(WITHIN, lambda: self._check(leader.name))

    def _check(self, killed: str) -> None:
        holder = holder_of(self.world)
        since = self.world.simulation.now - self.watcher.renewed
        if holder.startswith(f"{killed}_") or since > WITHIN:
            what = f"{WITHIN:g} s after {killed} was killed the Lease names {holder}"
            self.problems.append(Problem("takeover", what))
