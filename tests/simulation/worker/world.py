"""A seed becomes a world: settings, model servers, messages, workers and faults. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from tests.pure.worker.dialects.azure_openai import Azure
from tests.pure.worker.dialects.dialect import KEY, Dialect
from tests.pure.worker.dialects.litellm import LiteLLM
from tests.pure.worker.dialects.llama_cpp_server import LlamaCppServer
from tests.pure.worker.dialects.mistral import Mistral
from tests.pure.worker.dialects.ollama import OldOllama, Ollama
from tests.pure.worker.dialects.openai_chat import OpenAI, Reasoning
from tests.pure.worker.dialects.openrouter import OpenRouter
from tests.pure.worker.dialects.tgi import TGI
from tests.pure.worker.dialects.vllm import VLLM
from tests.simulation.models import pauses
from tests.simulation.models.server import WAYS, Setup
from tests.simulation.models.words import Nature
from tests.simulation.worker import exam as exams
from tests.simulation.worker import faults, messages
from tests.simulation.worker.exam import Exam
from tests.simulation.worker.faults import Fault
from tests.simulation.worker.messages import Message

#: Dialects by the provider that asks their servers.
DIALECTS: Mapping[str, tuple[type[Dialect], ...]] = {
    "ollama": (Ollama, Ollama, OldOllama),
    "openai": (OpenAI, Reasoning, Azure, Mistral, OpenRouter, LiteLLM, VLLM, LlamaCppServer, TGI),
}
BUILT_IN = "builtin"
#: A model in the worker's own process; see `plug_in`.
PLUG_IN = "plug-in"
QUEUE = "feedback"
#: Seconds after the last fault in which the longest pause of a probe is over: 30 s, or 5 minutes
#: where a key or a quota was refused.
_QUIET, _QUIET_AFTER_ACCESS = 60.0, 420.0
#: Tokens of a text that fits into the smallest context, and not into Ollama's own default.
_FITTING = 2300
#: Messages that come then, before the last one, in most worlds.
WAKING = 10
_LADDERS = ((1, 5, 30, 120), (1, 2, 3), (1,), (2, 10, 60))
_NATURES = (
    *(Nature.FLAKY, Nature.NEVER_USABLE, Nature.FILTERED, Nature.FILTERED_ANSWER, Nature.DECLINED),
)


@dataclass(frozen=True)
class Model:
    """One of the chain. server: None for the built-in one and for a plug-in."""

    name: str
    server: Setup | None = None
    provider: str = BUILT_IN
    concurrency: int | None = None
    per_minute: float | None = None
    deadline: float | None = None


@dataclass(frozen=True)
class Scale:
    """From `at` on there are to be so many workers; fewer get SIGTERM."""

    at: float
    workers: int


@dataclass(frozen=True)
class World:
    """All that a seed decides. calm: when the last fault has ended; quiet: how long after that all
    must be as before; seconds of virtual time."""

    seed: int
    env: Mapping[str, str]
    chain: tuple[Model, ...]
    messages: tuple[Message, ...]
    scaling: tuple[Scale, ...]
    faults: tuple[Fault, ...]
    calm: float
    quiet: float = _QUIET
    skews: tuple[float, ...] = ()
    consumer_timeout: float = 1800.0
    grace: float = 30.0
    deadline: float = 10.0
    concurrency: int = 4
    max_attempts: int = 5
    ladder: tuple[int, ...] = (1, 5, 30, 120)
    shorten: bool = False
    exam: Exam | None = None

    @property
    def servers(self) -> tuple[Setup, ...]:
        """The model servers, in the order of the chain."""
        return tuple(one.server for one in self.chain if one.server is not None)

    @property
    def plug_ins(self) -> tuple[str, ...]:
        """The names of models in the worker's own process, but for the built-in one."""
        return tuple(one.name for one in self.chain if one.provider == PLUG_IN)

    @property
    def all_messages(self) -> tuple[Message, ...]:
        """Those of the exam too."""
        return self.messages if self.exam is None else (*self.messages, *self.exam.messages)

    @property
    def natures(self) -> dict[str, dict[int, Nature]]:
        """For each server, what the texts make of it."""
        return {
            server.name: {
                one.number: one.natures[server.name]
                for one in self.all_messages
                if server.name in one.natures
            }
            for server in self.servers
        }

    def story(self) -> list[str]:
        """For people: what the world is, then what happens in it."""
        names = [f"{one.name} ({one.provider})" for one in self.chain]
        lines = [f"seed {self.seed}: {', '.join(names)}; {len(self.messages)} messages"]
        lines += [
            f"  {name}={value}" for name, value in sorted(self.env.items()) if "KEY" not in name
        ]
        events = [(one.at, one.story()) for one in self.messages]
        events += [(one.at, one.story()) for one in self.faults]
        events += [(one.at, f"{one.at:9.2f} {one.workers} workers") for one in self.scaling]
        lines += [line for _, line in sorted(events)]
        return lines + ([] if self.exam is None else self.exam.story())


def make(seed: int) -> World:
    """The world of a seed."""
    chance = Random(seed)
    calm = chance.choice((60.0, 120.0, 240.0))
    concurrency = chance.choice((1, 2, 4, 8))
    deadline = chance.choice((4.0, 10.0, 20.0))
    ladder = chance.choice(_LADDERS)
    # Of its own: seeds keep the rest of their worlds.
    more = Random(f"{seed} more")
    chain = _chain(chance, deadline, more)
    waking = more.choice((0, WAKING, WAKING))
    workers = chance.choice((1, 1, 2, 3))
    shorten = chance.random() < 0.3
    max_attempts = chance.choice((1, 2, 3, 5))
    grace = chance.choice((1.0, deadline, 30.0))
    sizes = messages.Sizes(text=chance.choice((2_000, 65_536)), body=131_072)
    env = {
        "AMQP_HOST": "broker",
        "AMQP_USERNAME": "user",
        "AMQP_PASSWORD": "password",
        "AMQP_HEARTBEAT": str(chance.choice((5, 15, 60))),
        "QUEUE_NAME": QUEUE,
        "CONCURRENCY": str(concurrency),
        "MODEL_DEADLINE": f"{deadline:g}",
        "SHUTDOWN_GRACE": f"{grace:g}",
        "MAX_ATTEMPTS": str(max_attempts),
        "RETRY_DELAYS": ",".join(map(str, ladder)),
        "MAX_TEXT_BYTES": str(sizes.text),
        "MAX_BODY_BYTES": str(sizes.body),
        "MODEL_TEXT_TOO_LONG": "shorten" if shorten else "refuse",
        "MODEL_CLAMP": str(chance.random() < 0.3).lower(),
    } | _of_models(chain)
    servers = {one.name: one.server.https for one in chain if one.server is not None}
    schedule = faults.schedule(chance, servers, workers, calm, 10)
    schedule += faults.late_threads(Random(f"{seed}/late threads"), workers, calm)
    quiet = _QUIET_AFTER_ACCESS if any(one.refuses_access for one in schedule) else _QUIET
    made = _longer(_messages(chance, chain, calm, calm + quiet, sizes, waking), more, sizes)
    setting = exams.Setting(
        servers,
        [one.name for one in chain if one.provider == PLUG_IN],
        workers,
        concurrency,
        float(env["AMQP_HEARTBEAT"]),
        grace,
        sizes,
    )
    return World(
        seed,
        env,
        chain,
        made,
        _scaling(chance, workers, calm),
        schedule,
        calm,
        quiet,
        skews=tuple(chance.choice((0.0, 0.0, -2.0, 0.3, 60.0)) for _ in range(8)),
        grace=grace,
        deadline=deadline,
        concurrency=concurrency,
        max_attempts=max_attempts,
        ladder=ladder,
        shorten=shorten,
        exam=exams.make(seed, setting, len(made)),
    )


# --- models


def _chain(chance: Random, deadline: float, more: Random) -> tuple[Model, ...]:
    """more: decides which servers read a part of what does not fit, without a word."""
    made = [
        _model(chance, name, deadline, truncates=more.random() < 0.5)
        for name in chance.choice((["a"], ["a", "b"], ["a", "b"]))
    ]
    if chance.random() < 0.2:
        made.append(Model(BUILT_IN))
    if chance.random() < 0.05:
        made = [Model(BUILT_IN)]
    if more.random() < 0.2:
        made.insert(more.choice((0, 0, len(made))), Model("local", None, PLUG_IN))
    return tuple(made)


def _model(chance: Random, name: str, deadline: float, *, truncates: bool) -> Model:
    provider = chance.choice(("ollama", "openai", "openai"))
    longest = min(deadline / 3, 3.0)
    fast = chance.uniform(0.05, longest / 2)
    limited = chance.random() < 0.2
    setup = Setup(
        name,
        f"model-{name}",
        chance.choice(DIALECTS[provider]),
        slots=chance.choice((1, 2, 4, 16)),
        queue=chance.choice((0, 0, 2, 1000)),
        seconds=(round(fast, 3), round(chance.uniform(fast, longest), 3)),
        load=chance.choice((0.0, 0.0, 5.0, 40.0)),
        per_minute=chance.choice((30, 120)) if limited else None,
        status=chance.choice((429, 503, 529)),
        form=chance.choice((pauses.NONE, pauses.NONE, *pauses.FORMS)),
        pause=chance.choice((1.0, 2.0, 7.0, 20.0)),
        way=chance.choice((*(("plain",) * 4), *WAYS)),
        context=chance.choice((1_000_000, 1_000_000, 4096)),
        truncates=truncates,
        https=chance.random() < 0.3,
    )
    return Model(
        name,
        setup,
        provider,
        concurrency=chance.choice((None, None, 1, 2)),
        per_minute=chance.choice((None, None, None, 60.0)),
    )


def _of_models(chain: tuple[Model, ...]) -> dict[str, str]:
    """The settings that name a chain."""
    models = {}
    for one in chain:
        if one.provider == BUILT_IN:
            continue
        entry = {"provider": one.provider, "name": "m"}
        if one.server is not None:
            entry["baseUrl"] = one.server.url
        more = {
            "concurrency": one.concurrency,
            "requestsPerMinute": one.per_minute,
            "deadlineSeconds": one.deadline,
        }
        models[one.name] = entry | {name: v for name, v in more.items() if v is not None}
    return {
        "MODELS": json.dumps(models),
        "MODEL_ACTIVE": chain[0].name,
        "MODEL_FALLBACK": ",".join(one.name for one in chain[1:]),
    } | {f"MODEL_API_KEY_{one.name.upper()}": KEY for one in chain if one.server is not None}


# --- messages and workers


def _messages(
    chance: Random,
    chain: tuple[Model, ...],
    calm: float,
    first: float,
    sizes: messages.Sizes,
    waking: int,
) -> tuple[Message, ...]:
    maker = messages.Maker(chance, sizes)
    made: list[Message] = []
    count = chance.choice((5, 15, 30, 50))
    bursts = chance.random() < 0.5
    for number in range(count):
        at = 1.0 if bursts else round(chance.uniform(0.0, calm * 0.9), 2)
        made.append(_message(chance, maker, chain, number, at, sizes))
    # The last one comes when all has recovered: the active model must be back for it, also where
    # no message came before it.
    later = 60.0 + 2 * sum(one.server.load for one in chain if one.server is not None)
    made += [good(count + number, first + 8.0 * number, chain) for number in range(waking)]
    made.append(good(count + waking, first + 8.0 * waking + later, chain))
    return tuple(sorted(made, key=lambda one: (one.at, one.number)))


def _longer(made: tuple[Message, ...], more: Random, sizes: messages.Sizes) -> tuple[Message, ...]:
    """Some plain messages become longer: they fit into the smallest context, if it is asked for."""
    return tuple(
        messages.long_text(one.number, one.at, _FITTING, one.natures)
        if one.kind == "good" and sizes.text > 10 * _FITTING and more.random() < 0.1
        else one
        for one in made
    )


def good(number: int, at: float, chain: tuple[Model, ...]) -> Message:
    """A plain good message."""
    natures = {one.name: Nature.GOOD for one in chain if one.server is not None}
    return messages.good(number, at, natures)


def _message(
    chance: Random,
    maker: messages.Maker,
    chain: tuple[Model, ...],
    number: int,
    at: float,
    sizes: messages.Sizes,
) -> Message:
    natures = {one.name: Nature.GOOD for one in chain if one.server is not None}
    if natures and chance.random() < 0.12:
        nature = chance.choice(_NATURES)
        everywhere = chance.random() < 0.5
        for name in natures if everywhere else [chance.choice(sorted(natures))]:
            natures[name] = nature
    small = [one.server.context for one in chain if one.server and one.server.context < 10_000]
    if small and min(small) * 10 < sizes.text and chance.random() < 0.1:
        return messages.long_text(number, at, min(small) * 2, natures)
    return maker.make(number, at, natures)


def _scaling(chance: Random, workers: int, calm: float) -> tuple[Scale, ...]:
    """As KEDA scales, from zero where it likes; at the end there are workers."""
    steps = [Scale(0.0, chance.choice((workers, workers, 0)))]
    for _ in range(chance.choice((0, 0, 1, 3))):
        steps.append(Scale(round(chance.uniform(5.0, calm * 0.8), 2), chance.randint(0, workers)))
    steps.append(Scale(calm * 0.9, workers))
    return tuple(sorted(steps, key=lambda one: one.at))
