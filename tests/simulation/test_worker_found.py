"""Faults of the worker that seeds of the simulation showed first."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

pytest.importorskip("greenlet")
pytest.importorskip("langchain_openai")

from tests.pure.worker.dialects.vllm import VLLM
from tests.simulation.models.conditions import Condition
from tests.simulation.models.server import Setup
from tests.simulation.worker import corpus, run
from tests.simulation.worker.faults import Fault, Kind
from tests.simulation.worker.world import BUILT_IN, Model


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
