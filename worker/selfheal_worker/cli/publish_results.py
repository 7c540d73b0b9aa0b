"""`selfheal-worker publish` and `results`: feed a queue, and read what comes out."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from functools import partial
from threading import Event

from selfheal_worker.broker import BrokerError, Publication, Session, new_properties
from selfheal_worker.cli.answer_line import answer_line
from selfheal_worker.cli.input_lines import input_lines
from selfheal_worker.cli.stop import stoppable
from selfheal_worker.config import Settings
from selfheal_worker.message import PoisonError, parse
from selfheal_worker.randomness import new_id

PROGRESS_EACH = 2.0


def publish(
    settings: Settings, file: str, *, raw: bool, output: str, id_prefix: str | None = None
) -> int:
    """Send each line of file; a bad one ends it before anything is sent, unless raw.

    Messages without an id get one, so that answers can be matched: `id_prefix-<line number>`, or
    a random one. A raw line gets such an AMQP message_id when there is a prefix, else none.
    """
    lines, problems = _read(settings, file, raw, id_prefix)
    if problems:
        for problem in problems[:20]:
            print(f"selfheal-worker: {file}: {problem}", file=sys.stderr)
        print(
            f"selfheal-worker: {len(problems)} lines are not valid messages; nothing was sent "
            "(--raw sends them unchanged)",
            file=sys.stderr,
        )
        return 1
    began = time.monotonic()
    unconfirmed = {line.number: None for line in lines}
    trouble, in_doubt = "", 0
    try:
        with Session(settings) as session, stoppable() as stopped:
            try:
                _send_all(session, settings.queue_name, lines, unconfirmed, stopped)
            finally:
                in_doubt = session.in_doubt
    except BrokerError as error:
        trouble = str(error)
    sent = len(lines) - len(unconfirmed)
    if unconfirmed:
        doubt = f" ({in_doubt} more may have been)" if in_doubt else ""
        print(
            f"selfheal-worker: {trouble or 'stopped'}; {sent} of {len(lines)} were sent and "
            f"confirmed{doubt}; the first that was not is line {next(iter(unconfirmed))}",
            file=sys.stderr,
        )
        return 1
    seconds = time.monotonic() - began
    if output == "json":
        print(json.dumps({"published": sent, "seconds": round(seconds, 3)}))
    else:
        print(f"published {sent} messages to '{settings.queue_name}' in {seconds:.1f} s")
    return 0


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    message_id: str | None
    body: bytes


def _send_all(
    session: Session,
    queue: str,
    lines: list[_Line],
    unconfirmed: dict[int, None],
    stopped: Event,
) -> None:
    """Send lines in their order, taking those that the broker has out of `unconfirmed`."""
    reported_at = time.monotonic()
    for line in lines:
        if stopped.is_set():
            break
        publication = Publication(queue, line.body, new_properties(line.message_id))
        session.send(publication, partial(unconfirmed.pop, line.number))
        if time.monotonic() - reported_at > PROGRESS_EACH:
            reported_at = time.monotonic()
            print(f"{len(lines) - len(unconfirmed)} of {len(lines)} sent", file=sys.stderr)
    session.flush()


def _read(
    settings: Settings, file: str, raw: bool, id_prefix: str | None
) -> tuple[list[_Line], list[str]]:
    lines: list[_Line] = []
    problems: list[str] = []
    for number, line in enumerate(input_lines(file), start=1):
        numbered = None if id_prefix is None else f"{id_prefix}-{number}"
        if raw:
            lines.append(_Line(number, numbered, line))
            continue
        if not line.strip():
            continue
        try:
            got = parse(
                line,
                message_id=None,
                max_text_bytes=settings.max_text_bytes,
                max_body_bytes=settings.max_body_bytes,
                fresh_id=partial(_fresh_id, numbered),
            )
        except PoisonError as error:
            problems.append(f"line {number}: {error.reason}: {error}")
            continue
        if got.id_generated:
            line = json.dumps(json.loads(line) | {"id": got.id}).encode()
        lines.append(_Line(number, str(got.id), line))
    return lines, problems


def _fresh_id(numbered: str | None) -> str:
    return numbered or new_id()


def results(
    settings: Settings, *, expect: int | None, timeout: float, output: str, follow: bool = False
) -> int:
    """Print answers until expect of them came, or none for timeout seconds; follow: without end.

    An answer is acked after it was printed and flushed. 1 when fewer came than were expected.
    """
    got = 0
    try:
        with Session(settings) as session:
            # Never take more than are wanted: what is taken and not printed would be jumbled.
            prefetch = 64 if expect is None else max(1, min(64, expect))
            if expect != 0:
                for delivery in session.deliveries(settings.results_queue, prefetch, timeout):
                    if delivery is None and follow:
                        continue
                    if delivery is None:
                        break
                    _print(delivery.body, output)
                    sys.stdout.flush()
                    session.ack(delivery)
                    got += 1
                    if got == expect:
                        break
                session.stop_deliveries()
    except BrokerError as error:
        print(f"selfheal-worker: {error}; {got} results were read", file=sys.stderr)
        return 1
    if expect is not None and got < expect:
        print(
            f"selfheal-worker: {got} of {expect} results arrived; none for {timeout:g} s",
            file=sys.stderr,
        )
        return 1
    return 0


def _print(body: bytes, output: str) -> None:
    line = body if output == "json" else _line(body)
    sys.stdout.buffer.write(line + b"\n")


def _line(body: bytes) -> bytes:
    """An answer for people; what is none as it is, for it leaves the queue."""
    try:
        found = json.loads(body)
        if isinstance(found, dict) and "id" in found:
            return answer_line(found).encode(errors="replace")
    except (ValueError, ArithmeticError, RecursionError):
        pass
    print(f"selfheal-worker: a message of {len(body)} bytes is not a result", file=sys.stderr)
    return body
