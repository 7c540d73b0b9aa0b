"""What follows when a world is settled: one or two more faults, a rest, and messages. Pure.

While much goes wrong at a time, little can be expected of a single message. So each world ends with
an exam: something fails, for a moment or for long, in some worlds with messages meanwhile. When it
is over and all is answered, fresh messages come one by one: the active model must answer each of
them soon. Then so many come at once that each worker must take some. An exam has a random generator
of its own: without exams, seeds would have the same worlds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from selfheal_worker.model.load_time import LONGEST_LOAD
from tests.simulation.models.conditions import Condition
from tests.simulation.models.words import Nature
from tests.simulation.worker import messages
from tests.simulation.worker.faults import MOMENTARY, OF_BROKER, OF_WORKERS, PLUG_IN, Fault, Kind
from tests.simulation.worker.messages import Message

#: Seconds in which a message is answered when nothing is wrong: the longest answer has three.
SOON = 10.0
#: Seconds in which a model that is back is found by a probe: 30 s at most between two of them, or
#: 5 minutes where a key or a quota was refused.
_PROBED, _PROBED_AFTER_ACCESS = 60.0, 420.0
#: A probe that hangs may last for the time of the longest load and of five calls.
_HOLD_A_PROBE = (Condition.SILENT, Condition.DRIPS, Condition.ENDLESS)
_CALLS = 5 * 60.0
#: Seconds between fresh messages: the one before is answered.
_APART = 12.0
#: Seconds without anything before the first of them: no model's pause is left.
_PAUSE = 60.0
_LENGTHS = (2.0, 30.0, 30.0, 300.0, 1200.0)


@dataclass(frozen=True)
class Exam:
    """Times count from the beginning of each part. faults, trouble: what goes wrong, and the
    messages meanwhile; calm: when all must be as before. fresh: messages that come one by one after
    that; crowd: those that come at once."""

    faults: tuple[Fault, ...]
    trouble: tuple[Message, ...]
    calm: float
    fresh: tuple[Message, ...]
    crowd: tuple[Message, ...]

    @property
    def messages(self) -> tuple[Message, ...]:
        """All of them."""
        return (*self.trouble, *self.fresh, *self.crowd)

    def story(self) -> list[str]:
        """For people."""
        lines = [(one.at, one.story()) for one in self.faults]
        lines += [(one.at, one.story()) for one in self.trouble]
        intro = "  the exam; its times count from when all is settled:"
        return [intro, *(line for _, line in sorted(lines))]


@dataclass(frozen=True)
class Setting:
    """What an exam has to know of its world. servers: names, and whether they are asked by https;
    plug_ins: models in the worker's own process; heartbeat: seconds."""

    servers: dict[str, bool]
    plug_ins: Sequence[str]
    workers: int
    concurrency: int
    heartbeat: float
    grace: float
    sizes: messages.Sizes


def make(seed: int, setting: Setting, first: int) -> Exam:
    """A seed's exam. first: the number of its first message."""
    chance = Random(f"{seed}/exam")
    faults = _faults(chance, setting)
    natures = dict.fromkeys(setting.servers, Nature.GOOD)
    maker = messages.Maker(chance, setting.sizes)
    many = setting.workers * setting.concurrency
    count = chance.choice((0, 0, 1, many, 2 * many))
    since, until = faults[0].at, max(one.end for one in faults)
    trouble = tuple(
        maker.make(first + number, round(chance.uniform(since, until), 2), natures)
        for number in range(count)
    )
    first += count
    alone = chance.choice((1, setting.workers, 2 * setting.workers))
    fresh = tuple(
        messages.good(first + number, _PAUSE + _APART * number, natures) for number in range(alone)
    )
    crowd = tuple(
        messages.good(first + alone + number, _PAUSE + _APART * (alone + 1), natures)
        for number in range(many)
    )
    calm = max(one.end + _rest(one, setting) for one in faults)
    return Exam(faults, trouble, calm, fresh, crowd)


def _faults(chance: Random, setting: Setting) -> tuple[Fault, ...]:
    seconds = chance.choice(_LENGTHS)
    models = [*setting.servers, *setting.plug_ins]
    kinds: list[Kind] = [*OF_BROKER, *OF_WORKERS, Kind.LATE_THREADS]
    kinds += [Kind.CONDITION] * (len(kinds) if models else 0)
    one = _fault(chance, chance.choice(kinds), 5.0, seconds, models, setting)
    beside = chance.choice(("nothing", "a model", "late threads"))
    at = round(chance.uniform(0.0, one.end), 2)
    others = [name for name in models if name != one.target]
    if beside == "a model" and others:
        more = _fault(chance, Kind.CONDITION, at, chance.choice(_LENGTHS), others, setting)
    elif beside == "late threads" and one.kind is not Kind.LATE_THREADS:
        length = min(60.0, one.seconds + 20.0)
        at = max(0.0, one.end - length / 2)
        more = _fault(chance, Kind.LATE_THREADS, at, length, models, setting)
    else:
        return (one,)
    return tuple(sorted((one, more), key=lambda fault: fault.at))


def _fault(
    chance: Random, kind: Kind, at: float, seconds: float, models: Sequence[str], setting: Setting
) -> Fault:
    target, condition, amount = "", None, 0.0
    if kind is Kind.CONDITION:
        target = chance.choice(models)
        known: list[Condition] = [one for one in Condition if one is not Condition.UP]
        if target in setting.plug_ins:
            known = [*PLUG_IN]
        elif not setting.servers[target]:
            known = [one for one in known if one not in (Condition.UNTRUSTED, Condition.NO_TLS)]
        condition = chance.choice(known)
    elif kind not in OF_BROKER:
        target = str(chance.randrange(setting.workers))
    if kind is Kind.CLOCK_JUMP:
        amount = chance.choice((-3600.0, 3600.0, 86_400.0))
    if kind in MOMENTARY:
        seconds = 0.0
    elif kind in (Kind.PAUSE, Kind.LATE_THREADS):
        seconds = min(seconds, 60.0)
    return Fault(at, kind, target, seconds, condition, amount)


def _rest(one: Fault, setting: Setting) -> float:
    """Seconds after a fault until nothing shows any more that it was."""
    if one.kind is not Kind.CONDITION:
        return 2 * setting.heartbeat + setting.grace + _PROBED
    if one.refuses_access:
        return _PROBED_AFTER_ACCESS
    if one.condition in _HOLD_A_PROBE:
        return LONGEST_LOAD + _CALLS + _PROBED
    return _PROBED
