"""Answers of models in a file, so that interrupted long work can be resumed."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from selfheal_worker.model.provider import ModelConfig, Origin
from selfheal_worker.plain_data import read_json

_QUESTION = "asked"
_BEGINNING = b'{"asked": "'


def question(config: ModelConfig, origin: Origin, text: str) -> str:
    """The same for the same text, model and settings, on every machine."""
    way = replace(config, base_url=None, deadline=0, concurrency=0, key="")
    return hashlib.sha256(f"{way!r} {origin!r} {text}".encode(errors="replace")).hexdigest()[:32]


class Kept:
    """One JSON line per answer, on disk as soon as it exists. `add` is thread-safe.

    Without a file nothing is kept. Raises ValueError if the file contains something else, because
    it is appended to and might be somebody's texts.
    """

    def __init__(self, file: Path | None) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, dict[str, Any]] = {}
        self._out: IO[bytes] | None = None
        if file is None:
            return
        before = file.read_bytes() if file.exists() else b""
        *whole, half = before.split(b"\n")
        for number, line in enumerate([*whole, half], start=1):
            if not line.startswith(_BEGINNING[: len(line) if line is half else None]):
                raise ValueError(f"{file}:{number}: is not a stored answer; use a separate file")
        for number, line in enumerate(whole, start=1):
            answer = _answer(line)
            if answer is None:
                raise ValueError(
                    f"{file}:{number}: is damaged; delete the line, or name a new file"
                )
            self._answers[answer.pop(_QUESTION)] = answer
        self._out = file.open("r+b" if file.exists() else "xb")
        # Half a line is what a process that was killed had written.
        self._out.seek(len(before) - len(half))
        self._out.truncate()

    def get(self, question: str) -> dict[str, Any] | None:
        """What was answered, if it was."""
        return self._answers.get(question)

    def add(self, question: str, answer: dict[str, Any]) -> None:
        """Keep an answer."""
        if self._out is not None:
            line = json.dumps({_QUESTION: question, **answer}).encode() + b"\n"
            with self._lock:
                self._out.write(line)
                self._out.flush()

    def close(self) -> None:
        """Let go of the file."""
        if self._out is not None:
            self._out.close()


def _answer(line: bytes) -> dict[str, Any] | None:
    """A kept answer as `add` wrote it, None for what has not all of one."""
    try:
        found = read_json(line.decode())
    except ValueError:
        return None
    numbers = [found.get(name) for name in ("seconds", "input_tokens", "output_tokens")]
    good = isinstance(found.get("values"), dict) and isinstance(found[_QUESTION], str)
    return found if good and all(isinstance(one, int | float) for one in numbers) else None
