"""A real RabbitMQ for the tests: started, stopped, killed and frozen as a test wants."""

from __future__ import annotations

import base64
import json
import logging
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pika

if TYPE_CHECKING:
    from collections.abc import Iterator

# It logs an error for each refused try, and refused tries are what these tests are made of.
logging.getLogger("pika").setLevel(logging.CRITICAL + 1)

USER, PASSWORD = "selfheal", "correct-horse"
# Both lines are in use: Debian 13's and Debian 12's. Tests of what may differ run on each.
LINES = {"4.0": "rabbitmq", "3.10": "older-rabbitmq"}
LINE = os.environ.get("SELFHEAL_TEST_RABBITMQ", "4.0")
RABBITMQ_UID = 999
CONF = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = {prometheus}
log.console = true
log.console.level = warning
log.file = false
default_user = selfheal
default_pass = correct-horse
loopback_users = none
disk_free_limit.absolute = 50MB
collect_statistics_interval = 500
management.load_definitions = /etc/rabbitmq/none
"""


def free_ports(number: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now.

    Below those that the kernel gives to outgoing connections: a broker that is restarted must find
    its own again, with the connections of a whole test run coming and going meanwhile.
    """
    found: list[int] = []
    while len(found) < number:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


class Rabbit:
    """One broker; its data outlives `stop` and `kill`."""

    def __init__(
        self, folder: Path, *, line: str = LINE, tls: Path | None = None, extra: str = ""
    ) -> None:
        self.folder = folder
        self.line = line
        self.amqp, self.management, prometheus, self._dist, self._epmd, self.amqps = free_ports(6)
        self._process: subprocess.Popen[bytes] | None = None
        self._binds = {
            "/var/lib/rabbitmq": folder / "lib",
            "/var/log/rabbitmq": folder / "log",
            "/etc/rabbitmq/conf.d": folder / "conf.d",
        }
        for one in self._binds.values():
            one.mkdir(parents=True)
        conf = CONF.replace("management.load_definitions = /etc/rabbitmq/none\n", "").format(
            amqp=self.amqp, management=self.management, prometheus=prometheus
        )
        if tls is not None:
            shutil.copytree(tls, folder / "conf.d" / "tls")
            at = "/etc/rabbitmq/conf.d/tls"
            conf += (
                f"listeners.ssl.1 = 127.0.0.1:{self.amqps}\n"
                f"ssl_options.cacertfile = {at}/ca.pem\n"
                f"ssl_options.certfile = {at}/server.pem\n"
                f"ssl_options.keyfile = {at}/server.key\n"
                "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n"
            )
        (folder / "conf.d" / "10.conf").write_text(conf + extra)
        cookie = folder / "lib" / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(10))
        cookie.chmod(0o400)
        for path in [folder / "lib", folder / "log", folder / "conf.d", cookie]:
            os.chown(path, RABBITMQ_UID, RABBITMQ_UID)

    def uri(self, vhost: str = "/", *, user: str = USER, password: str = PASSWORD) -> str:
        return f"amqp://{user}:{password}@127.0.0.1:{self.amqp}/{quote(vhost, safe='')}"

    def _command(self, *argv: str) -> list[str]:
        from ci.images import chroot

        env = {
            "PATH": "/usr/lib/rabbitmq/bin:" + chroot.PATH,
            "HOME": "/var/lib/rabbitmq",
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"t{self.amqp}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist),
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none "
                "-kernel inet_dist_use_interface {127,0,0,1}"
            ),
            "RABBITMQ_CTL_ERL_ARGS": (
                "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }
        return chroot.command(
            root(self.line),
            argv,
            user=(RABBITMQ_UID, RABBITMQ_UID),
            binds=self._binds,
            env=env,
            cwd="/var/lib/rabbitmq",
        )

    def start(self) -> None:
        """Start and wait until it answers."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start without waiting."""
        with (self.folder / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                self._command("rabbitmq-server"), stdout=console, stderr=console
            )

    def wait(self, seconds: float = 300) -> None:
        """Wait until AMQP and management answer."""
        end = time.monotonic() + seconds
        while True:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > end:
                log = (self.folder / "console.log").read_text()[-3000:]
                raise RuntimeError(f"RabbitMQ does not run:\n{log}")
            try:
                self.api("GET", "overview")
                pika.BlockingConnection(pika.URLParameters(self.uri())).close()
            except (OSError, pika.exceptions.AMQPError):
                time.sleep(0.1)
            else:
                return

    def stop(self) -> None:
        """Stop in order."""
        from ci.images import chroot

        if self._process is not None:
            chroot.send_signal(self._process.pid, signal.SIGTERM)
            self._process.wait(300)
            self._process = None

    def kill(self) -> None:
        """kill -9 of all that it is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def ctl(self, *argv: str) -> str:
        done = subprocess.run(
            self._command("rabbitmqctl", *argv), capture_output=True, text=True, check=True
        )
        return done.stdout

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """The management HTTP API."""
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.management}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as reply:
            text = reply.read()
        return json.loads(text) if text else None

    def add_vhost(self, name: str) -> Vhost:
        self.api("PUT", f"vhosts/{name}")
        self.api(
            "PUT",
            f"permissions/{name}/{USER}",
            {"configure": ".*", "write": ".*", "read": ".*"},
        )
        return Vhost(self, name)


class Vhost:
    """A virtual host, and what a test does in it."""

    def __init__(self, rabbit: Rabbit, name: str) -> None:
        self.rabbit = rabbit
        self.name = name
        self.uri = rabbit.uri(name)

    def uri_of_user(self, **rights: str) -> str:
        """The address for a new user who has these rights (regular expressions) and no others."""
        name = f"u{secrets.token_hex(4)}"
        self.rabbit.api("PUT", f"users/{name}", {"password": PASSWORD, "tags": ""})
        nothing = dict.fromkeys(("configure", "write", "read"), "^$")
        self.rabbit.api("PUT", f"permissions/{self.name}/{name}", nothing | rights)
        return self.rabbit.uri(self.name, user=name)

    @contextmanager
    def channel(self) -> Iterator[Any]:
        connection = pika.BlockingConnection(pika.URLParameters(self.uri))
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            yield channel
        finally:
            if connection.is_open:
                connection.close()

    def publish(self, bodies: list[bytes], queue: str = "feedback", **properties: Any) -> None:
        with self.channel() as channel:
            for body in bodies:
                channel.basic_publish(
                    "",
                    queue,
                    body,
                    pika.BasicProperties(delivery_mode=2, **properties),
                    mandatory=True,
                )

    def count(self, queue: str) -> int:
        """Ready messages, now."""
        with self.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).method.message_count)

    def take(
        self, queue: str, number: int | None = None, seconds: float = 120
    ) -> list[tuple[bytes, Any]]:
        """Take number messages (waiting for them), or all that are ready."""
        got: list[tuple[bytes, Any]] = []
        end = time.monotonic() + seconds
        with self.channel() as channel:
            while number is None or len(got) < number:
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is not None:
                    # The broker's own count; older lines add it to the first delivery, too.
                    (properties.headers or {}).pop("x-delivery-count", None)
                    properties.headers = properties.headers or None
                    got.append((body, properties))
                elif number is None:
                    break
                elif time.monotonic() > end:
                    raise AssertionError(f"{queue}: {len(got)} of {number} after {seconds} s")
                else:
                    time.sleep(0.02)
        return got

    def fill(self, bodies: list[bytes], queue: str = "feedback") -> None:
        """Publish many, without waiting for each confirm."""
        connection = pika.BlockingConnection(pika.URLParameters(self.uri))
        channel = connection.channel()
        before = channel.queue_declare(queue, passive=True).method.message_count
        for body in bodies:
            channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))
        # A channel that closes forgets what a queue without a leader has not taken yet.
        self.wait_count(queue, before + len(bodies), 120)
        connection.close()

    def drain(self, queue: str) -> list[tuple[bytes, Any]]:
        """Take all that is in a queue; many times as fast as `take`."""
        number = self.count(queue)
        taken: list[tuple[bytes, Any]] = []
        with self.channel() as channel:
            for _, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=60):
                if body is not None:
                    taken.append((body, properties))
                if body is None or len(taken) == number:
                    break
            channel.cancel()
        assert len(taken) == number, f"{queue}: {len(taken)} of {number}"
        return taken

    def unacked(self, queue: str = "feedback") -> int:
        """Messages that a consumer holds, by the management API (up to 0.5 s old)."""
        found = self.rabbit.api("GET", f"queues/{self.name}/{queue}")
        return int(found.get("messages_unacknowledged", 0))

    def wait_count(self, queue: str, number: int, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while (found := self.count(queue)) != number:
            if time.monotonic() > end:
                raise AssertionError(f"{queue} has {found} messages, not {number}")
            time.sleep(0.05)


def root(line: str = LINE) -> Path:
    """The root file system with a broker of this line, made now if the cache has none."""
    from ci.images import rootfs

    return rootfs.ensure(LINES[line])


def available(line: str = LINE) -> str | None:
    """Why no broker of this line can be started here, or None."""
    if os.geteuid() != 0:
        return "a RabbitMQ in a chroot needs root"
    if shutil.which("unshare") is None:
        return "unshare is missing"
    from ci.images import ImagesError

    try:
        root(line)
    except (ImagesError, OSError) as error:
        return f"RabbitMQ's root file system cannot be made: {error}"
    return None
