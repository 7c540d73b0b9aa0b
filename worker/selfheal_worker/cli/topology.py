"""`selfheal-worker topology`: declare the queues, once the broker answers."""

from __future__ import annotations

import sys
import time

from selfheal_worker.backoff import backoff
from selfheal_worker.broker import BrokerError, Session, topology
from selfheal_worker.config import Settings
from selfheal_worker.randomness import RANDOM

# A broker that starts makes its default user late: refused credentials are worth some patience.
PERMANENT_PATIENCE = 60.0


def declare(settings: Settings, timeout: float) -> int:
    """Declare all queues; waits for the broker for timeout seconds (0: for ever).

    1 when the broker did not answer in time or an existing queue has other arguments.
    """
    began = time.monotonic()
    attempts = 0
    while True:
        waited = time.monotonic() - began
        try:
            with Session(settings) as session:
                return _declare_all(session, settings)
        except BrokerError as error:
            limit = timeout or float("inf")
            if error.permanent:
                limit = min(limit, PERMANENT_PATIENCE)
            if waited >= limit:
                print(f"selfheal-worker: gave up after {waited:.0f} s: {error}", file=sys.stderr)
                return 1
            print(f"waiting for the broker, {waited:.0f} s so far: {error}", file=sys.stderr)
        time.sleep(min(5.0, backoff(attempts, RANDOM.random())))
        attempts += 1


def _declare_all(session: Session, settings: Settings) -> int:
    refused = 0
    for queue in topology.queues(settings):
        try:
            session.declare(queue)
        except BrokerError as error:
            if not error.permanent:
                raise
            refused += 1
            print(f"selfheal-worker: {error}", file=sys.stderr)
        else:
            print(f"queue '{queue.name}' exists")
    return 1 if refused else 0
