"""A drain that a person requests by annotations of the Node. Pure.

Its engine and limits are those of a rule's drain. It is over when the annotation is removed, or at
its end by time; then the node is uncordoned.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.json_values import timestamp
from selfheal_remediator.kube.objects import DRAIN_KEY, Node

#: Its end (RFC 3339); without it the request is open until it is withdrawn.
UNTIL_KEY = "selfheal.dev/drain-until"
#: What the node's annotation has as the condition.
DRAIN_REQUESTED = "DrainRequested"
_LONGEST_WHY = 200


@dataclass(frozen=True, slots=True)
class DrainRequest:
    """why: a person's text. until: seconds since the epoch, None = not by time. by: the program
    that wrote it, empty = not known. problem: what is wrong with its end, empty = nothing."""

    why: str
    until: float | None = None
    by: str = ""
    problem: str = ""

    def begins(self, now: float) -> bool:
        """Whether the node is to be drained; not while its end cannot be read."""
        return not self.problem and self.keeps(now)

    def keeps(self, now: float) -> bool:
        """Whether a node that is drained for it stays cordoned."""
        return self.until is None or now < self.until

    @property
    def text(self) -> str:
        """For people."""
        parts = [f"drain requested: {self.why or 'no reason given'}"]
        if self.by:
            parts.append(f"by {self.by}")
        if self.until is not None:
            parts.append(f"until {time_text(self.until)}")
        return ", ".join(parts) + (f"; {self.problem}" if self.problem else "")


def drain_request(node: Node) -> DrainRequest | None:
    """What the node's annotations request, None = nothing."""
    why = node.annotations.get(DRAIN_KEY)
    if why is None:
        return None
    until, problem = node.annotations.get(UNTIL_KEY), ""
    try:
        moment = timestamp(until or None)
    except ValueError:
        moment = None
    if until is not None and moment is None:
        problem = (
            f"annotation {UNTIL_KEY} is {until!r:.60}, not a time such as 2027-01-31T04:00:00Z, "
            "so no drain begins"
        )
    return DrainRequest(why.strip()[:_LONGEST_WHY], moment, node.drain_requested_by, problem)
