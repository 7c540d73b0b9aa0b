"""The door to RabbitMQ: nothing else here imports pika.

`Link` is one connection that lasts: it connects, declares the queues, consumes, publishes with
confirms, and connects again when it is lost. All of it runs in the thread that calls `run`; only
`call_soon` may be called from another. `Session` is the short, blocking kind for commands.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import re
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit

import pika
import pika.data
import pika.exceptions as amqp
from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.adapters.utils import connection_workflow as workflow

from worker.logs import say
from worker.retries import backoff
from worker.settings import Settings
from worker.topology import Queue, conflict

CONNECT_TIMEOUT = 10.0
CLOSE_TIMEOUT = 3.0
TICK = 0.25
RELEASE_PATIENCE = 2.0
# Publishes of a command that the broker has not confirmed yet: one by one, each would wait for
# the disk of a majority. A lost connection can leave so many in doubt.
WINDOW = 100
# What cannot heal by itself (credentials, vhost, queue arguments) is tried this often at most.
SLOW_PAUSE = 15.0
# A connection that lasted this long was a good one: the next is tried without a long pause. One
# that comes up and falls at once (a broken queue) must not be tried ten times a second.
STEADY = 10.0
_TOO_LARGE = re.compile(r"larger than configured max size (\d+)")
# Sender-selected distribution, which would send a copy elsewhere, and the broker's own records,
# which say "this was a loop, drop it" to its dead-lettering when they are sent back to it.
_NOT_COPIED = ("CC", "BCC", "x-death", "x-delivery-count", "x-acquired-count")
_NOT_COPIED_PREFIXES = ("x-first-death-", "x-last-death-", "x-opt-")
UNREADABLE_HEADERS = "x-selfheal-unreadable-headers"

logging.getLogger("pika").setLevel(logging.CRITICAL + 1)


class BrokerError(Exception):
    """The broker cannot be used; the message says why, without secrets.

    permanent: only a person can mend it (credentials, vhost, queue arguments, certificates).
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class Outcome(Enum):
    """What became of a publish."""

    CONFIRMED = "confirmed"
    RETURNED = "no queue took it"
    REFUSED = "the broker refused it"
    LOST = "the connection was lost"


@dataclass(slots=True)
class Delivery:
    """A message as it came. epoch: which connection's; properties: for the builders below."""

    tag: int
    epoch: int
    redelivered: bool
    exchange: str
    routing_key: str
    body: bytes
    properties: Any

    @property
    def message_id(self) -> str | None:
        """The AMQP message_id, if it is one that text can hold."""
        value = self.properties.message_id
        return value if isinstance(value, str) and value else None

    @property
    def headers(self) -> dict[str, Any]:
        """The AMQP headers."""
        return self.properties.headers or {}

    @property
    def timestamp(self) -> float | None:
        """When it was published, in Unix seconds, if the publisher said so."""
        value = self.properties.timestamp
        return float(value) if isinstance(value, int) and value > 0 else None


@dataclass(slots=True)
class Publication:
    """A message to send to a queue through the default exchange."""

    queue: str
    body: bytes
    properties: Any


# --- properties


def result_properties(delivery: Delivery, message_id: str) -> Any:
    """Properties of the answer: the ids and the trace headers of what it answers."""
    got = delivery.properties
    headers = got.headers
    trace = None
    if headers:
        trace = {k: headers[k] for k in ("traceparent", "tracestate") if k in headers}
    return pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=message_id,
        correlation_id=got.correlation_id,
        timestamp=int(time.time()),
        headers=trace or None,
    )


def copied_properties(
    delivery: Delivery,
    headers: Mapping[str, Any],
    *,
    without: Container[str] = (),
    keep_expiration: bool = False,
) -> Any:
    """Properties for sending a message on as it is, with these headers more and those less.

    user_id is left out (the broker would check it against our user), and expiration, unless the
    message goes back to where it was: it would expire from the dead letters.
    """
    got = delivery.properties
    kept = {
        name: value
        for name, value in delivery.headers.items()
        if name not in _NOT_COPIED
        and name not in without
        and not str(name).startswith(_NOT_COPIED_PREFIXES)
    }
    return pika.BasicProperties(
        content_type=got.content_type,
        content_encoding=got.content_encoding,
        headers=(kept | dict(headers)) or None,
        delivery_mode=2,
        priority=got.priority,
        correlation_id=got.correlation_id,
        reply_to=got.reply_to,
        expiration=got.expiration if keep_expiration else None,
        message_id=got.message_id,
        timestamp=got.timestamp,
        type=got.type,
        app_id=got.app_id,
    )


def new_properties(message_id: str | None) -> Any:
    """Properties of a message of our own."""
    return pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=message_id,
        timestamp=int(time.time()),
    )


def _plain_headers(properties: Any) -> None:
    """Leave only headers that can surely be encoded; for what pika reads but cannot write."""
    properties.headers = {
        name: value
        for name, value in (properties.headers or {}).items()
        if isinstance(name, str)
        and len(name.encode(errors="replace")) <= 255
        and (
            isinstance(value, str | bytes | bool)
            or (isinstance(value, int) and -(2**63) <= value < 2**63)
        )
    }


def _tolerant_decode_table(encoded: bytes, offset: int) -> tuple[dict[Any, Any], int]:
    """pika raises, in the connection's thread, on headers with a NaN, an infinite number, a date
    out of range or an unknown type. A publisher must not be able to end the process with that."""
    try:
        table, end = _decode_table(encoded, offset)
        return table, end
    except Exception:  # noqa: BLE001 whatever is wrong inside the table, its length is known
        size = int.from_bytes(encoded[offset : offset + 4], "big")
        return {UNREADABLE_HEADERS: True}, offset + 4 + size


_decode_table = pika.data.decode_table
pika.data.decode_table = _tolerant_decode_table


# --- addresses and errors


def parameters(settings: Settings) -> list[pika.ConnectionParameters]:
    """All addresses of the broker. Files with secrets are read each time, so that they may be
    rotated. Raises `BrokerError`."""
    try:
        uris = _uris(settings)
        made = [pika.URLParameters(uri) for uri in uris]
    except (OSError, ValueError) as error:
        what = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else "bad value"
        raise BrokerError(f"the broker's address cannot be read: {what}", permanent=True) from None
    for one in made:
        one.heartbeat = settings.amqp_heartbeat
        one.socket_timeout = CONNECT_TIMEOUT
        one.stack_timeout = CONNECT_TIMEOUT * 1.5
        one.connection_attempts = 1
        one.retry_delay = 0
        one.blocked_connection_timeout = None
        one.client_properties = {"connection_name": "selfheal-worker"}
        if settings.amqp_ca_file or settings.amqp_cert_file or one.ssl_options:
            one.ssl_options = pika.SSLOptions(_tls(settings), one.host)
    return made


def _uris(settings: Settings) -> list[str]:
    if settings.amqp_uri_file:
        text = settings.amqp_uri_file.read_text().strip()
    elif settings.amqp_uri:
        text = settings.amqp_uri.get_secret_value()
    else:
        hosts = [part.strip() for part in (settings.amqp_host or "").split(",") if part.strip()]
        vhost = quote(settings.amqp_vhost, safe="")
        tls = "amqps" if settings.amqp_ca_file or settings.amqp_cert_file else "amqp"
        text = ",".join(
            f"{tls}://{host if ':' in host else f'{host}:{settings.amqp_port}'}/{vhost}"
            for host in hosts
        )
    uris = [part.strip() for part in text.split(",") if part.strip()]
    user = _secret(settings.amqp_username_file, settings.amqp_username)
    password = _secret(
        settings.amqp_password_file,
        settings.amqp_password.get_secret_value() if settings.amqp_password else None,
    )
    return [_with_credentials(uri, user, password) for uri in uris]


def _secret(file: Path | None, value: str | None) -> str | None:
    return file.read_text().strip() if file else value


def _with_credentials(uri: str, user: str | None, password: str | None) -> str:
    parts = urlsplit(uri)
    if user is None and password is None:
        return uri
    name = user if user is not None else unquote(parts.username or "guest")
    word = password if password is not None else unquote(parts.password or "guest")
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(name, safe='')}:{quote(word, safe='')}@{host}").geturl()


def _tls(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=str(settings.amqp_ca_file) if settings.amqp_ca_file else None
        )
        if settings.amqp_cert_file and settings.amqp_key_file:
            context.load_cert_chain(str(settings.amqp_cert_file), str(settings.amqp_key_file))
    except (OSError, ssl.SSLError) as error:
        raise BrokerError(
            f"AMQP_CA_FILE, AMQP_CERT_FILE or AMQP_KEY_FILE cannot be used: {error}",
            permanent=True,
        ) from None
    return context


def address(one: pika.ConnectionParameters) -> str:
    """Where it goes, without the password."""
    user = getattr(one.credentials, "username", "")
    scheme = "amqps" if one.ssl_options else "amqp"
    return f"{scheme}://{user}@{one.host}:{one.port}/{quote(one.virtual_host, safe='')}"


def explain(error: BaseException | None, one: pika.ConnectionParameters) -> BrokerError:
    """Say what a failed or lost connection means, for people."""
    cause = _innermost(error)
    refused = _refused(cause)
    if refused:
        return BrokerError(f"{address(one)} {refused}", permanent=True)
    if isinstance(cause, amqp.ConnectionClosed):
        return BrokerError(f"{address(one)} closed: {cause.reply_code} {cause.reply_text}")
    return BrokerError(f"{address(one)}: {_plain(cause)}")


def _refused(cause: BaseException | None) -> str | None:
    """What only a person can mend, or None."""
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


def _innermost(error: BaseException | None) -> BaseException | None:
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


def _plain(cause: BaseException | None) -> str:
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(cause, TimeoutError | workflow.AMQPConnectorStackTimeout):
        return "timed out"
    if isinstance(cause, amqp.AMQPHeartbeatTimeout):
        return "silent for longer than the heartbeat allows"
    if isinstance(cause, amqp.StreamLostError):
        return "connection lost"
    if isinstance(cause, amqp.IncompatibleProtocolError):
        return (
            "closed before it spoke AMQP; check the port, amqp or amqps, and whether it wants a "
            "client certificate (AMQP_CERT_FILE)"
        )
    return "no reason was given" if cause is None else str(cause) or type(cause).__name__


# --- the lasting connection


class Events(Protocol):
    """What a `Link` tells; all called in its thread."""

    def on_tick(self) -> None:
        """Called each `TICK` seconds, connected or not."""

    def on_up(self) -> None:
        """Connected, the queues are there, and one may publish and consume."""

    def on_down(self, error: BrokerError) -> None:
        """Not connected any more, or still not; all publishes that were under way are LOST."""

    def on_delivery(self, delivery: Delivery) -> None:
        """A message came."""

    def on_cancelled(self) -> None:
        """No more messages will come, as was asked for."""


Done = Callable[[Outcome], None]


class _Connection(SelectConnection):  # type: ignore[misc]  # pika has no types
    """Sends what one turn of the loop has to say in one piece.

    pika hands each frame to the socket by itself: four system calls a message, and after each the
    thread has to win the interpreter back from the handlers. (Measured: a quarter of the time.)
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._unsent: list[bytes] = []
        super().__init__(*arguments, **named)

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._unsent:
            self.ioloop.call_later(0, self._send_all)
        self._unsent.append(data)

    def _send_all(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None and unsent:
            self._transport.write(b"".join(unsent))


@dataclass(slots=True)
class _Pending:
    publication: Publication
    done: Done
    returned: bool = False


class Link:
    """One connection to the broker that comes back. See the module's docstring for threads."""

    def __init__(
        self,
        settings: Settings,
        queues: Sequence[Queue],
        events: Events,
        randomness: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._queues = queues
        self._events = events
        self._random = randomness
        self._ioloop = IOLoop()
        self._connection: Any = None
        self._channel: Any = None
        self._attempts = 0
        self._up_since = 0.0
        self._consumer_tag: str | None = None
        self._next_tag = 1
        self._pending: dict[int, _Pending] = {}
        self._unacked: dict[int, None] = {}  # in the order of delivery
        self._to_ack: set[int] = set()
        self._closing: Callable[[], None] | None = None
        self.epoch = 0
        # Bytes of a body that the broker takes; it does not tell before it refuses one.
        self.largest: float = math.inf
        self.up = False
        self.consuming = False
        self.blocked = False

    # -- the thread

    def run(self) -> None:
        """Connect, and serve until `close` has ended."""
        self._connect()
        self._tick()
        while True:
            try:
                self._ioloop.start()
                break
            except Exception as error:  # noqa: BLE001 see _recover
                self._recover(error)
        self._ioloop.close()

    def _recover(self, error: Exception) -> None:
        """Start over with a new I/O loop after an exception that nobody caught.

        pika raises from inside its loop when, for one, a connection is reset just after it was
        made. The process goes on as after a lost connection; what was in the old loop is gone.
        """
        say(logging.ERROR, "the connection's loop broke", error=repr(error)[:500])
        broken, self._ioloop = self._ioloop, IOLoop()
        connection, self._connection = self._connection, None
        # An orderly close would need the loop that broke. The broker has to see the end at once,
        # or it would wait for two heartbeats before it gives our messages to others.
        socket = getattr(getattr(connection, "_transport", None), "_sock", None)
        if socket is not None:
            socket.close()
        self._down(BrokerError(f"internal error: {type(error).__name__}"))
        self._tick()
        with contextlib.suppress(Exception):
            broken.close()

    def _tick(self) -> None:
        self._ioloop.call_later(TICK, self._tick)
        self._events.on_tick()

    def call_soon(self, function: Callable[[], None]) -> None:
        """Have function called in the link's thread. From any thread.

        It is forgotten when the loop breaks just then: `on_tick` looks at what must not be.
        """
        self._ioloop.add_callback_threadsafe(function)

    def close(self, done: Callable[[], None]) -> None:
        """Close and end `run`; done is called just before. Acks that were given are sent first."""
        if self._closing is not None:
            return
        self._closing = done
        if self._connection is None or not self._connection.is_open:
            self._end()
            return
        if self.up:
            self._send_acks()
        self._connection.close()
        self._ioloop.call_later(CLOSE_TIMEOUT, self._end)

    def _end(self) -> None:
        if self._closing is not None:
            done, self._closing = self._closing, lambda: None
            done()
        self._ioloop.stop()

    # -- connecting

    def _connect(self) -> None:
        if self._closing is not None:
            return
        try:
            addresses = parameters(self._settings)
        except BrokerError as error:
            self._down(error)
            return
        one = addresses[self._attempts % len(addresses)]
        self.epoch += 1
        epoch = self.epoch
        self._connection = _Connection(
            one,
            on_open_callback=partial(self._opened, epoch),
            on_open_error_callback=lambda _, error: self._lost(epoch, explain(error, one)),
            on_close_callback=lambda _, error: self._lost(epoch, explain(error, one)),
            custom_ioloop=self._ioloop,
        )

    def _opened(self, epoch: int, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(lambda *_: self._set_blocked(True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._set_blocked(False))
        self.declare(partial(self._declared, epoch))

    def _set_blocked(self, blocked: bool) -> None:
        self.blocked = blocked

    def declare(self, done: Callable[[BrokerError | None], None]) -> None:
        """Declare all queues, on a channel of its own, because a refusal closes it."""
        _Declaration(self._connection, self._queues, done)

    def _declared(self, epoch: int, error: BrokerError | None) -> None:
        if epoch != self.epoch or self._closing is not None:
            return
        if error is not None:
            self._give_up(epoch, error)
            return
        self._connection.channel(on_open_callback=partial(self._channel_opened, epoch))

    def _channel_opened(self, epoch: int, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(lambda _, error: self._channel_closed(epoch, error))
        channel.add_on_return_callback(self._returned)
        channel.add_on_cancel_callback(
            lambda _: self._give_up(epoch, BrokerError("the broker cancelled the consumer"))
        )
        self._next_tag = 1
        channel.confirm_delivery(self._confirmed)
        channel.basic_qos(prefetch_count=self._settings.concurrency)
        # For a queue that nobody has: the broker drops it, but looks at our rights before. Without
        # the right to publish, each message would be analysed for nothing, again and again.
        nowhere = Publication(f"{self._settings.queue_name}.rights", b"", pika.BasicProperties())
        self._send(nowhere, mandatory=False)
        self._await_confirm(nowhere, lambda _: self._ready(epoch))

    def _ready(self, epoch: int) -> None:
        if epoch == self.epoch and self._closing is None:
            self.up = True
            self._up_since = time.monotonic()
            self._events.on_up()

    def _channel_closed(self, epoch: int, error: Any) -> None:
        # When the whole connection goes, its own callback comes next, and knows more.
        if not isinstance(error, amqp.ChannelClosed) or self._closing is not None:
            return
        why = f"the broker closed the channel: {error.reply_text}"
        if found := _TOO_LARGE.search(error.reply_text):
            self.largest = int(found[1])
        if error.reply_code == 403:
            self._give_up(epoch, BrokerError(f"{why}; {RIGHTS}", permanent=True))
        else:
            self._give_up(epoch, BrokerError(why))

    def _give_up(self, epoch: int, error: BrokerError) -> None:
        """Drop a connection that is there but of no use, and start again."""
        if epoch != self.epoch:
            return
        connection = self._connection
        self._lost(epoch, error)
        if connection.is_open:
            connection.close()

    def _lost(self, epoch: int, error: BrokerError) -> None:
        if epoch != self.epoch:
            return
        self._down(error)

    def _down(self, error: BrokerError) -> None:
        self.epoch += 1  # so that later words of the old connection are not heard
        if self.up and time.monotonic() - self._up_since >= STEADY:
            self._attempts = 0
        self.up = self.consuming = self.blocked = False
        self._channel = None
        self._consumer_tag = None
        self._unacked.clear()
        self._to_ack.clear()
        pending, self._pending = self._pending, {}
        if self._closing is not None:
            self._end()
            return
        for waiting in pending.values():
            waiting.done(Outcome.LOST)
        self._events.on_down(error)
        pause = backoff(self._attempts, self._random())
        if error.permanent:
            pause = max(pause, SLOW_PAUSE * (0.5 + self._random() / 2))
        self._attempts += 1
        self._ioloop.call_later(pause, self._connect)

    # -- consuming

    def consume(self) -> None:
        """Take messages, as many at a time as the prefetch allows."""
        if self.up and self._consumer_tag is None:
            epoch = self.epoch
            self._consumer_tag = self._channel.basic_consume(
                self._settings.queue_name,
                partial(self._delivered, epoch),
                callback=lambda _: self._set_consuming(epoch),
            )

    def _set_consuming(self, epoch: int) -> None:
        if epoch == self.epoch and self._consumer_tag is not None:
            self.consuming = True

    def _delivered(self, epoch: int, _: Any, method: Any, properties: Any, body: bytes) -> None:
        if epoch != self.epoch:
            return
        delivery = Delivery(
            method.delivery_tag,
            epoch,
            method.redelivered,
            method.exchange,
            method.routing_key,
            body,
            properties,
        )
        self._unacked[delivery.tag] = None
        with _told():
            self._events.on_delivery(delivery)

    @property
    def subscribed(self) -> bool:
        """Whether messages come, or will as soon as the broker has heard of it."""
        return self._consumer_tag is not None

    def cancel(self) -> None:
        """Take no more messages; those on the way still come, until `on_cancelled`."""
        if not self.up or self._consumer_tag is None:
            return
        tag, self._consumer_tag = self._consumer_tag, None
        epoch = self.epoch
        self.consuming = False
        self._channel.basic_cancel(tag, callback=lambda _: self._cancelled(epoch))
        # Else pika itself rejects what is on the way, and each reject counts as a delivery.
        self._channel._cancelled.discard(tag)

    def _cancelled(self, epoch: int) -> None:
        if epoch == self.epoch:
            self._events.on_cancelled()

    def ack(self, delivery: Delivery) -> None:
        """Settle a message, from within its `Done`; without effect when its connection is gone."""
        if self.up and delivery.epoch == self.epoch:
            self._to_ack.add(delivery.tag)

    def _send_acks(self) -> None:
        """Ack what was settled: all from the oldest on in one frame, the others one by one."""
        ready, unacked = self._to_ack, self._unacked
        last = 0
        for tag in unacked:
            if tag not in ready:
                break
            last = tag
        if last:
            self._channel.basic_ack(last, multiple=True)
            for tag in [tag for tag in unacked if tag <= last]:
                del unacked[tag]
                ready.discard(tag)
        for tag in ready:
            self._channel.basic_ack(tag)
            del unacked[tag]
        ready.clear()

    # -- publishing

    def publish(self, publication: Publication, done: Done) -> None:
        """Send with mandatory and confirm; done is called once, with what became of it."""
        if not self.up:
            done(Outcome.LOST)
            return
        try:
            self._send(publication)
        except (amqp.ShortStringTooLong, amqp.UnsupportedAMQPFieldException, struct.error):
            _plain_headers(publication.properties)
            self._send(publication)
        except amqp.AMQPError:
            done(Outcome.LOST)
            return
        self._await_confirm(publication, done)

    def _await_confirm(self, publication: Publication, done: Done) -> None:
        self._pending[self._next_tag] = _Pending(publication, done)
        self._next_tag += 1

    def _send(self, publication: Publication, *, mandatory: bool = True) -> None:
        self._channel.basic_publish(
            "", publication.queue, publication.body, publication.properties, mandatory=mandatory
        )

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        well = isinstance(method, pika.spec.Basic.Ack)
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._pending if tag <= method.delivery_tag]
        with _told():
            for tag in tags:
                self._settled(self._pending.pop(tag, None), well)
        if self._to_ack:
            self._send_acks()

    def _settled(self, waiting: _Pending | None, well: bool) -> None:
        if waiting is None:
            return
        if waiting.returned:
            waiting.done(Outcome.RETURNED)
        else:
            waiting.done(Outcome.CONFIRMED if well else Outcome.REFUSED)

    def _returned(self, _: Any, method: Any, __: Any, body: bytes) -> None:
        """A return comes before the confirm of its message, and names it by nothing but itself."""
        for waiting in self._pending.values():
            publication = waiting.publication
            if (
                not waiting.returned
                and publication.queue == method.routing_key
                and publication.body == body
            ):
                waiting.returned = True
                return


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Log an exception of ours before pika makes a lost connection of it, without a word."""
    try:
        yield
    except Exception as error:
        say(logging.ERROR, "a callback failed", error=type(error).__name__)
        raise


# What a user needs who runs the worker on queues that somebody else has declared.
RIGHTS = "the user needs read on the work queue and write on the default exchange (amq.default)"


class _Declaration:
    """Declares queues one after the other; a user who may not is content when they are there."""

    def __init__(
        self, connection: Any, queues: Sequence[Queue], done: Callable[[BrokerError | None], None]
    ) -> None:
        self._connection = connection
        self._left = deque(queues)
        self._only_look = False
        self._done: Callable[[BrokerError | None], None] | None = done
        self._open()

    def _open(self) -> None:
        self._connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(lambda _, error: self._closed(error))
        self._next()

    def _next(self) -> None:
        if not self._left:
            self._finish(None)
            self._channel.close()
            return
        queue = self._left[0]
        self._channel.queue_declare(
            queue.name,
            passive=self._only_look,
            durable=True,
            arguments=dict(queue.arguments),
            callback=lambda _: self._declared(),
        )

    def _declared(self) -> None:
        self._left.popleft()
        self._next()

    def _closed(self, error: Any) -> None:
        forbidden = isinstance(error, amqp.ChannelClosed) and error.reply_code == 403
        if self._left and forbidden and not self._only_look:
            self._only_look = True
            self._open()
            return
        self._finish(refusal(self._left[0] if self._left else None, error))

    def _finish(self, error: BrokerError | None) -> None:
        if self._done is not None:
            done, self._done = self._done, None
            done(error)


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
            f"queue '{name}' cannot be declared: {text}; the user needs configure, write and read",
            permanent=True,
        )
    return BrokerError(f"queue '{name}' cannot be declared: {text}")


# --- the short connection of the commands


@dataclass(slots=True)
class _Sent:
    publication: Publication
    done: Callable[[], None]
    returned: bool = False
    refused: bool = False


class Session:
    """A blocking connection. All methods raise `BrokerError`."""

    def __init__(self, settings: Settings) -> None:
        self._held = 0
        self._out: Any = None
        self._next_tag = 1
        self._on_the_way: dict[int, _Sent] = {}
        self._settled: deque[_Sent] = deque()
        self._refusal: BrokerError | None = None
        troubles = []
        for one in parameters(settings):
            try:
                self._connection = pika.BlockingConnection(one)
                break
            except (amqp.AMQPError, workflow.AMQPConnectorException, OSError) as error:
                troubles.append(explain(error, one))
        else:
            raise BrokerError(
                "; ".join(str(trouble) for trouble in troubles),
                permanent=all(trouble.permanent for trouble in troubles),
            )
        self._where = address(one)
        self._open()

    def _open(self) -> None:
        self._channel = self._connection.channel()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection.is_open:
            self._connection.close()

    def declare(self, queue: Queue) -> None:
        """Declare one queue."""
        try:
            self._channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
        except amqp.ChannelClosed as error:
            self._open()
            raise refusal(queue, error) from None
        except amqp.AMQPError as error:
            raise self._lost(error) from None

    def count(self, queue: str) -> int:
        """How many messages are ready in a queue."""
        try:
            found: int = self._channel.queue_declare(queue, passive=True).method.message_count
        except amqp.ChannelClosed as error:
            self._open()
            raise BrokerError(f"queue '{queue}': {error.reply_text}", permanent=True) from None
        except amqp.AMQPError as error:
            raise self._lost(error) from None
        return found

    def send(self, publication: Publication, done: Callable[[], None]) -> None:
        """Send one message, waiting only while `WINDOW` are on their way.

        done is called when the broker has it, from within a later `send` or `flush`. Raises when
        the broker refused one, after it has answered for all, or when the connection was lost:
        whether those that are `in_doubt` arrived is not known then.
        """
        try:
            self._publish(publication)
        except amqp.AMQPError as error:
            raise self._lost(error) from None
        self._on_the_way[self._next_tag] = _Sent(publication, done)
        self._next_tag += 1
        self._await_confirms(WINDOW - 1)

    def flush(self) -> None:
        """Wait until the broker has all that was sent."""
        self._await_confirms(0)

    @property
    def in_doubt(self) -> int:
        """How many messages were sent of which the broker has not said that it has them."""
        return len(self._on_the_way)

    def _publish(self, publication: Publication) -> None:
        if self._out is None:
            # pika's blocking channel waits for each confirm; the one beneath it does not.
            self._out = self._connection.channel()
            self._out._impl.confirm_delivery(self._confirmed)
            self._out._impl.add_on_return_callback(self._returned)
        arguments = ("", publication.queue, publication.body)
        try:
            self._out._impl.basic_publish(*arguments, publication.properties, mandatory=True)
        except (amqp.ShortStringTooLong, amqp.UnsupportedAMQPFieldException, struct.error):
            _plain_headers(publication.properties)
            self._out._impl.basic_publish(*arguments, publication.properties, mandatory=True)

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._on_the_way if tag <= method.delivery_tag]
        for tag in tags:
            sent = self._on_the_way.pop(tag)
            sent.refused = isinstance(method, pika.spec.Basic.Nack)
            self._settled.append(sent)

    def _returned(self, _: Any, method: Any, __: Any, body: bytes) -> None:
        for sent in self._on_the_way.values():
            if sent.publication.queue == method.routing_key and sent.publication.body == body:
                sent.returned = True
                return

    def _await_confirms(self, allowed: int) -> None:
        """Wait until at most so many are on their way, and tell of those that arrived: not from
        within pika's callbacks, where nothing may be sent."""
        while True:
            while self._settled:
                self._tell(self._settled.popleft())
            if len(self._on_the_way) <= (0 if self._refusal else allowed):
                break
            try:
                self._out._flush_output(lambda: bool(self._settled))
            except amqp.AMQPError as error:
                raise self._lost(error) from None
        if self._refusal is not None:
            raise self._refusal

    def _tell(self, sent: _Sent) -> None:
        queue = sent.publication.queue
        if sent.returned:
            self._refusal = BrokerError(
                f"queue '{queue}' does not exist; declare it with `selfheal-worker topology`",
                permanent=True,
            )
        elif sent.refused:
            self._refusal = BrokerError(f"queue '{queue}' refused it: it is full")
        else:
            sent.done()

    def get(self, queue: str) -> Delivery | None:
        """Take one message without acking it, or None when there is none ready."""
        try:
            method, properties, body = self._channel.basic_get(queue)
        except amqp.ChannelClosed as error:
            self._open()
            raise BrokerError(f"queue '{queue}': {error.reply_text}", permanent=True) from None
        except amqp.AMQPError as error:
            raise self._lost(error) from None
        if method is None:
            return None
        self._held += 1
        return Delivery(
            method.delivery_tag,
            0,
            method.redelivered,
            method.exchange,
            method.routing_key,
            body,
            properties,
        )

    def deliveries(self, queue: str, prefetch: int, wait: float) -> Iterator[Delivery | None]:
        """Messages as they come, unacked; None after each `wait` seconds without one."""
        try:
            self._channel.basic_qos(prefetch_count=prefetch)
            for method, properties, body in self._channel.consume(queue, inactivity_timeout=wait):
                if method is None:
                    yield None
                else:
                    yield Delivery(
                        method.delivery_tag,
                        0,
                        method.redelivered,
                        method.exchange,
                        method.routing_key,
                        body,
                        properties,
                    )
        except amqp.ChannelClosed as error:
            self._open()
            raise BrokerError(f"queue '{queue}': {error.reply_text}", permanent=True) from None
        except amqp.AMQPError as error:
            raise self._lost(error) from None

    def stop_deliveries(self) -> None:
        """End `deliveries`; what it had taken beyond what was yielded goes back."""
        try:
            self._channel.cancel()
        except amqp.AMQPError as error:
            raise self._lost(error) from None

    def ack(self, delivery: Delivery) -> None:
        """Settle one message."""
        self._held -= 1
        try:
            self._channel.basic_ack(delivery.tag)
        except amqp.AMQPError as error:
            raise self._lost(error) from None

    def release(self, queue: str) -> None:
        """Give all messages back that were taken from queue and not acked.

        Waits a moment until they are there again, because the broker does it in its own time, and
        whoever looks next would find none.
        """
        held, self._held = self._held, 0
        try:
            self._channel.close()
            self._open()
        except amqp.AMQPError as error:
            raise self._lost(error) from None
        end = time.monotonic() + RELEASE_PATIENCE
        while self.count(queue) < held and time.monotonic() < end:
            time.sleep(0.02)

    def _lost(self, error: amqp.AMQPError) -> BrokerError:
        return BrokerError(f"{self._where}: {_plain(_innermost(error))}")
