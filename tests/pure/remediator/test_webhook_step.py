"""The step `webhook`: what is sent, how it is signed, what is sent again, what is never shown."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from selfheal_remediator.actions.sender import NotSent, Reply, Request, send
from selfheal_remediator.actions.signature import UnusableSecret, secrets_from, signature
from selfheal_remediator.actions.step import StepOutcome, StepResult
from selfheal_remediator.actions.webhook import WebhookStep, origin, payload
from selfheal_remediator.controller.step_requests import StepCall, step_run
from selfheal_remediator.external_steps import WebhookSettings
from selfheal_remediator.failures import NotLeader
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.annotation import MAX_SECONDS, Phase, State
from tests.pure.remediator.steps_world import (
    BEGAN,
    DEADLINE,
    OCCURRENCE,
    StepsApi,
    client,
    run_on,
    until_it_ends,
)
from tests.support.loopback import Handler, LoopbackServer
from tests.support.waiting import PATIENCE

KEY = b"a key of at least 24 bytes"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


class Tickets(LoopbackServer):
    """Opens one ticket for each id whose signature is right.

    answers: what it answers instead, one after the other: status, headers, body; None = it hangs
    up after it opened the ticket.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tickets: dict[str, Any] = {}
        self.answers: list[tuple[int, dict[str, str], bytes] | None] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Post(Handler):
            def do_POST(self) -> None:
                outer.take(self)

        super().__init__(Post, tls)

    def take(self, request: Handler) -> None:
        body, headers = request.body(), dict(request.headers.items())
        self.requests.append((request.path, headers))
        name, stamp = headers["webhook-id"], headers["webhook-timestamp"]
        digest = hmac.new(KEY, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
        if f"v1,{base64.b64encode(digest).decode()}" not in headers["webhook-signature"].split():
            request.reply(b"the signature is wrong", 401)
            return
        answer = self.answers.pop(0) if self.answers else (201, {}, b"")
        if answer is None or answer[0] == 201:
            self.tickets[headers["Idempotency-Key"]] = json.loads(body)
        if answer is None:
            request.close_connection = True
            return
        request.reply(answer[2], answer[0], answer[1])


@pytest.fixture
def tickets() -> Iterator[Tickets]:
    made = Tickets()
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[StepsApi]:
    made = StepsApi()
    yield made
    made.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    made = tmp_path / "secret"
    made.write_text(f"{SECRET}\n")
    return made


def settings(secret: Path, **more: Any) -> WebhookSettings:
    return WebhookSettings.model_validate({"secretFile": str(secret), **more})


def advance(server: StepsApi, found: WebhookSettings, now: float = BEGAN) -> StepResult:
    return WebhookStep(client(server), found).advance(run_on(server), now)


# -- what is sent -----------------------------------------------------------------------


def test_a_ticket_is_opened(server: StepsApi, tickets: Tickets, secret: Path) -> None:
    found = settings(secret, url=f"{tickets.url}/new", labels=["topology.kubernetes.io/zone", "x"])
    result = advance(server, found)
    assert result.outcome is StepOutcome.SUCCEEDED
    assert tickets.tickets == {
        OCCURRENCE: {
            "type": "selfheal.node.repair",
            "timestamp": "1970-01-01T00:16:40Z",
            "data": {
                "node": {
                    "name": "n1",
                    "uid": "u-n1",
                    "bootID": "b-1",
                    "labels": {"topology.kubernetes.io/zone": "z"},
                },
                "rule": "1a2b3c4d",
                "condition": "KernelDeadlock",
                "reason": "DockerHung",
                "message": "task docker:20744 blocked",
                "occurrence": OCCURRENCE,
                "step": 0,
            },
        }
    }


def test_what_is_sent_again_by_another_leader_is_the_same_ticket(
    server: StepsApi, tickets: Tickets, secret: Path
) -> None:
    tickets.answers = [None, (503, {}, b""), None]
    found = settings(secret, url=tickets.url)
    result = until_it_ends(server, lambda: WebhookStep(client(server), found))
    assert result.outcome is StepOutcome.SUCCEEDED
    assert list(tickets.tickets) == [OCCURRENCE]
    assert len(tickets.requests) == 4
    assert len({headers["webhook-timestamp"] for _, headers in tickets.requests}) == 4


def test_the_signature_is_that_of_the_specification() -> None:
    # The example of https://github.com/standard-webhooks/standard-webhooks, libraries' tests.
    secrets = secrets_from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    found = signature(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_it_is_signed_by_each_secret(server: StepsApi, tickets: Tickets, secret: Path) -> None:
    other = "whsec_" + base64.b64encode(b"another key that is also long").decode()
    secret.write_text(f"{other}\n{SECRET}\n")
    assert advance(server, settings(secret, url=tickets.url)).outcome is StepOutcome.SUCCEEDED


# -- what an answer means ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, StepOutcome.SUCCEEDED),
        (204, StepOutcome.SUCCEEDED),
        (301, StepOutcome.FAILED),
        (307, StepOutcome.FAILED),
        (400, StepOutcome.FAILED),
        (404, StepOutcome.FAILED),
        (408, StepOutcome.RUNNING),
        (409, StepOutcome.FAILED),
        (410, StepOutcome.FAILED),
        (429, StepOutcome.RUNNING),
        (500, StepOutcome.RUNNING),
        (503, StepOutcome.RUNNING),
    ],
)
def test_an_answer(
    server: StepsApi, tickets: Tickets, secret: Path, status: int, outcome: StepOutcome
) -> None:
    tickets.answers = [(status, {"Location": f"{tickets.url}/elsewhere"}, b"")]
    assert advance(server, settings(secret, url=tickets.url)).outcome is outcome
    assert len(tickets.requests) == 1


def test_the_first_line_of_a_refusal_is_shown(
    server: StepsApi, tickets: Tickets, secret: Path
) -> None:
    tickets.answers = [(403, {}, b"\nno such\x1b[31m queue\nmore " + 5000 * b"x")]
    result = advance(server, settings(secret, url=tickets.url))
    assert result.message == f"{tickets.url} answered 403: no such[31m queue"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("Thu, 01 Jan 1970 00:17:40 GMT", 60.0), ("9" * 400, 3600.0), ("soon", 1.0)],
)
def test_the_server_says_when_it_may_be_asked_again(
    server: StepsApi, secret: Path, header: str, seconds: float
) -> None:
    def limited(_request: Request) -> Reply:
        return Reply(429, {"Retry-After": header}, b"")

    step = WebhookStep(client(server), settings(secret, url="https://t"), limited)
    result = step.advance(run_on(server), BEGAN)
    assert (result.outcome, result.again_after) == (StepOutcome.RUNNING, seconds)


def test_the_pause_grows_with_the_time_that_the_step_takes(server: StepsApi, secret: Path) -> None:
    def silent(_request: Request) -> Reply:
        raise NotSent("ReadTimeout")

    step = WebhookStep(client(server), settings(secret, url="https://t"), silent)
    pauses = [step.advance(run_on(server), BEGAN + age).again_after for age in (0, 1, 2, 4, 300)]
    assert pauses == [1.0, 1.0, 2.0, 4.0, 60.0]


def test_nothing_is_sent_after_the_deadline(
    server: StepsApi, tickets: Tickets, secret: Path
) -> None:
    assert (
        advance(server, settings(secret, url=tickets.url), DEADLINE).outcome is StepOutcome.FAILED
    )
    assert not tickets.requests


def test_nothing_is_sent_in_dry_run(server: StepsApi, tickets: Tickets, secret: Path) -> None:
    step = WebhookStep(client(server), settings(secret, url=tickets.url))
    result = step.advance(run_on(server, dry_run=True), BEGAN)
    assert result.message == f"would send a webhook to {tickets.url}"
    assert not tickets.requests


def test_nothing_is_sent_without_leadership(
    server: StepsApi, tickets: Tickets, secret: Path
) -> None:
    def lost() -> None:
        raise NotLeader

    api = client(server)
    api.fence = lost
    with pytest.raises(NotLeader):
        WebhookStep(api, settings(secret, url=tickets.url)).advance(run_on(server), BEGAN)
    assert not tickets.requests


# -- what is secret ---------------------------------------------------------------------


def test_neither_the_secret_nor_the_url_is_shown(
    server: StepsApi, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # as logs.set_up does
    url = "http://me:pass-word@127.0.0.1:1/hidden-path?token=hidden-query"
    found = settings(secret, url=url)
    shown = advance(server, found).message + repr(found) + caplog.text
    for hidden in ("pass-word", "hidden-path", "hidden-query", SECRET, SECRET[6:]):
        assert hidden not in shown
    assert "http://127.0.0.1:1: ConnectionError" in shown


@pytest.mark.parametrize(
    "text", ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_§§hidden"]
)
def test_an_unusable_secret_is_explained_without_it(
    server: StepsApi, tickets: Tickets, secret: Path, text: str
) -> None:
    with pytest.raises(UnusableSecret) as raised:
        secrets_from(text)
    secret.write_text(text)
    result = advance(server, settings(secret, url=tickets.url))
    assert result.outcome is StepOutcome.RUNNING  # the Secret may be corrected meanwhile
    assert result.message == f"secretFile {secret}: {raised.value}"
    assert "hidden" not in result.message
    assert not tickets.requests


def test_a_file_that_is_missing_may_come(server: StepsApi, tickets: Tickets, secret: Path) -> None:
    place = secret.parent / "url"
    found = settings(secret, urlFile=str(place))
    missing = advance(server, found)
    assert missing.outcome is StepOutcome.RUNNING
    assert str(place) in missing.message
    place.write_text("no url")
    assert "has no URL in it" in advance(server, found).message
    place.write_text(f"{tickets.url}/x\n")
    assert advance(server, found).outcome is StepOutcome.SUCCEEDED


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a:b@tickets.example:8443/x?y#z", "https://tickets.example:8443"),
        ("http://[::1]:80/", "http://[::1]:80"),
        ("ftp://x", ""),
        ("https://", ""),
        ("https://x:99999", ""),
    ],
)
def test_of_a_url_the_origin_is_shown(url: str, shown: str) -> None:
    assert origin(url) == shown


# -- TLS --------------------------------------------------------------------------------


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """What a server needs that has a certificate of its own, and that certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, cert = tmp_path / "key", tmp_path / "cert"
    new = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=localhost"]
    name = ["-addext", "subjectAltName=DNS:localhost", "-days", "1"]
    command = [*new, *name, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert


@pytest.fixture
def tls_tickets(tls: tuple[ssl.SSLContext, Path]) -> Iterator[tuple[Tickets, Path]]:
    context, cert = tls
    made = Tickets(context)
    yield made, cert
    made.close()


def test_a_certificate_that_nobody_trusts_is_refused(
    server: StepsApi, secret: Path, tls_tickets: tuple[Tickets, Path]
) -> None:
    tickets, authority = tls_tickets
    url = tickets.url.replace("127.0.0.1", "localhost")
    refused = advance(server, settings(secret, url=url))
    assert refused.outcome is StepOutcome.RUNNING
    assert "CERTIFICATE_VERIFY_FAILED" in refused.message
    assert not tickets.requests
    trusted = settings(secret, url=url, caFile=str(authority))
    assert advance(server, trusted).outcome is StepOutcome.SUCCEEDED


def test_a_server_that_says_nothing_is_given_up(secret: Path) -> None:
    class Silent(Handler):
        def do_POST(self) -> None:
            self.rfile.read()  # until the client hangs up

    silent = LoopbackServer(Silent)
    try:
        with pytest.raises(NotSent, match=r"longer than 0.05s"):
            send(Request(silent.url, {"Content-Length": "1"}, b"x", "", 0.05))
    finally:
        silent.close()


# -- settings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "exactly one of url, urlFile"),
        ({"url": "https://hidden", "urlFile": "/f"}, "exactly one of url, urlFile"),
        ({"url": "hidden"}, "no URL; allowed is"),
        ({"url": "https://hidden/a b"}, "no URL; allowed is"),
        ({"url": "https://x", "requestTimeout": "1h"}, "from 1s to 30s"),
    ],
)
def test_wrong_settings_are_explained(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        settings(tmp_path / "s", **wrong)
    text = raised.value.errors()[0]["msg"]
    assert said in text
    assert "hidden" not in text


def test_the_body_has_no_labels_but_those_that_are_chosen(server: StepsApi, secret: Path) -> None:
    sent: list[Request] = []

    def record(request: Request) -> Reply:
        sent.append(request)
        return Reply(200, {}, b"")

    step = WebhookStep(client(server), settings(secret, url="https://t"), record)
    step.advance(replace(run_on(server), message="\ud800 ü"), BEGAN)
    assert json.loads(sent[0].body)["data"]["node"]["labels"] == {}


class Dripping(LoopbackServer):
    """Sends these, then the drip again and again, and ends its answer after all if nobody hangs
    up."""

    def __init__(self, begin: bytes, drip: bytes, tls: ssl.SSLContext | None = None) -> None:
        over = self.over = threading.Event()

        class Post(Handler):
            def do_POST(self) -> None:
                self.body()
                self.wfile.write(begin)
                for _ in range(6000):  # a minute: only a hang is longer
                    self.wfile.write(drip)
                    if over.wait(0.01):
                        break
                self.wfile.write(b"\r\nContent-Length: 0\r\n\r\n")

        super().__init__(Post, tls)


@pytest.mark.parametrize(
    ("begin", "drip"),
    [(b"", b"H"), (b"HTTP/1.1 201 Created\r\nX-Long: ", b"y"), (b"HTTP/1.1 500 x\r\nX: ", b"y")],
)
def test_a_server_that_drips_its_answer_keeps_no_thread(begin: bytes, drip: bytes) -> None:
    """Each read ends soon, the whole of them does not."""
    server = Dripping(begin, drip)
    try:
        with pytest.raises(NotSent, match=r"longer than 0.2s"):
            send(Request(server.url, {}, b"{}", "", 0.2))
    finally:
        server.over.set()
        server.close()


def test_an_answer_whose_body_drips_is_one() -> None:
    server = Dripping(b"HTTP/1.1 400 x\r\n\r\n", b"y")
    try:
        assert send(Request(server.url, {}, b"{}", "", PATIENCE)).status == 400
    finally:
        server.over.set()
        server.close()


def test_nor_over_tls(tls: tuple[ssl.SSLContext, Path]) -> None:
    context, authority = tls
    server = Dripping(b"HTTP/1.1 201 Created\r\nX-Long: ", b"y", context)
    request = Request(f"https://localhost:{server.port}", {}, b"{}", str(authority), 0.5)
    try:
        with pytest.raises(NotSent, match=r"longer than 0.5s"):
            send(request)
    finally:
        server.over.set()
        server.close()


@pytest.mark.parametrize("began", [-MAX_SECONDS, MAX_SECONDS])
def test_any_number_that_the_annotation_may_have_is_a_time(
    server: StepsApi, secret: Path, began: int
) -> None:
    state = State(Phase.REPAIRING, "d/r", condition="Fault", steps=1, step_began=began)
    executor = WebhookStep(client(server), settings(secret, url="http://localhost"))
    call = StepCall(
        "n1", "u-n1", state, executor, DEADLINE, 600.0, Kind.REPAIR, 1, 0, dry_run=False
    )
    sent = payload(step_run(run_on(server).node, call), ())
    assert json.loads(sent)["timestamp"].startswith("1970-01-01")
