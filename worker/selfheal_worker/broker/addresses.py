"""The broker's addresses, with credentials and TLS, from the settings."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pika

from selfheal_worker.broker.errors import BrokerError
from selfheal_worker.config import Settings

CONNECT_TIMEOUT = 10.0


def parameters(settings: Settings) -> list[pika.ConnectionParameters]:
    """All addresses of the broker, at least one. Files with secrets are read each time, so that
    they may be rotated. Raises `BrokerError`."""
    try:
        uris = _uris(settings)
        made = [pika.URLParameters(uri) for uri in uris]
    except (OSError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        # pika evaluates a URI's options as Python literals, and says nothing of what was wrong.
        what = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else "bad value"
        raise BrokerError(f"the broker's address cannot be read: {what}", permanent=True) from None
    if not made:
        where = settings.amqp_uri_file or "AMQP_HOST"
        raise BrokerError(f"{where} is empty: it must name the broker", permanent=True)
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
        if parts.username and parts.password is None:
            raise BrokerError(
                f"the broker's address names the user '{unquote(parts.username)}' but no password",
                permanent=True,
            )
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
