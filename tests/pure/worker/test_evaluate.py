"""`evaluate`: the figures by hand, and long work that is cut short and continues."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from selfheal_worker.__main__ import main
from selfheal_worker.cli import evaluate
from selfheal_worker.model import provider
from selfheal_worker.model.errors import BadOutputError, ModelUnavailableError
from selfheal_worker.model.provider import Answer, ModelConfig, Usage
from selfheal_worker.task import task_file

EMOTION = task_file.BUILT_IN
# What is wanted of each text; the model says what the text says.
TEXTS = {"Joy": "Joy", "Anger": "Joy", "Fear": "Fear", "Joy again": ["Joy", "Surprise"]}


class Echo:
    """Says the label that the text begins with; counts its calls."""

    name = "echo"
    model = "small"
    version = "7"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.meanwhile: Callable[[str], None] = lambda text: None

    def __call__(self, config: ModelConfig) -> Echo:
        return self

    def warm_up(self) -> None: ...
    def close(self) -> None: ...

    def analyse(self, text: str, deadline: float) -> Answer:
        self.asked.append(text)
        self.meanwhile(text)
        said = {"primary_emotion": text.split()[0], "sentiment": "Neutral"}
        return Answer(said | {"confidence_score": 0.9, "key_phrases": []}, Usage(100, 10))


class Run:
    """The command, with one call at a time, on a file of texts."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.input = folder / "labelled.jsonl"
        self.kept = folder / "kept.jsonl"
        lines = [
            {"text": t, "primary_emotion": e, "sentiment": "Neutral"} for t, e in TEXTS.items()
        ]
        self.input.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self._capsys = capsys
        self.said = ""

    def __call__(self, *more: str, code: int = 0) -> dict[str, Any]:
        """The one model's figures; what was printed for a person is in `said`."""
        argv = ["evaluate", "--input", str(self.input), "--model", "builtin", "-o", "json"]
        assert main([*argv, *more]) == code
        out, self.said = self._capsys.readouterr()
        found: dict[str, Any] = json.loads(out)["models"][0] if out else {}
        return found

    def keeping(self, *more: str, code: int = 0) -> dict[str, Any]:
        return self("--keep", str(self.kept), *more, code=code)


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Echo:
    made = Echo()
    monkeypatch.setattr(provider, "build", made)
    monkeypatch.setenv("CONCURRENCY", "1")
    return made


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(tmp_path, capsys)


def test_the_figures(echo: Echo, run: Run) -> None:
    def silent(text: str) -> None:
        if text == "Fear":
            raise BadOutputError("no answer")

    echo.meanwhile = silent
    found = run()
    assert found["model"] == {"provider": "echo", "name": "small", "version": "7"}
    assert (found["texts"], found["failed"], found["accuracy"]) == (4, 1, 0.5)
    # One label: Joy said Joy, Joy wanted and Anger said, Fear without an answer.
    assert found["f1"]["Joy"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["f1"]["Fear"] == 0
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2, abs=1e-4)
    assert found["confusion"]["Joy"]["Anger"] == 1
    assert found["confusion"]["Fear"]["(none)"] == 1
    # Three sure answers at 0.9, two of them right.
    assert found["calibration_error"] == pytest.approx(0.9 - 2 / 3, abs=1e-4)
    assert (found["input_tokens"], found["output_tokens"]) == (75, 7.5)


def test_what_is_kept_is_not_asked_again_and_gives_the_same_figures(echo: Echo, run: Run) -> None:
    first = run.keeping()
    assert run.keeping() == first
    assert echo.asked == list(TEXTS)
    assert "small: 4 of 4 are answered already" in run.said
    # Another field of the same answers.
    assert run.keeping("--field", "sentiment")["accuracy"] == 1
    assert echo.asked == list(TEXTS)


def test_a_model_that_is_asked_in_another_way_is_asked_again(
    echo: Echo, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run.keeping()
    echo.version = "8"
    run.keeping()
    monkeypatch.setenv("MODEL_SEED", "1")
    run.keeping()
    task = tmp_path / "task.yaml"
    task.write_text(EMOTION.read_text().replace("prompt: |\n", "prompt: |\n  Take your time.\n"))
    monkeypatch.setenv("TASK_FILE", str(task))
    run.keeping()
    assert echo.asked == 4 * list(TEXTS)
    # Where it runs, and how much time it has, is no other way.
    monkeypatch.setenv("MODEL_BASE_URL", "http://elsewhere")
    monkeypatch.setenv("MODEL_DEADLINE", "300")
    run.keeping()
    assert echo.asked == 4 * list(TEXTS)


def test_a_run_that_is_stopped_continues_where_it_was(
    echo: Echo, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = Event()

    @contextlib.contextmanager
    def stoppable() -> Iterator[Event]:
        yield stopped

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "stoppable", stoppable)
        echo.meanwhile = lambda text: stopped.set() if text == "Anger" else None
        assert run.keeping(code=1) == {}
        assert "small: stopped at 2" in run.said
    assert echo.asked == ["Joy", "Anger"]
    with run.kept.open("ab") as file:
        file.write(b'{"asked": "half a li' + b"n" * 500)  # as if it had been killed
    assert run.keeping()["texts"] == len(TEXTS)
    assert echo.asked == list(TEXTS)
    assert len(run.kept.read_text().splitlines()) == len(TEXTS)


def test_a_model_that_goes_away_has_no_figures(echo: Echo, run: Run) -> None:
    def away(text: str) -> None:
        if text == "Fear":
            raise ModelUnavailableError("no answer from http://model")

    echo.meanwhile = away
    assert run.keeping(code=1) == {}
    assert "small: no answer from http://model" in run.said
    echo.meanwhile = lambda text: None
    assert run.keeping()["texts"] == len(TEXTS)
    assert (echo.asked.count("Joy"), echo.asked.count("Fear")) == (1, 2)


def test_a_text_without_an_answer_is_asked_again(echo: Echo, run: Run) -> None:
    def silent(text: str) -> None:
        if text == "Fear":
            raise BadOutputError("no answer")

    echo.meanwhile = silent
    assert run.keeping()["failed"] == 1
    echo.meanwhile = lambda text: None
    assert run.keeping()["failed"] == 0


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_file_with_something_else_is_left_alone(end: str, echo: Echo, run: Run) -> None:
    line = run.input.read_text().splitlines()[0] + end
    run.kept.write_text(line)
    assert run.keeping(code=1) == {}
    assert "kept.jsonl:1: is not a stored answer; use a separate file" in run.said
    assert run.kept.read_text() == line
    assert not echo.asked


def test_a_watcher_sees_how_far_it_is(
    echo: Echo, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "PROGRESS_EACH", 0.0)
    run()
    assert "small: 3 of 4, about 0 s left" in run.said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "a", "primary_emotion": ' + b"[" * 5000, ":2: nested deeper|:2: is "),
        (b'{"text": "a", "primary_emotion": "Joy", "n": NaN}', ":2: contains NaN"),
        (
            b'{"text": "a", "primary_emotion": "Joy", "n": ' + b"9" * 5000 + b"}",
            ":2: contains a num",
        ),
        (b'{"text": "\\ud800", "primary_emotion": "Joy"}', ":2: contains a lone surrogate"),
        (b'{"text": "\xff", "primary_emotion": "Joy"}', ":2: is not UTF-8"),
        (b'{"text": "a", "text": "b", "primary_emotion": "Joy"}', ':2: names "text" twice'),
        (b"[1]", ":2: must be a JSON object with text and primary_emotion"),
        (b'"text"', ":2: must be a JSON object"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: bytes, said: str, echo: Echo, run: Run) -> None:
    run.input.write_bytes(run.input.read_bytes().splitlines()[0] + b"\n" + line + b"\n")
    assert run(code=1) == {}
    assert re.search(rf"labelled\.jsonl(?:{said})", run.said)
    assert not echo.asked


def test_a_file_that_begins_with_a_byte_order_mark_is_read(echo: Echo, run: Run) -> None:
    run.input.write_bytes(b"\xef\xbb\xbf" + run.input.read_bytes())
    assert run()["texts"] == 4


@pytest.mark.parametrize(
    "rest", [b'x"}', b'x", "values": 1}', b'x", "values": {}}', b'x"} trailing', b"[" * 5000]
)
def test_a_kept_answer_that_is_damaged_is_named(rest: bytes, echo: Echo, run: Run) -> None:
    run.kept.write_bytes(b'{"asked": "' + rest + b"\n")
    assert run.keeping(code=1) == {}
    assert "kept.jsonl:1: is damaged; delete the line" in run.said
    assert not echo.asked


def test_the_built_in_model_beside_a_server_uses_none(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_PROVIDER", "ollama")
    monkeypatch.setenv("MODEL_BASE_URL", "http://127.0.0.1:1")
    assert run()["model"]["provider"] == "builtin"
