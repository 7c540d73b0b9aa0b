"""`selfheal-worker dead-letters list|show|replay|purge`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any

from selfheal_worker import dead_letters
from selfheal_worker.broker import BrokerError, Delivery, Publication, Session, copied_properties
from selfheal_worker.cli.arguments import age, count
from selfheal_worker.cli.stop import stoppable
from selfheal_worker.config import Settings, load
from selfheal_worker.logs import printable

PROGRESS_EACH = 2.0


def add_commands(
    parser: argparse.ArgumentParser, output: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add the commands to the parser of `dead-letters`."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[Settings, argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(command=partial(_guarded, run))
        output(made)
        return made

    for name, run, text in (
        ("list", _list, "list dead letters, without removing them"),
        ("show", _show, "show dead letters with their bodies, without removing them"),
        ("replay", _replay, "send dead letters back to the work queue, in order"),
        ("purge", _purge, "delete dead letters"),
    ):
        made = command(name, run, text)
        _filters(made)
        if name in {"replay", "purge"}:
            made.add_argument("--dry-run", action="store_true", help="only show what would be done")
        if name == "purge":
            made.add_argument("--yes", action="store_true", help="confirm the deletion")


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", help="only those with this reason")
    parser.add_argument("--id", help="only those whose body's id or message_id is this")
    parser.add_argument(
        "--older-than", type=age, metavar="AGE", help="such as 90s, 15m, 12h, 7d (last time)"
    )
    parser.add_argument("--newer-than", type=age, metavar="AGE", help="likewise")
    parser.add_argument(
        "--limit", type=count, default=0, metavar="N", help="at most N of them (0: all)"
    )


def _guarded(
    run: Callable[[Settings, argparse.Namespace], int], options: argparse.Namespace
) -> int:
    settings = load()
    try:
        return run(settings, options)
    except BrokerError as error:
        print(f"selfheal-worker: {error}", file=sys.stderr)
        return 1


def _wanted(letter: dict[str, Any], options: argparse.Namespace, now: float) -> bool:
    if options.reason is not None and letter["reason"] != options.reason:
        return False
    if options.id is not None and options.id not in (str(letter["id"]), letter["message_id"]):
        return False
    if options.older_than is None and options.newer_than is None:
        return True
    age = _seconds_since(letter["last_time"], now)
    if age is None:
        return False
    return (options.older_than is None or age >= options.older_than) and (
        options.newer_than is None or age <= options.newer_than
    )


def _seconds_since(stamp: object, now: float) -> float | None:
    try:
        return now - datetime.fromisoformat(str(stamp)).timestamp()
    except (ValueError, OverflowError):
        return None


def _chosen(
    session: Session, settings: Settings, options: argparse.Namespace
) -> Iterator[tuple[Delivery, dict[str, Any]]]:
    """Consume the messages that existed at the start, one by one, in order; not acked."""
    now = time.time()
    found = 0
    reported_at = time.monotonic()
    total = session.count(settings.dlq_name)
    for seen in range(1, total + 1):
        delivery = session.get(settings.dlq_name)
        if delivery is None:
            return
        letter = dead_letters.describe(delivery)
        if time.monotonic() - reported_at >= PROGRESS_EACH:
            reported_at = time.monotonic()
            print(f"{seen} of {total} read", file=sys.stderr)
        if _wanted(letter, options, now):
            yield delivery, letter
            found += 1
            if found == options.limit:
                return


def _list(settings: Settings, options: argparse.Namespace) -> int:
    with Session(settings) as session:
        letters = [letter for _, letter in _chosen(session, settings, options)]
        session.release(settings.dlq_name)
    if options.output == "json":
        for letter in letters:
            print(json.dumps(letter))
        return 0
    print(f"{'LAST TIME':25} {'REASON':18} {'ERROR CLASS':20} {'ATTEMPTS':>8} {'BYTES':>8}  ID")
    for letter in letters:
        print(
            f"{_shown(letter['last_time']):25.25} {_shown(letter['reason']):18} "
            f"{_shown(letter['error_class']):20} {_shown(letter['attempts'] or 0):>8} "
            f"{letter['bytes']:8}  {_name(letter)}"
        )
    print(f"{len(letters)} dead letters in '{settings.dlq_name}'")
    return 0


def _show(settings: Settings, options: argparse.Namespace) -> int:
    """One by one: a body may be large."""
    with Session(settings) as session:
        for delivery, letter in _chosen(session, settings, options):
            shown = letter | {"body": delivery.body.decode(errors="replace")}
            if options.output == "json":
                print(json.dumps(shown))
                continue
            for name, value in shown.items():
                print(f"{name + ':':22} {printable(value)}")
            print()
        session.release(settings.dlq_name)
    return 0


def _shown(value: object) -> str:
    return printable("-" if value is None or value == "" else value)


def _name(letter: dict[str, Any]) -> str:
    return printable(letter["id"] or letter["message_id"] or "-")


def _replay(settings: Settings, options: argparse.Namespace) -> int:
    """Each message is confirmed in the work queue before it leaves the dead-letter queue. Stopping
    it loses and duplicates none; a lost connection can duplicate those in flight."""
    done = 0

    def arrived(session: Session, delivery: Delivery) -> None:
        nonlocal done
        session.ack(delivery)
        done += 1

    with Session(settings) as session, stoppable() as stopped:
        for delivery, letter in _chosen(session, settings, options):
            if stopped.is_set():
                break
            if options.dry_run:
                if options.output == "text":
                    print(f"would replay {_name(letter)}")
                done += 1
                continue
            properties = copied_properties(
                delivery, {dead_letters.REPLAYED: True}, without=dead_letters.OWN_HEADERS
            )
            publication = Publication(settings.queue_name, delivery.body, properties)
            session.send(publication, partial(arrived, session, delivery))
        session.flush()
        session.release(settings.dlq_name)
    _total("replayed", done, options)
    return 1 if stopped.is_set() else 0


def _purge(settings: Settings, options: argparse.Namespace) -> int:
    if not options.dry_run and not options.yes:
        print("selfheal-worker: purge deletes permanently; add --yes or --dry-run", file=sys.stderr)
        return 2
    done = 0
    with Session(settings) as session:
        for delivery, _ in _chosen(session, settings, options):
            if not options.dry_run:
                session.ack(delivery)
            done += 1
        session.release(settings.dlq_name)
    _total("purged", done, options)
    return 0


def _total(what: str, done: int, options: argparse.Namespace) -> None:
    if options.output == "json":
        print(json.dumps({what: done, "dry_run": options.dry_run}))
    else:
        print(f"{'would have ' if options.dry_run else ''}{what} {done} dead letters")
