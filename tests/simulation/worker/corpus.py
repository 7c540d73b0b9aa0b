"""Public field reports as small worlds. What was reported there must not happen here.

Nothing is copied from the reports: each world has the same cause in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tests.pure.worker.dialects.dialect import KEY
from tests.pure.worker.dialects.litellm import LiteLLM
from tests.pure.worker.dialects.ollama import Ollama
from tests.pure.worker.dialects.openai_chat import OpenAI
from tests.pure.worker.dialects.vllm import VLLM
from tests.simulation.models.conditions import Condition
from tests.simulation.models.server import Setup
from tests.simulation.models.truth import Did
from tests.simulation.models.words import numbered
from tests.simulation.worker import world
from tests.simulation.worker.faults import Fault, Kind
from tests.simulation.worker.history import ANSWERED, DEAD, History
from tests.simulation.worker.messages import Message
from tests.simulation.worker.world import Model, Scale, World

#: What is wrong with a run, beside the invariants.
Check = Callable[[History], Iterator[str]]


@dataclass(frozen=True)
class Report:
    """A report: where it is, what happened there, the world, and what must not happen in it."""

    where: str
    what: str
    world: World
    wrong: Check


def world_of(
    model: Model, messages: Sequence[tuple[float, str]], *more: Fault, **changes: str
) -> World:
    """One worker with one model; texts at their times."""
    assert model.server is not None
    entry = {"provider": model.provider, "name": "m", "baseUrl": model.server.url}
    env = {
        "AMQP_HOST": "broker",
        "AMQP_USERNAME": "user",
        "AMQP_PASSWORD": "password",
        "AMQP_HEARTBEAT": "15",
        "QUEUE_NAME": world.QUEUE,
        "CONCURRENCY": "4",
        "MODEL_DEADLINE": "10",
        "MODELS": json.dumps({model.name: entry}),
        "MODEL_ACTIVE": model.name,
        f"MODEL_API_KEY_{model.name.upper()}": KEY,
    } | changes
    made = tuple(_message(number, at, text) for number, (at, text) in enumerate(messages))
    last = max([one.at for one in made] + [one.end for one in more])
    return World(
        seed=0,
        env=env,
        chain=(model,),
        messages=made,
        scaling=(Scale(0.0, 1),),
        faults=more,
        calm=last + 1.0,
        concurrency=int(env["CONCURRENCY"]),
        deadline=float(env["MODEL_DEADLINE"]),
        grace=float(env.get("SHUTDOWN_GRACE", "30")),
        max_attempts=int(env.get("MAX_ATTEMPTS", "5")),
        shorten=env.get("MODEL_TEXT_TOO_LONG") == "shorten",
    )


def _message(number: int, at: float, words: str) -> Message:
    text, name = numbered(number, words), f"id-{number}"
    body = json.dumps({"id": name, "text": text}).encode()
    return Message(number, at, "good", body, text=text, id=name)


def _model(provider: str, setup: Setup) -> Model:
    return Model(setup.name, setup, provider)


def _texts(count: int, at: float = 1.0) -> list[tuple[float, str]]:
    return [(at, "It works very well.") for _ in range(count)]


# --- what must not happen


def _not_answered(history: History) -> Iterator[str]:
    """A message that is not answered, once."""
    for one in history.messages():
        ends = [end.kind for end in history.of(one.number)]
        if ends != [ANSWERED]:
            yield f"message {one.number} ended as {ends}"


def _taken_back(history: History) -> Iterator[str]:
    """A message that the broker took back, though its worker lives."""
    yield from _not_answered(history)
    for number, times in sorted(history.returned.items()):
        yield f"the broker took message {number} back {times} times"


def _dropped(history: History) -> Iterator[str]:
    """A message that has no answer, or that a broker's limit ended; twice is no harm here."""
    for one in history.messages():
        ends = [end.kind for end in history.of(one.number)]
        if ANSWERED not in ends or DEAD in ends:
            yield f"message {one.number} ended as {ends}"


def _not_held_back(history: History) -> Iterator[str]:
    """Messages that are taken and returned again and again while the model is away."""
    yield from _dropped(history)
    for number, times in sorted(history.deliveries.items()):
        if times > 3:
            yield f"message {number} was delivered {times} times"


def _read_in_part(history: History) -> Iterator[str]:
    """A result of a text of which a part was read, without a word about it."""
    for end in history.ends:
        if end.kind == ANSWERED and not end.result().get("truncated"):
            yield f"message {end.number} was answered as if all of it had been read"


def _in_pause(history: History) -> Iterator[str]:
    """Calls that come before the pause is over that the last refusal asked for."""
    yield from _not_answered(history)
    until = 0.0
    for one in history.exchanges:
        if one.opened < until - 0.05:
            yield f"asked at {one.opened:.2f}, and the server asked for a pause until {until:.2f}"
        if one.pause is not None:
            until = max(until, (one.ended or one.opened) + one.pause)


def _many_refusals(history: History) -> Iterator[str]:
    """A parameter that is sent again and again though the server refused it."""
    yield from _not_answered(history)
    refused = sum(one.did is Did.PARAMETER for one in history.exchanges)
    if refused > 3:
        yield f"{refused} calls were refused for their parameters"


def _never_back(history: History) -> Iterator[str]:
    """A worker that does not use all of its handlers after it has connected again."""
    yield from _not_answered(history)
    running = peak = 0
    moments = [(one.opened, 1) for one in history.exchanges if one.opened > 30.0]
    moments += [(one.ended or one.opened, -1) for one in history.exchanges if one.opened > 30.0]
    for _, change in sorted(moments):
        running += change
        peak = max(peak, running)
    if peak < history.world.concurrency:
        yield f"at most {peak} calls at once after the connection was lost"


def _restarted(history: History) -> Iterator[str]:
    """A message that stops a worker."""
    for life in history.lives:
        if life.ended is not None or life.lost_connections:
            yield f"{life.name} ended at {life.ended} or lost its connection"


def _cut_off(history: History) -> Iterator[str]:
    """A worker that is stopped in the middle of its work: the message is neither lost nor counted
    against, and no call is made for it twice in one worker."""
    yield from _not_answered(history)
    for end in history.ends:
        if end.kind == ANSWERED and end.result()["attempts"] != 1:
            yield f"message {end.number} has {end.result()['attempts']} attempts"


# --- the worlds


def _too_large_body() -> World:
    made = world_of(_model("openai", Setup("a", "model-a", VLLM)), _texts(4, at=2.0))
    body = b'{"text": "x", "more": "' + b"y" * 700_000 + b'"}'
    large = Message(99, 1.0, "whose body is too large", body, frozenset({"body_too_large"}))
    return replace(made, messages=(large, *made.messages))


def _scaled_down() -> World:
    """KEDA saw no ready message and scaled to zero while a call ran that outlasts the grace."""
    setup = Setup("a", "model-a", VLLM, seconds=(8.0, 8.0))
    made = world_of(_model("openai", setup), _texts(1, at=10.0), SHUTDOWN_GRACE="2")
    return replace(made, scaling=(Scale(0.0, 1), Scale(14.0, 0), Scale(30.0, 1)), calm=30.0)


def _away_for_long() -> World:
    """The model is away for longer than any number of quick retries takes."""
    setup = Setup("a", "model-a", VLLM)
    away = Fault(0.5, Kind.CONDITION, "a", 900.0, Condition.REFUSED)
    return world_of(_model("openai", setup), _texts(6), away, DELIVERY_LIMIT="3")


def _killed_in_the_middle() -> World:
    """Killed while calls run, and again while results wait for their confirms."""
    setup = Setup("a", "model-a", VLLM, seconds=(3.0, 3.0))
    return world_of(
        _model("openai", setup),
        [*_texts(4, at=5.0), *_texts(4, at=40.0), *_texts(4, at=80.0)],
        Fault(6.5, Kind.KILL, "0"),
        Fault(41.0, Kind.BROKER_SLOW, seconds=30.0),
        Fault(44.0, Kind.KILL, "0"),
    )


def _lost_again_and_again() -> World:
    """The connection is lost again and again within seconds, with work in flight."""
    setup = Setup("a", "model-a", VLLM, seconds=(2.0, 2.0))
    return world_of(
        _model("openai", setup),
        [*_texts(4, at=5.0), *_texts(8, at=60.0)],
        *(Fault(at, Kind.DISCONNECT, "0") for at in (6.0, 7.0, 7.5, 8.5)),
    )


def _without_a_leader() -> World:
    """The queue has no leader for a while, and the worker has to subscribe again meanwhile."""
    return world_of(
        _model("openai", Setup("a", "model-a", VLLM, seconds=(2.0, 2.0))),
        [*_texts(4, at=5.0), *_texts(8, at=150.0)],
        Fault(6.0, Kind.NO_LEADER, seconds=120.0),
        Fault(10.0, Kind.DISCONNECT, "0"),
        Fault(40.0, Kind.CHANNEL_CLOSED, "0"),
    )


def _cooled_down() -> World:
    """A model asks for a pause, another one can answer, and more messages come."""
    setup = Setup("a", "model-a", VLLM, per_minute=3, form="Retry-After", pause=15.0)
    texts = [(1.0 + 5.0 * number, "It works very well.") for number in range(24)]
    texts.append((400.0, "It works very well."))
    made = world_of(_model("openai", setup), texts, MODEL_FALLBACK=world.BUILT_IN)
    return replace(made, chain=(*made.chain, Model(world.BUILT_IN)))


REPORTS: Sequence[Report] = (
    Report(
        "celery/celery#6760",
        "a retry with a long delay is kept unacked, until the broker's consumer timeout",
        replace(
            world_of(
                _model("openai", Setup("a", "model-a", VLLM)),
                _texts(2),
                Fault(0.9, Kind.CONDITION, "a", 60.0, Condition.ERRORS),
                RETRY_DELAYS="5,120,240",
            ),
            consumer_timeout=60.0,
            ladder=(5, 120, 240),
        ),
        _taken_back,
    ),
    Report(
        "celery/celery#9512",
        "after a lost connection most of the pool stays idle, since the prefetch stays reduced",
        world_of(
            _model("openai", Setup("a", "model-a", VLLM, seconds=(3.0, 3.0))),
            [*_texts(4, at=5.0), *_texts(8, at=60.0)],
            Fault(6.0, Kind.DISCONNECT, "0"),
        ),
        lambda history: iter(
            [one for one in _never_back(history) if "ended as" not in one]  # answered twice: fine
        ),
    ),
    Report(
        "celery/celery#8030",
        "connections that are lost several times within seconds leave a worker that takes nothing",
        _lost_again_and_again(),
        lambda history: iter(
            [one for one in _never_back(history) if "ended as" not in one]  # answered twice: fine
        ),
    ),
    Report(
        "kedacore/keda#356",
        "scaled to zero while its only message was being worked on, for ever in circles",
        _scaled_down(),
        _cut_off,
    ),
    Report(
        "ollama/ollama#3839",
        "a text above the context is cut without a word, and its answer looks whole",
        world_of(
            _model("ollama", Setup("a", "model-a", Ollama, context=2048, truncates=True)),
            [(1.0, "word " * 3000), (1.0, "word " * 9000)],
        ),
        _read_in_part,
    ),
    Report(
        "langchain-ai/langgraph#5943",
        "each request is refused for a parameter that the server does not take",
        world_of(_model("openai", Setup("a", "model-a", OpenAI)), _texts(5)),
        _many_refusals,
    ),
    Report(
        "BerriAI/litellm: UnsupportedParamsError",
        "a proxy refuses a parameter of each request",
        world_of(_model("openai", Setup("a", "model-a", LiteLLM)), _texts(5)),
        _many_refusals,
    ),
    Report(
        "BerriAI/litellm#20722",
        "of several refusals only the first one's Retry-After is obeyed",
        world_of(
            _model(
                "openai",
                Setup("a", "model-a", VLLM, per_minute=3, form="Retry-After", pause=15.0),
            ),
            _texts(6),
            CONCURRENCY="1",
        ),
        _in_pause,
    ),
    Report(
        "BerriAI/litellm#34836",
        "a deployment is called before the pause is over that its server asked for",
        _cooled_down(),
        _in_pause,
    ),
    Report(
        "rabbitmq/rabbitmq-server#14675",
        "consumers cannot subscribe to a queue that has no leader, and do not come back with it",
        _without_a_leader(),
        _dropped,
    ),
    Report(
        "rabbitmq/rabbitmq-java-client#1221",
        "a message above the client's limit stops the consumer, which comes back to it for ever",
        _too_large_body(),
        _restarted,
    ),
    Report(
        "MassTransit/MassTransit#2072",
        "no message is consumed after the broker was restarted in the middle of work",
        world_of(
            _model("openai", Setup("a", "model-a", VLLM, seconds=(2.0, 2.0))),
            [*_texts(4, at=5.0), *_texts(4, at=40.0)],
            Fault(6.0, Kind.BROKER_RESTART, seconds=5.0),
            Fault(16.0, Kind.BROKER_RESTART, seconds=5.0),
        ),
        lambda history: iter([]),
    ),
    Report(
        "lmnr-ai/lmnr#2410",
        "messages are requeued at once while a dependency is away, until the delivery limit drops"
        " them",
        _away_for_long(),
        _not_held_back,
    ),
    Report(
        "llm-d/llm-d-async#131",
        "a process that is killed takes with it what it had taken from the queue",
        _killed_in_the_middle(),
        _dropped,
    ),
)
