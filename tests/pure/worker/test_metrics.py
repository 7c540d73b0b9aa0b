"""How many series a worker has, whatever goes wrong."""

from __future__ import annotations

from dataclasses import replace

from selfheal_worker.metrics import BREAKERS, MOST_VERSIONS, Metrics
from selfheal_worker.model.breaker import State
from selfheal_worker.model.errors import (
    BadOutputError,
    ModelUnavailableError,
    OverloadedError,
    RefusedTextError,
    TextTooLongError,
    TransientError,
)
from selfheal_worker.model.limits import Concurrency, LimitedError
from selfheal_worker.model.provider import Origin, Usage

_BUDGET = 200
ORIGIN = Origin("ollama", "smollm2:135m", "9077fe9d2ae1")


def _samples(metrics: Metrics) -> list[str]:
    text = metrics.exposition().decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_a_worker_has_at_most_200_series() -> None:
    metrics = Metrics()
    metrics.model.loaded(ORIGIN, 1.5)
    metrics.model.called(ORIGIN, 0.1, None, Usage(100, 20))
    for breaker in BREAKERS:
        metrics.process.breaker(breaker, State.OPEN)
    metrics.model.called(ORIGIN, 1.0, LimitedError("x"))
    metrics.model.calls(ORIGIN, Concurrency(3, None), 8)
    kinds = (TransientError, BadOutputError, ModelUnavailableError, ValueError, KeyError, OSError)
    for kind in (*kinds, OverloadedError, RefusedTextError, TextTooLongError):
        metrics.model.called(ORIGIN, 1.0, kind("x"))
    metrics.messages.wait.observe(1)
    metrics.messages.duration.observe(1)
    assert 150 < len(_samples(metrics)) <= _BUDGET


def test_a_kind_of_error_that_nobody_foresaw_makes_no_series_of_its_own() -> None:
    metrics = Metrics()
    metrics.model.called(ORIGIN, 1.0, ValueError())
    before = len(_samples(metrics))
    metrics.model.called(ORIGIN, 1.0, OSError())
    assert len(_samples(metrics)) == before
    assert any('error_type="_OTHER"' in line for line in _samples(metrics))


def test_a_server_that_reports_a_new_version_each_time_makes_no_more_series() -> None:
    metrics, sizes = Metrics(), []
    for number in range(10 * MOST_VERSIONS):
        origin = replace(ORIGIN, version=f"answer-{number}")
        metrics.model.called(origin, 0.1, None, Usage(100, 20))
        metrics.model.loaded(origin, 1.5)
        sizes.append(len(_samples(metrics)))
    assert sizes[-1] == sizes[MOST_VERSIONS]
    assert 'model_version="answer-0"' in metrics.exposition().decode()
    other = replace(ORIGIN, name="another", version="answer-99")
    metrics.model.called(other, 0.1, None)
    assert 'model_version="answer-99"' in metrics.exposition().decode()
