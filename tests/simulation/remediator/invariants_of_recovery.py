"""What must hold of each node that the remediator uncordons as recovered; see `invariants`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from selfheal_remediator.node.annotation import Phase, State
from tests.simulation.cluster import conditions
from tests.simulation.cluster.messages import Json
from tests.simulation.remediator.world import World

#: Moments are written down, and compared, in whole seconds.
GRAIN = 2.0


@dataclass(slots=True)
class Recovery:
    """fail(invariant, what): something does not hold. bad: when a condition (uid, type) was last
    bad by a rule."""

    world: World
    fail: Callable[[str, str], None]
    bad: dict[tuple[str, str], float] = field(default_factory=dict)

    def node(self, old: Json | None, new: Json | None) -> None:
        """A node has changed: what was bad in either state was so until now."""
        now = self.world.simulation.now
        for raw in (old, new):
            for rule in self.world.config.rules if raw is not None else ():
                if raw is not None and conditions.status_of(raw, rule.condition) in rule.status:
                    self.bad[raw["metadata"]["uid"], rule.condition] = now

    def uncordoned(self, new: Json, before: State | None, after: State | None, by: str) -> None:
        """It was uncordoned by the remediator."""
        healed = after is None or after.phase is Phase.HEALED
        asked = any("uncordon" in one.arguments for one in self.world.console.outcomes)
        if before is None or not healed or asked:
            return
        name = new["metadata"]["name"]
        if before.latched and new["status"]["nodeInfo"].get("bootID") == before.boot_id:
            # README: a latched condition counts as recovered only after a reboot.
            self.fail("latched", f"{by} uncordons {name}, which was not booted again")
        window = self.world.config.recovery.stabilization_window
        last = self.bad.get((new["metadata"]["uid"], before.condition), float("-inf"))
        good = self.world.simulation.now - last
        if good < window - GRAIN:
            # README: good for the stabilization window.
            what = f"{by} uncordons {name}, good for {good:.0f} of {window:.0f} s"
            self.fail("stabilization_window", what)
