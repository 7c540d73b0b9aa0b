"""`selfheal-worker analyze`: the model without any broker."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from selfheal_worker.cli.answer_line import answer_line
from selfheal_worker.cli.input_lines import input_lines
from selfheal_worker.config import Settings
from selfheal_worker.message import PoisonError, parse
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import ModelError
from selfheal_worker.result import described


def analyze(
    settings: Settings, chain: Chain, text: str | None, file: str | None, output: str
) -> int:
    """Analyse one text or a file of JSON lines; 1 when any line had no answer."""
    try:
        chain.wake(settings.model_deadline)
    except ModelError as error:
        print(f"selfheal-worker: the model cannot be used: {error}", file=sys.stderr)
        return 1
    failed = 0
    for number, body in enumerate(_bodies(text, file), start=1):
        line = _answer(settings, chain, body)
        if "error" in line:
            failed += 1
            if file is not None:
                line["line"] = number
        if text is not None and "id" in line:
            del line["id"]
        _print(line, output)
    if failed and file is not None:
        print(f"selfheal-worker: {failed} lines have no answer", file=sys.stderr)
    return 1 if failed else 0


def _bodies(text: str | None, file: str | None) -> Iterator[bytes]:
    if file is None:
        return iter([json.dumps({"id": "-", "text": text}).encode()])
    return (line for line in input_lines(file) if line.strip())


def _answer(settings: Settings, chain: Chain, body: bytes) -> dict[str, Any]:
    try:
        got = parse(body, message_id=None, max_text_bytes=settings.max_text_bytes)
    except PoisonError as error:
        return {"error": error.reason, "detail": str(error)}
    try:
        reply = chain.ask(got.text, time.monotonic() + settings.model_deadline)
    except ModelError as error:
        return {"id": got.id, "error": type(error).__name__, "detail": str(error)}
    made = described(got, reply, chain.task) | got.passed_through()
    if not reply.degraded:
        del made["degraded"]
    return made


def _print(line: dict[str, Any], output: str) -> None:
    if output == "json":
        print(json.dumps(line))
    elif "error" in line:
        where = f"line {line['line']}: " if "line" in line else ""
        print(f"{where}{line['error']}: {line['detail']}")
    else:
        print(answer_line(line))
