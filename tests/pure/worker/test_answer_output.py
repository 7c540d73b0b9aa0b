"""What `results` and `analyze` print for people, whatever the task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfheal_worker.__main__ import main
from selfheal_worker.cli import publish_results
from selfheal_worker.model import provider
from selfheal_worker.model.provider import Answer, ModelConfig

TRIAGE = Path(__file__).parents[3] / "docs" / "examples" / "ticket-triage.yaml"
TICKET = {
    "category": "Billing",
    "urgency": 4,
    "needs_human": True,
    "topics": ["refund"],
    "summary": "Charged twice, wants Müller's 5 € back.",
    "quotes": [],
}
TICKET_LINE = (
    'category="Billing", urgency=4, needs_human=true, topics=["refund"], '
    'summary="Charged twice, wants Müller\'s 5 € back.", quotes=[]\n'
)
FEELING = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.914,
    "key_phrases": ["love it"],
}
FEELING_LINE = "Joy, Positive, confidence 0.91, phrases: 'love it'\n"
OF_THE_WORKER = {
    "model": {"provider": "ollama", "name": "m", "version": "1"},
    "task": {"name": "ticket-triage", "version": "1"},
    "degraded": False,
    "attempts": 1,
    "timings": {"model": 0.1},
    "metadata": {"shop": 3},
}


class Queue:
    """In the place of a session with the broker: the bodies in the results queue."""

    def __init__(self, *bodies: bytes) -> None:
        self.waiting = [SimpleNamespace(body=body) for body in bodies]
        self.acked: list[bytes] = []

    def __call__(self, settings: object) -> Queue:
        return self

    def __enter__(self) -> Queue:
        return self

    def __exit__(self, *_: object) -> None: ...

    def deliveries(self, queue: str, prefetch: int, timeout: float) -> Iterator[Any]:
        yield from self.waiting
        yield None

    def ack(self, delivery: Any) -> None:
        self.acked.append(delivery.body)

    def stop_deliveries(self) -> None: ...


def _results(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    """The command with one body in the queue, which it takes out."""
    queue = Queue(body)
    monkeypatch.setattr(publish_results, "Session", queue)
    monkeypatch.setenv("AMQP_URI", "amqp://broker")
    assert main(["results"]) == 0
    assert queue.acked == [body]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (TICKET, TICKET_LINE),
        (FEELING, FEELING_LINE),
        (FEELING | {"key_phrases": []}, FEELING_LINE.replace("'love it'", "none")),
        ({"sentiment": "Positive"}, 'sentiment="Positive"\n'),
        (FEELING | {"why": "all"}, 'primary_emotion="Joy", sentiment="Positive", '
         'confidence_score=0.914, key_phrases=["love it"], why="all"\n'),
    ],
)  # fmt: skip
def test_results_shows_the_answer_to_any_task(
    said: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    _results(monkeypatch, json.dumps({"id": "a-1"} | said | OF_THE_WORKER).encode())
    assert capfd.readouterr() == (f"a-1: {line}", "")


@pytest.mark.parametrize(
    "body",
    [
        b'{"order": 7, "paid": true}',
        b'{"id": 7}',
        b"[1, 2]",
        b"not JSON \xff",
        b"[" * 100_000,
        b"",
    ],
    ids=lambda body: body[:10].decode(errors="replace"),
)
def test_results_shows_what_is_no_answer_as_it_is_before_it_is_gone(
    body: bytes, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any
) -> None:
    _results(monkeypatch, body)
    out, err = capfdbinary.readouterr()
    assert out == body + b"\n"
    assert f"a message of {len(body)} bytes is not a result".encode() in err


class Says:
    """A model that gives one answer."""

    name, model, version = "says", "one", "1"

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def __call__(self, config: ModelConfig) -> Says:
        return self

    def warm_up(self) -> None: ...
    def close(self) -> None: ...

    def analyse(self, text: str, deadline: float) -> Answer:
        return Answer(self.answer)


@pytest.mark.parametrize(
    ("task", "answer", "line"), [(TRIAGE, TICKET, TICKET_LINE), ("", FEELING, FEELING_LINE)]
)
def test_analyze_shows_the_answer_to_any_task(
    task: object,
    answer: dict[str, Any],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(provider, "build", Says(answer))
    monkeypatch.setenv("TASK_FILE", str(task))
    assert main(["analyze", "I love it"]) == 0
    assert capsys.readouterr().out == line
    file = tmp_path / "in.jsonl"
    file.write_text('{"id": 7, "text": "I love it", "metadata": {"shop": 3}}\n')
    assert main(["analyze", "--input", str(file)]) == 0
    assert capsys.readouterr().out == f"7: {line}"
