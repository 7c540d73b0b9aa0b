"""What a group of nodes lets begin now: by its mode, and by its maintenance windows. Pure.

An uncordon is never limited. A step that disrupts a node, such as a repair, waits as a drain does.
"""

from __future__ import annotations

from selfheal_remediator.config import Group
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.skip_reason import SkipReason
from selfheal_remediator.windows import AHEAD_DAYS, Opening, window_open


def check_group(group: Group, kind: Kind, opening: Opening) -> SkipReason | None:
    """None when a cordon or a drain (see kind) of one of the group's nodes may begin now."""
    if group.mode == "observe":
        return SkipReason("paused", f"group {group.name} only observes (mode: observe)")
    if opening.open or (kind is Kind.CORDON and group.outside_windows.cordon == "allow"):
        return None
    text = f"no maintenance window of group {group.name} is open"
    if opening.change is not None:
        text += f" before {time_text(opening.change)}"
    return SkipReason("paused", text, opening.change)


def check_started_drain(group: Group, now: float) -> tuple[SkipReason | None, float | None]:
    """Why a drain that has begun must not continue (None = it may), and when that changes."""
    continues = group.outside_windows.started_drain == "continue"
    opening = Opening(True, None) if continues else window_open(group.maintenance_windows, now)
    return check_group(group, Kind.DRAIN, opening), opening.change


class Maintenance:
    """Whether the windows of each group are open; it is computed again when that may change."""

    def __init__(self) -> None:
        #: By group: what was found when, and until when it holds.
        self._known: dict[str, tuple[Group, float, float, Opening]] = {}

    def check(self, group: Group | None, kind: Kind, now: float) -> SkipReason | None:
        """See check_group; without a group nothing waits."""
        return None if group is None else check_group(group, kind, self._opening(group, now))

    def _opening(self, group: Group, now: float) -> Opening:
        known = self._known.get(group.name)
        if known is not None and known[0] is group and known[1] <= now < known[2]:
            return known[3]
        opening = window_open(group.maintenance_windows, now)
        until = now + AHEAD_DAYS * 86400 if opening.change is None else opening.change
        self._known[group.name] = (group, now, until, opening)
        return opening
