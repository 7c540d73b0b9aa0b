"""Errors of a broker, explained for people, and whether only a person can fix them."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import quote

import pika
import pika.exceptions as amqp
from pika.adapters.utils import connection_workflow as workflow

from selfheal_worker.broker.topology import Queue, conflict

# What a user needs who runs the worker on queues that somebody else has declared.
RIGHTS = "the user needs read on the work queue and write on the default exchange (amq.default)"


class BrokerError(Exception):
    """The broker cannot be used; the message gives the reason, without secrets.

    permanent: only a person can fix it (credentials, vhost, queue arguments, certificates).
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


def address(one: pika.ConnectionParameters) -> str:
    """Where it goes, without the password."""
    user = getattr(one.credentials, "username", "")
    scheme = "amqps" if one.ssl_options else "amqp"
    return f"{scheme}://{user}@{one.host}:{one.port}/{quote(one.virtual_host, safe='')}"


def explain(error: BaseException | None, one: pika.ConnectionParameters) -> BrokerError:
    """Say what a failed or lost connection means, for people."""
    cause = innermost(error)
    refused = _refused(cause)
    if refused:
        return BrokerError(f"{address(one)} {refused}", permanent=True)
    if isinstance(cause, amqp.ConnectionClosed):
        return BrokerError(f"{address(one)} closed: {cause.reply_code} {cause.reply_text}")
    return BrokerError(f"{address(one)}: {plain(cause)}")


def _refused(cause: BaseException | None) -> str | None:
    """The error if only a person can fix it, or None."""
    code = cause.reply_code if isinstance(cause, amqp.ConnectionClosed) else 0
    if code == 403 or isinstance(
        cause, amqp.ProbableAuthenticationError | amqp.AuthenticationError
    ):
        return (
            "refused user name or password (ACCESS_REFUSED); check AMQP_USERNAME and "
            "AMQP_PASSWORD, or AMQP_URI"
        )
    if code == 530:
        return f"closed: {getattr(cause, 'reply_text', '')}; check that the vhost exists"
    if isinstance(cause, amqp.ProbableAccessDeniedError):
        return "closed at the vhost; check that it exists and that the user may use it"
    if isinstance(cause, ssl.SSLError):
        reason = (getattr(cause, "reason", None) or str(cause)).replace("_", " ").lower()
        more = getattr(cause, "verify_message", "")
        return (
            f"failed in TLS: {reason}{f' ({more})' if more else ''}; check AMQP_CA_FILE, "
            "AMQP_CERT_FILE and that the port speaks TLS"
        )
    return None


def innermost(error: BaseException | None) -> BaseException | None:
    while True:
        if isinstance(error, workflow.AMQPConnectionWorkflowFailed):
            error = error.exceptions[-1]
        elif isinstance(error, workflow.AMQPConnectorPhaseErrorBase):
            error = error.exception
        elif (
            isinstance(error, amqp.AMQPConnectionError)
            and error.args
            and isinstance(error.args[0], BaseException)
        ):
            error = error.args[0]
        else:
            return error


_EXPLANATIONS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    ((TimeoutError, workflow.AMQPConnectorStackTimeout), "timed out"),
    (amqp.AMQPHeartbeatTimeout, "silent for longer than the heartbeat allows"),
    # pika closes the connection itself when its stack_timeout has passed.
    (
        amqp.ConnectionOpenAborted,
        "accepted the connection, and timed out before the connection was open; check the port and "
        "whether the broker is overloaded or starting",
    ),
    (amqp.StreamLostError, "connection lost"),
    (
        amqp.IncompatibleProtocolError,
        "closed before it spoke AMQP; check the port, amqp or amqps, and whether it wants a client "
        "certificate (AMQP_CERT_FILE)",
    ),
)


def plain(cause: BaseException | None) -> str:
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    explained = next((words for kind, words in _EXPLANATIONS if isinstance(cause, kind)), None)
    if explained is not None:
        return explained
    return "no reason was given" if cause is None else str(cause) or type(cause).__name__


def refusal(queue: Queue | None, error: Any) -> BrokerError:
    """Say why a queue could not be declared, or, by one who may not declare, not be found."""
    code, text = getattr(error, "reply_code", 0), getattr(error, "reply_text", str(error))
    if queue is not None and code == 406:
        return BrokerError(conflict(queue, text), permanent=True)
    name = queue.name if queue is not None else "?"
    if code == 404:
        return BrokerError(
            f"queue '{name}' does not exist, and this user may not declare it; run "
            "`selfheal-worker topology` as one who may (configure, write and read)",
            permanent=True,
        )
    if code == 403:
        return BrokerError(
            f"queue '{name}' cannot be declared: {text}; "
            "the user needs configure, write and read rights",
            permanent=True,
        )
    return BrokerError(f"queue '{name}' cannot be declared: {text}")
