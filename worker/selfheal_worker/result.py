"""What is published for a message that was analysed. Pure."""

from __future__ import annotations

import json
from typing import Any

from selfheal_worker.handlers import Work
from selfheal_worker.message import Message
from selfheal_worker.model.analysis import Reply
from selfheal_worker.task.task import Task


def described(got: Message, reply: Reply, task: Task) -> dict[str, Any]:
    """What a reply says about a message, and which model said it."""
    made: dict[str, Any] = {"id": got.id}
    if got.id_generated:
        made["id_generated"] = True
    made |= reply.validated.values
    made["model"] = reply.origin.described()
    made["task"] = task.described()
    made["degraded"] = reply.degraded
    if reply.truncated:
        made["truncated"] = True
    return made


def encode(work: Work, task: Task) -> bytes:
    """The result of work that a handler has finished, in JSON."""
    assert work.reply is not None
    result = described(work.message, work.reply, task)
    result["attempts"] = work.attempts + 1
    result["timings"] = _timings(work)
    result |= work.message.passed_through()
    encoded = json.dumps(result).encode()
    if len(work.passed_through) > len(b"{}"):
        return encoded[:-1] + b", " + work.passed_through[1:]
    return encoded


def _timings(work: Work) -> dict[str, float]:
    timings = {
        "received": round(work.received_unix, 3),
        "handler_wait": round(work.started - work.received + work.waited, 4),
        "model": round(work.finished - work.started - work.waited, 4),
    }
    published = work.delivery.timestamp
    if published is not None:
        timings["queue_wait"] = round(max(0.0, work.received_unix - published), 3)
    return timings
