"""`selfheal-worker evaluate`: models side by side on labelled texts."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from selfheal_worker.cli.answer_cache import Kept, question
from selfheal_worker.cli.stop import stoppable
from selfheal_worker.config import BUILT_IN, Settings
from selfheal_worker.model import provider as model
from selfheal_worker.model import registry
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import ModelConfigError, ModelError, ModelUnavailableError
from selfheal_worker.model.provider import ModelConfig
from selfheal_worker.plain_data import PlainDataError, is_text, read_json
from selfheal_worker.task.task import Label, Task

PROGRESS_EACH = 10.0
_BINS = 15
_BAD = "(none)"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text, and the labels of which each is right."""

    text: str
    wanted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """A model's answer to one text; label is None if it gave none."""

    label: str | None
    confidence: float | None
    seconds: float
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class Score:
    """One model's figures. f1 by label; confusion: expected, answered, number of texts."""

    model: Mapping[str, str]
    texts: int
    failed: int
    accuracy: float
    macro_f1: float
    f1: dict[str, float]
    confusion: dict[str, dict[str, int]]
    calibration_error: float | None
    seconds_p50: float
    seconds_p95: float
    input_tokens: float
    output_tokens: float
    said: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One of the compared models; config: its settings."""

    chain: Chain
    config: ModelConfig


def evaluate(settings: Settings, task: Task, options: argparse.Namespace) -> int:
    """Print one column for each model; 1 where a file or a model cannot be used."""
    try:
        one = _field(task, options.field)
        texts = read(Path(options.input), one, options.limit)
        kept = Kept(Path(options.keep) if options.keep else None)
    except ValueError as error:
        print(f"selfheal-worker evaluate: {error}", file=sys.stderr)
        return 1
    # All of them before the first: a wrong name is reported now and not in an hour.
    entries = [_entry(settings, task, name) for name in options.model]
    scores: list[Score] = []
    with contextlib.closing(kept), stoppable() as stopped:
        for entry in entries:
            chain = entry.chain
            with contextlib.closing(chain):
                try:
                    chain.wake(settings.model_deadline)
                    answers = _Asking(settings, entry, one, kept, stopped).all(texts)
                except ModelError as error:
                    print(f"selfheal-worker: {chain.active.name}: {error}", file=sys.stderr)
                    return 1
                if stopped.is_set():
                    print(f"{chain.active.name}: stopped at {len(answers)}", file=sys.stderr)
                    return 1
                scores.append(score(chain.active.described(), one.labels, texts, answers))
    if options.output == "json":
        print(json.dumps({"field": one.name, "models": [_plain(s) for s in scores]}))
    else:
        print("\n".join(table(one, scores)))
    return 0


def _entry(settings: Settings, task: Task, name: str) -> _Entry:
    """A named model, or PROVIDER[:NAME] of one that is not in the list."""
    if not name or name in settings.models:
        return _built(settings, task, name or settings.model_active)
    provider, _, model_name = name.partition(":")
    if provider not in model.names():
        raise ModelConfigError(
            f"--model {name}: there is no such model or provider; "
            f"models: {', '.join(sorted(settings.models)) or 'none'}; "
            f"providers: {', '.join(model.names())}"
        )
    plain = {"model_provider": provider, "model_name": model_name}
    if provider == BUILT_IN:  # beside models on a server, it has none
        plain["model_base_url"] = ""
    return _built(settings.model_copy(update=plain), task, "")


def _built(settings: Settings, task: Task, name: str) -> _Entry:
    member = registry.member(settings, task, name)
    return _Entry(Chain([member], task), registry.config(settings, task, name))


def _field(task: Task, name: str | None) -> Label:
    labels = [one for one in task.fields if isinstance(one, Label)]
    found = [one for one in labels if name in (None, one.name)]
    if not found:
        raise ValueError(
            f"--field {name or ''}: the task {task.name} has the labels "
            f"{', '.join(one.name for one in labels) or '(none)'}"
        )
    return found[0]


def read(file: Path, one: Label, limit: int | None) -> list[Labelled]:
    """The labelled texts of a file of JSON lines. Raises ValueError that names the line.

    A line has `text` and the field's name with a label, or a list of labels each of which is right.
    """
    found: list[Labelled] = []
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if not is_text(line):
                raise ValueError(f"{file}:{number}: is not UTF-8")
            if line.strip():
                found.append(_labelled(line, one, f"{file}:{number}"))
            if limit and len(found) == limit:
                break
    if not found:
        raise ValueError(f"{file}: has no labelled text")
    return found


def _labelled(line: str, one: Label, where: str) -> Labelled:
    try:
        fields = read_json(line)
        text, label = fields["text"], fields[one.name]
    except PlainDataError as error:
        raise ValueError(f"{where}: {error}") from None
    except (KeyError, TypeError):
        raise ValueError(f"{where}: must be a JSON object with text and {one.name}") from None
    wanted = label if isinstance(label, list) else [label]
    labels = [one.words.get(str(label).strip().lower()) for label in wanted]
    if not isinstance(text, str) or not text.strip() or not labels or None in labels:
        raise ValueError(f"{where}: {one.name} must be of {', '.join(one.labels)}")
    return Labelled(text, tuple(label for label in labels if label))


class _Asking:
    """Calls one model with the texts, CONCURRENCY at once; reports its progress."""

    def __init__(
        self, settings: Settings, entry: _Entry, one: Label, kept: Kept, stopped: Event
    ) -> None:
        self._settings = settings
        self._chain = entry.chain
        self._config = entry.config
        self._one = one
        self._kept = kept
        self._stopped = stopped

    def all(self, texts: Sequence[Labelled]) -> list[ModelAnswer]:
        """Each text's answer, in their order; fewer when it is stopped.

        Raises `ModelUnavailableError`: a model that is away has no figures.
        """
        begun = reported_at = time.monotonic()
        questions = [question(self._config, self._chain.active, one.text) for one in texts]
        known = sum(self._kept.get(one) is not None for one in questions)
        if known:
            print(f"{self._name}: {known} of {len(texts)} are answered already", file=sys.stderr)
        answers: list[ModelAnswer] = []
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            for answer in pool.map(self._one_text, texts, questions):
                if answer is None:
                    break
                answers.append(answer)
                fresh = len(answers) - known
                if fresh > 0 and time.monotonic() - reported_at >= PROGRESS_EACH:
                    reported_at = time.monotonic()
                    left = (reported_at - begun) / fresh * (len(texts) - len(answers))
                    print(
                        f"{self._name}: {len(answers)} of {len(texts)}, {_about(left)} left",
                        file=sys.stderr,
                    )
        return answers

    @property
    def _name(self) -> str:
        return self._chain.active.name

    def _one_text(self, labelled: Labelled, key: str) -> ModelAnswer | None:
        if (before := self._kept.get(key)) is not None:
            return self._model_answer(before)
        if self._stopped.is_set():
            return None
        begun = time.monotonic()
        try:
            reply = self._chain.ask(labelled.text, begun + self._settings.model_deadline)
        except ModelUnavailableError:
            raise
        except ModelError:
            return ModelAnswer(None, None, time.monotonic() - begun)
        usage, task = reply.usage, self._chain.task
        short = {one.name for one in task.fields if isinstance(one, Label)} | {task.confidence}
        answer = {
            "values": {k: v for k, v in reply.validated.values.items() if k in short},
            "seconds": round(time.monotonic() - begun, 6),
            "input_tokens": usage.input_tokens if usage else 0,
            "output_tokens": (usage.output_tokens if usage else 0) or 0,
        }
        self._kept.add(key, answer)
        return self._model_answer(answer)

    def _model_answer(self, answer: Mapping[str, Any]) -> ModelAnswer:
        values, sure = answer["values"], self._chain.task.confidence
        return ModelAnswer(
            values[self._one.name],
            values[sure] if sure else None,
            answer["seconds"],
            answer["input_tokens"],
            answer["output_tokens"],
        )


def _about(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


def score(
    described: Mapping[str, str],
    labels: Sequence[str],
    texts: Sequence[Labelled],
    answers: Sequence[ModelAnswer],
) -> Score:
    """Figures of one model.

    Accuracy takes any of a text's labels as right, and no answer as wrong. F1 and confusion are
    over the texts with one label. The calibration error is the expected one over 15 bins of equal
    width. Tokens are means over the texts.
    """
    single = [
        (t.wanted[0], a.label) for t, a in zip(texts, answers, strict=True) if not t.wanted[1:]
    ]
    right = [a.label in t.wanted for t, a in zip(texts, answers, strict=True)]
    confusion = {label: dict.fromkeys((*labels, _BAD), 0) for label in labels}
    for wanted, answered in single:
        confusion[wanted][answered or _BAD] += 1
    f1 = {label: _f1(label, confusion) for label in labels}
    seen = [label for label in labels if sum(confusion[label].values())]
    sure = [
        (a.confidence, ok) for a, ok in zip(answers, right, strict=True) if a.confidence is not None
    ]
    seconds = sorted(a.seconds for a in answers)
    return Score(
        model=described,
        texts=len(texts),
        failed=sum(a.label is None for a in answers),
        accuracy=sum(right) / len(right),
        macro_f1=sum(f1[label] for label in seen) / len(seen) if seen else 0.0,
        f1=f1,
        confusion=confusion,
        calibration_error=_calibration(sure) if sure else None,
        seconds_p50=seconds[len(seconds) // 2],
        seconds_p95=seconds[int(len(seconds) * 0.95)],
        input_tokens=sum(a.input_tokens for a in answers) / len(answers),
        output_tokens=sum(a.output_tokens for a in answers) / len(answers),
        said={label: sum(a.label == label for a in answers) for label in labels},
    )


def _f1(label: str, confusion: Mapping[str, Mapping[str, int]]) -> float:
    hits = confusion[label][label]
    wanted, answered = sum(confusion[label].values()), sum(row[label] for row in confusion.values())
    return 2 * hits / (wanted + answered) if wanted + answered else 0.0


def _calibration(sure: Sequence[tuple[float, bool]]) -> float:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for confidence, ok in sure:
        bins.setdefault(min(int(confidence * _BINS), _BINS - 1), []).append((confidence, ok))
    return sum(abs(sum(c for c, _ in b) - sum(ok for _, ok in b)) for b in bins.values()) / len(
        sure
    )


def _plain(one: Score) -> dict[str, Any]:
    made = {name: getattr(one, name) for name in Score.__slots__}
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in made.items()}


def table(one: Label, scores: Sequence[Score]) -> Iterator[str]:
    """The lines that people read: a column for each model, then each one's confusion."""
    names = [f"{s.model['name']} ({s.model['version'] or 'no version'})" for s in scores]
    width = max(24, *(len(name) + 2 for name in names))

    def row(name: str, values: Sequence[str]) -> str:
        return f"{name:22}" + "".join(f"{value:>{width}}" for value in values)

    yield row(one.name, names)
    yield row("texts", [str(s.texts) for s in scores])
    yield row("without an answer", [str(s.failed) for s in scores])
    yield row("accuracy", [f"{s.accuracy:.3f}" for s in scores])
    yield row("macro-F1", [f"{s.macro_f1:.3f}" for s in scores])
    for label in one.labels:
        yield row(f"  F1 {label}", [f"{s.f1[label]:.3f}" for s in scores])
    yield row("calibration error", [_optional(s.calibration_error) for s in scores])
    yield row("seconds, median", [f"{s.seconds_p50:.4f}" for s in scores])
    yield row("seconds, p95", [f"{s.seconds_p95:.4f}" for s in scores])
    yield row("input tokens per text", [f"{s.input_tokens:.0f}" for s in scores])
    yield row("output tokens per text", [f"{s.output_tokens:.0f}" for s in scores])
    for name, s in zip(names, scores, strict=True):
        columns = (*one.labels, _BAD)
        wide = max(len(column) for column in columns) + 2
        yield ""
        yield f"{name}: rows are expected labels, columns are answers"
        yield f"{'':{wide}}" + "".join(f"{column:>{wide}}" for column in columns)
        for label in one.labels:
            counts = "".join(f"{s.confusion[label][column]:>{wide}}" for column in columns)
            yield f"{label:{wide}}" + counts


def _optional(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
