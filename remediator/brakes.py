"""How many nodes may be out of service, and how fast they may go. Pure.

Brakes pace the work: each hold and each drain asks for room, the answer names the brake that
has none. Giving a node back never asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from remediator.settings import Brakes


@dataclass(frozen=True, slots=True)
class Member:
    """One node of the population, as the brakes count it.

    held: out of service because of us; unavailable: out of service for whatever other reason
    (not Ready, cordoned by somebody else, being deleted, about to be removed); silent: it does
    not answer at all (Ready Unknown).
    """

    zone: str = ""
    control_plane: bool = False
    held: bool = False
    unavailable: bool = False
    draining: bool = False
    silent: bool = False


@dataclass(slots=True)
class Tally:
    """The counts against which brakes are asked; `add_*` when something was allowed.

    hold_times: when the last holds began (our clock), needed as far back as the rate's window.
    peak: the largest population of the last hour, so that an autoscaler that removes drained
    nodes does not shrink the budget.
    """

    population: int = 0
    held: int = 0
    unavailable: int = 0
    draining: int = 0
    control_plane_held: int = 0
    silent: int = 0
    zones: Counter[str] = field(default_factory=Counter)
    zones_held: Counter[str] = field(default_factory=Counter)
    hold_times: list[float] = field(default_factory=list)
    peak: int = 0

    @classmethod
    def of(cls, members: Iterable[Member], hold_times: Iterable[float], peak: int) -> Tally:
        """Counts over the population."""
        tally = cls(hold_times=sorted(hold_times), peak=peak)
        for member in members:
            tally.count(member, 1)
        return tally

    def count(self, member: Member, sign: int) -> None:
        """Take a node in (1) or out (-1)."""
        self.population += sign
        self.zones[member.zone] += sign
        if member.held:
            self.held += sign
            self.zones_held[member.zone] += sign
            self.control_plane_held += sign * member.control_plane
        elif member.unavailable:
            self.unavailable += sign
        self.draining += sign * member.draining
        self.silent += sign * member.silent

    def copy(self, hold_times: Iterable[float], peak: int) -> Tally:
        """The same counts, to be changed on their own."""
        return replace(
            self,
            zones=self.zones.copy(),
            zones_held=self.zones_held.copy(),
            hold_times=list(hold_times),
            peak=peak,
        )

    def add_hold(self, member: Member, now: float) -> None:
        """Count a hold that was just allowed."""
        self.held += 1
        self.zones_held[member.zone] += 1
        self.control_plane_held += member.control_plane
        self.unavailable -= member.unavailable
        self.hold_times.append(now)


def budget(brakes: Brakes, population: int) -> int:
    """How many of `population` nodes may be held: amount, at least floor, at most ceiling."""
    nodes = max(brakes.max_held.of(population), brakes.max_held_floor)
    return nodes if brakes.max_held_ceiling is None else min(nodes, brakes.max_held_ceiling)


@dataclass(frozen=True, slots=True)
class Engaged:
    """A brake that has no room. `until` = when time alone opens it (None = not by time)."""

    brake: str
    message: str
    until: float | None = None


def ask_hold(brakes: Brakes, tally: Tally, member: Member, now: float) -> Engaged | None:
    """None when the node may be held now, else the brake that is engaged."""
    population = max(tally.population, tally.peak)
    limit = budget(brakes, population)
    if tally.held >= limit:
        return Engaged("maxHeld", f"{tally.held} of {population} nodes held, allowed {limit}")
    out = tally.held + tally.unavailable + (not member.unavailable)
    if out > limit and not member.unavailable:
        return Engaged(
            "unavailable",
            f"{tally.held} nodes held and {tally.unavailable} unavailable for other reasons, "
            f"allowed together {limit} of {population}",
        )
    if member.control_plane and tally.control_plane_held >= 1:
        return Engaged("controlPlane", "one control-plane node is held already")
    if brakes.max_held_per_zone is not None:
        zone_limit = max(brakes.max_held_per_zone.of(tally.zones[member.zone]), 1)
        if tally.zones_held[member.zone] >= zone_limit:
            return Engaged(
                "zone",
                f"{tally.zones_held[member.zone]} nodes held in zone {member.zone or '(none)'}, "
                f"allowed {zone_limit}",
            )
    return _ask_pace(brakes, tally, now)


def _ask_pace(brakes: Brakes, tally: Tally, now: float) -> Engaged | None:
    if tally.hold_times and brakes.min_interval:
        opens = tally.hold_times[-1] + brakes.min_interval
        if opens > now:
            return Engaged("minInterval", f"{brakes.min_interval:g}s between two holds", opens)
    if brakes.rate is not None:
        recent = [moment for moment in tally.hold_times if moment > now - brakes.rate.window]
        if len(recent) >= brakes.rate.count:
            opens = recent[-brakes.rate.count] + brakes.rate.window
            return Engaged("rate", f"{len(recent)} holds within {brakes.rate.window:g}s", opens)
    return None


def ask_drain(brakes: Brakes, tally: Tally) -> Engaged | None:
    """None when one more drain may begin now, else the brake that is engaged."""
    if tally.draining >= brakes.max_draining:
        return Engaged("maxDraining", f"{tally.draining} drains, allowed {brakes.max_draining}")
    return None
