"""The adapter to RabbitMQ: nothing else here imports pika.

`Link` is the worker's one long-lived connection; `Session` is the short-lived one for commands.
"""

from __future__ import annotations

import logging

from selfheal_worker.broker.addresses import parameters
from selfheal_worker.broker.connection import Link
from selfheal_worker.broker.deliveries import (
    Delivery,
    Done,
    Outcome,
    Publication,
    copied_properties,
    new_properties,
    result_properties,
)
from selfheal_worker.broker.errors import BrokerError, address, explain
from selfheal_worker.broker.events import Events
from selfheal_worker.broker.session import WINDOW, Session

__all__ = [
    "WINDOW",
    "BrokerError",
    "Delivery",
    "Done",
    "Events",
    "Link",
    "Outcome",
    "Publication",
    "Session",
    "address",
    "copied_properties",
    "explain",
    "new_properties",
    "parameters",
    "result_properties",
]

logging.getLogger("pika").setLevel(logging.CRITICAL + 1)
