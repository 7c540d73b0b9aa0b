"""What can go wrong between a program and a server, request by request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tests.simulation.cluster.messages import Request


class Fault(Enum):
    """Of one request. What is lost after it took effect is the worst of all."""

    NONE = ""
    REFUSED = "refused"
    LOST_BEFORE = "lost before it took effect"
    LOST_AFTER = "lost after it took effect"
    LATE = "takes effect after the client gave up"
    SLOW = "slow"
    TRUNCATED = "answer truncated"
    NOT_JSON = "answer is a proxy's page"
    THROTTLED = "429"
    UNAVAILABLE = "503"
    INTERNAL = "500"
    INTERNAL_AFTER = "500 after it took effect"
    #: Of watches alone.
    SILENT = "watch without a sign of life"
    CUT = "watch cut off"


#: Which faults there are for a single answer, and for a watch.
OF_ANSWERS = (
    *(Fault.REFUSED, Fault.LOST_BEFORE, Fault.LOST_AFTER, Fault.LATE, Fault.SLOW),
    *(Fault.TRUNCATED, Fault.NOT_JSON, Fault.THROTTLED, Fault.UNAVAILABLE),
    *(Fault.INTERNAL, Fault.INTERNAL_AFTER),
)
OF_WATCHES = (Fault.REFUSED, Fault.SILENT, Fault.CUT, Fault.THROTTLED, Fault.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault, and how long (seconds) what it does takes, where it takes a while."""

    fault: Fault = Fault.NONE
    seconds: float = 0.0


#: Asked for each request.
Disturb = Callable[[Request], Trouble]


def undisturbed(_request: Request) -> Trouble:
    """Nothing goes wrong."""
    return Trouble()
