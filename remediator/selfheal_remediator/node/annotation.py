"""The one annotation that outlives the process: what we did to a node, and why.

JSON of at most 1 KiB under `selfheal.dev/state`; schema version `v`. A value that cannot be
read is never overwritten: the node is left alone and this is reported.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from selfheal_remediator.kube.fields import Flag, Text, Whole
from selfheal_remediator.kube.objects import Node

STATE_KEY = "selfheal.dev/state"
EXCLUDE_KEY = "selfheal.dev/exclude"
#: Which step created an object, and how far that is (actions/step_object.py).
STEP_OBJECT_KEY = "selfheal.dev/step-object"
SCHEMA_VERSION = 1
MAX_BYTES = 1024
#: Seconds beyond which a number is no time: anybody who may write nodes can write any number here.
MAX_SECONDS = 2**40


class Phase(Enum):
    """Where a node is on its way."""

    SEEN = "seen"  # the condition is bad, its `for` is running
    NOTED = "noted"  # observe rule
    CORDONED = "cordoned"  # cordoned; not (yet) drained
    DRAINING = "draining"  # cordoned; being drained
    DRAINED = "drained"  # cordoned; empty
    REPAIRING = "repairing"  # cordoned; a step of the rule's `then` was begun
    REPAIR_FAILED = "repair_failed"  # cordoned; no step helped, or it could not be verified
    VERIFYING = "verifying"  # cordoned; recovered, the rule's `verify` was begun
    CANCELLED = "cancelled"  # a person uncordoned it; this occurrence is over
    SUSPECT = "suspect"  # uncordoned: the detector is suspected
    HEALED = "healed"  # uncordoned; kept only for the flap count

    @property
    def cordoned(self) -> bool:
        """Whether we keep the node out of service in this phase."""
        return self in _CORDONED


_CORDONED = frozenset(
    {
        *(Phase.CORDONED, Phase.DRAINING, Phase.DRAINED),
        *(Phase.REPAIRING, Phase.REPAIR_FAILED, Phase.VERIFYING),
    }
)


def _name(field: str) -> str:
    """What a field of State is called in the annotation."""
    return "bootID" if field == "boot_id" else to_camel(field)


def _pairs(counts: object) -> object:
    """JSON has counts by name, State pairs."""
    if not isinstance(counts, dict):
        raise PydanticCustomError("counts", "Input should be an object of counts")
    return tuple(counts.items())


_Seconds = Annotated[Whole, Field(ge=-MAX_SECONDS, le=MAX_SECONDS)]


@dataclass(frozen=True, slots=True)
class State:
    """Content of the annotation. Times are seconds since the epoch, whole seconds."""

    __pydantic_config__: ClassVar = ConfigDict(alias_generator=_name)

    phase: Phase
    by: Text = ""
    condition: Text = ""
    status: Text = ""
    reason: Text = ""
    action: Text = ""
    latched: Flag = False
    transition: _Seconds = 0
    first_seen: _Seconds = 0
    since: _Seconds = 0
    drain_started: _Seconds = 0
    #: Seconds of the drain's deadline that were used when this was written; 0 = no pod was evicted,
    #: and whether they fit elsewhere is not known (where drain.headroom asks for it).
    drain_used: _Seconds = 0
    no_room: _Seconds = 0
    boot_id: Text = ""
    scale_down_mark: Flag = False
    #: Which rule `first_seen` is about (Rule.mark); empty = not written down.
    rule: Text = ""
    #: When it was reported that nothing but a human can end this, 0 = it was not.
    reported: _Seconds = 0
    cordons: tuple[_Seconds, ...] = ()
    #: How often owners put pods here despite the cordon, and up to which pod (see returns.py).
    returns: Annotated[tuple[tuple[Text, Whole], ...], BeforeValidator(_pairs)] = ()
    returned: Text = ""
    #: How many steps of the rule's `then` were begun; the last of them is the one below.
    steps: Annotated[Whole, Field(ge=0, le=99)] = 0
    #: Which step it is (Step.mark), and when it (or `verify`) was begun and has ended, 0 = not yet.
    step: Text = ""
    step_began: _Seconds = 0
    step_ended: _Seconds = 0
    step_failed: Flag = False
    #: Seconds of its timeout that were used when this was written, see node/work_clock.py.
    step_used: _Seconds = 0
    #: The node's boot id when the step began; empty = still that of the cordon, boot_id.
    step_boot: Text = ""
    #: It recovered, and `verify` failed: only a person uncordons it.
    unverified: Flag = False
    #: Which taint was set with the cordon (taint_mark), and whether instead of it.
    taint: Text = ""
    taint_only: Flag = False

    @property
    def step_runs(self) -> bool:
        """Whether a step, or `verify`, was begun and has not ended."""
        return self.phase in (Phase.REPAIRING, Phase.VERIFYING) and not self.step_ended

    def to_json(self) -> str:
        """Compact JSON of at most 1 KiB: the reason is shortened, the returns are combined
        into one count, then the oldest cordons are dropped.

        The cordons are the flap count, by which a node waits for a person: a detector's text
        must not displace them.
        """
        text = self.untrimmed()
        if len(text.encode()) <= MAX_BYTES:
            return text  # nearly always; the write waits for it
        state = self._with_shorter_reason()
        if self._excess(state) > 0:
            merged = (("", max((count for _, count in state.returns), default=0)),)
            state = replace(state, returns=merged if state.returns else ())
        while self._excess(state) > 0 and state.cordons:
            state = replace(state, cordons=state.cordons[1:])
        return state.untrimmed()

    def _excess(self, state: State) -> int:
        return len(state.untrimmed().encode()) - MAX_BYTES

    def _with_shorter_reason(self) -> State:
        """The longest beginning of the reason with which all fits, or none of it."""
        low, high = 0, len(self.reason)
        while low < high:
            middle = (low + high + 1) // 2
            if self._excess(replace(self, reason=self.reason[:middle])) > 0:
                high = middle - 1
            else:
                low = middle
        return replace(self, reason=self.reason[:low])

    def untrimmed(self) -> str:
        """The annotation's text with all that is known, however long."""
        raw = _ADAPTER.dump_python(self, mode="json", by_alias=True, exclude_defaults=True)
        raw.pop("returns", None)
        raw.pop("returned", None)
        if self.phase.cordoned and self.returns:
            # Of this occurrence only: a node that is uncordoned has no cordon to come back past.
            raw["returns"], raw["returned"] = dict(self.returns), self.returned
        return json.dumps({"v": SCHEMA_VERSION, **raw}, separators=(",", ":"), ensure_ascii=False)


_ADAPTER = TypeAdapter(State)
_NAMES = frozenset(_name(field.name) for field in fields(State))


class Unreadable(ValueError):
    """The annotation is not ours to interpret; says what is wrong with it."""


def parse_state(text: str) -> State:
    """The state from the annotation's text. Raises Unreadable."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("v") != SCHEMA_VERSION:
        version = raw.get("v") if isinstance(raw, dict) else None
        raise Unreadable(f"schema version {version!r}, this version reads {SCHEMA_VERSION}")
    # Other fields are ignored here: pydantic refuses an object with a name that is no valid text.
    known = {name: value for name, value in raw.items() if name in _NAMES}
    try:
        return _ADAPTER.validate_python(known)
    except ValidationError as error:
        raise Unreadable(_problem(error)) from error


def _problem(error: ValidationError) -> str:
    """What is wrong with the first value that is."""
    first: Any = error.errors(include_url=False)[0]
    name, value = first["loc"][0], repr(first["input"])[:100]
    match first["type"]:
        case "enum":
            return f"unknown {name} {value}"
        case "value_error":
            return f"{name} is no text"
        case "greater_than_equal" | "less_than_equal":
            return f"{name} is no number of seconds"
        case _:
            return f"{name} is {value}: {first['msg']}"


def read_state(node: Node) -> State | None:
    """Our annotation on the node. Raises Unreadable."""
    text = node.annotations.get(STATE_KEY)
    return parse_state(text) if text else None


def known_state(node: Node) -> State | None:
    """Our annotation on the node; None = there is none that can be read."""
    try:
        return read_state(node)
    except Unreadable:
        return None
