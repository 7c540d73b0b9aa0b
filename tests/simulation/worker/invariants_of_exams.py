"""What must follow when a single fault is over; see `exam`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.simulation.worker.checks import invariant
from tests.simulation.worker.exam import SOON
from tests.simulation.worker.faults import Kind
from tests.simulation.worker.history import ANSWERED, History

#: Probes of a model that is away: the fast ones and those that become rarer, then one each so many
#: seconds; a warm-up and a call each, of the model's own breaker and of the worker's.
_FAST, _APART, _CALLS = 45, 15.0, 2


@invariant(
    "README: A fallback model may answer; its results are marked `degraded: true`; work resumes by "
    "itself. providers.md: probed at growing intervals of up to 30 seconds (keys: 5 minutes)."
)
def fresh_messages_are_answered_soon(history: History) -> Iterator[str]:
    """When nothing is wrong any more, the active model answers within seconds."""
    exam = history.world.exam
    for one in () if exam is None else exam.fresh:
        if one.number not in history.published:
            continue
        published = history.published[one.number]
        ends = history.of(one.number)
        if not ends or ends[0].kind != ANSWERED:
            yield f"message {one.number} came when nothing failed, and was not answered"
        elif ends[0].at - published > SOON:
            yield (
                f"message {one.number} came when nothing failed, and was answered after "
                f"{ends[0].at - published:.1f} s"
            )
        elif ends[0].result().get("degraded"):
            yield f"message {one.number} came when nothing failed, and its answer is degraded"


@invariant(
    "ARCHITECTURE: each worker consumes while its models answer (issue 20: no consumer idle)"
)
def every_worker_takes_part(history: History) -> Iterator[str]:
    """Of so many messages as all workers have handlers, each worker takes some."""
    exam = history.world.exam
    if exam is None or not history.settled or exam.crowd[-1].number not in history.published:
        return
    busy = {client for one in exam.crowd for client in history.takers[one.number]}
    for life in history.lives:
        if life.ended is None and life.terminated is None and life.name not in busy:
            yield f"{life.name} took none of the last {len(exam.crowd)} messages"


@invariant(
    "providers.md: An unavailable model is probed at growing intervals of up to 30 seconds "
    "(keys: 5 minutes)."
)
def probes_become_rarer(history: History) -> Iterator[str]:
    """A server that is away for long is not asked again and again."""
    for fault in history.faults():
        if fault.kind is not Kind.CONDITION or fault.seconds < 300.0:
            continue
        asked = Counter(
            one.client
            for one in history.exchanges
            if one.server == fault.target
            if one.chat and one.text is None and fault.at <= one.opened < fault.end
        )
        most = _CALLS * (_FAST + fault.seconds / _APART)
        for client, times in sorted(asked.items()):
            if times > most:
                yield f"{client} probed {fault.target} {times} times in {fault.seconds:.0f} s"
