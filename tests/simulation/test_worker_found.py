"""Faults of the worker that seeds of the simulation showed first."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

pytest.importorskip("greenlet")
pytest.importorskip("langchain_openai")

from tests.pure.worker.dialects.ollama import Ollama
from tests.pure.worker.dialects.vllm import VLLM
from tests.simulation.models.conditions import Condition
from tests.simulation.models.server import Setup
from tests.simulation.models.truth import Did
from tests.simulation.worker import corpus, run
from tests.simulation.worker.faults import Fault, Kind
from tests.simulation.worker.world import BUILT_IN, PLUG_IN, Model, Scale


def test_an_idle_worker_finds_that_its_active_model_is_back() -> None:
    made = corpus.world_of(
        Model("a", Setup("a", "model-a", VLLM), "openai"),
        [(20.0, "It works very well."), (400.0, "It works very well.")],
        Fault(10.0, Kind.CONDITION, "a", 60.0, Condition.BAD_GATEWAY),
        MODEL_FALLBACK=BUILT_IN,
    )
    made = replace(made, chain=(*made.chain, Model(BUILT_IN)))
    history, problems, _ = run.run(made)
    assert not problems
    degraded = [json.loads(end.body)["degraded"] for end in history.ends]
    assert degraded == [True, False], "\n".join(history.story())


def test_messages_that_come_at_once_name_the_version_that_answers_them() -> None:
    made = corpus.world_of(
        Model("a", Setup("a", "model-a", Ollama), "ollama"),
        [(1.0, "It works very well."), *[(200.0, "It works very well.")] * 4],
        Fault(100.0, Kind.SWAP, "a"),
    )
    history, problems, _ = run.run(made)
    assert not problems
    answered = {one.text: one.version for one in history.exchanges if one.text is not None}
    named = {end.number: end.result()["model"]["version"] for end in history.ends}
    assert named == answered
    assert len(set(named.values())) == 2


def test_a_small_quota_is_used_for_messages_alone() -> None:
    made = corpus.world_of(
        Model(
            "a", Setup("a", "model-a", VLLM, per_minute=3, form="Retry-After", pause=30.0), "openai"
        ),
        [(1.0, f"It works very well, {number} times.") for number in range(9)],
        CONCURRENCY="1",
    )
    history, problems, _ = run.run(made)
    assert not problems
    answered = [one for one in history.exchanges if one.did is Did.ANSWERED]
    assert [one.text for one in answered if one.text is None] == [None], "the warm-up at the start"
    assert len(answered) == 1 + 9


def test_a_plug_in_that_never_returned_is_probed_again() -> None:
    """It is silent when the worker starts, and what it keeps then must not keep later probes."""
    made = corpus.world_of(
        Model("a", Setup("a", "model-a", VLLM), "openai"),
        [(40.0, "It works very well."), (1300.0, "It works very well.")],
        Fault(10.0, Kind.CONDITION, "local", 60.0, Condition.SILENT),
        Fault(20.0, Kind.KILL, "0"),
    )
    models = json.loads(made.env["MODELS"]) | {"local": {"provider": PLUG_IN, "name": "m"}}
    env = {"MODELS": json.dumps(models), "MODEL_ACTIVE": "local", "MODEL_FALLBACK": "a"}
    made = replace(
        made, env={**made.env, **env}, chain=(Model("local", None, PLUG_IN), *made.chain)
    )
    history, problems, _ = run.run(made)
    assert not problems
    degraded = [json.loads(end.body)["degraded"] for end in history.ends]
    assert degraded == [True, False], "\n".join(history.story())


def test_four_workers_on_two_slots_use_them_and_waste_few_calls() -> None:
    """As in tests/broker/test_overload.py, where the machine limits how much they can use."""
    slots, number, begun = 2, 400, 60.0
    setup = Setup("a", "model-a", Ollama, slots=slots, queue=0, seconds=(0.3, 0.3))
    made = corpus.world_of(
        Model("a", setup, "ollama"), [(begun, "It works very well.")] * number, CONCURRENCY="8"
    )
    history, problems, _ = run.run(replace(made, scaling=(Scale(0.0, 4),)))
    assert not problems
    calls = [one for one in history.exchanges if one.chat and one.opened >= begun]
    answered = [one for one in calls if one.did is Did.ANSWERED]
    ended = [one.ended for one in answered if one.ended is not None]
    assert len(ended) == len(answered)
    possible = slots * (max(ended) - begun) / 0.3
    assert len(answered) / possible >= 0.9
    assert len(calls) <= 1.5 * number
