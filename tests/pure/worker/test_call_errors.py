"""What is said of a call that failed before or beside the model: redirects, TLS, headers, cuts."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfheal_worker.logs import LOGGER
from selfheal_worker.model import errors
from selfheal_worker.model import provider as model
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import BadOutputError, ModelUnavailableError, RefusedTextError
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer, ModelConfig
from selfheal_worker.task import task_file
from tests.support import loopback
from tests.support.loopback import Handler

pytest.importorskip("langchain_ollama")
pytest.importorskip("langchain_openai")

from selfheal_worker.model.chat_replies import content_of, cut_off
from selfheal_worker.model.providers.chat import explain

SECRET = "hunter2"
GOOD = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": [],
}


@contextmanager
def serving(
    status: int = 200,
    headers: dict[str, str] | None = None,
    body: Any = None,
    *,
    tls: ssl.SSLContext | None = None,
) -> Iterator[str]:
    """A server that answers each POST so; its host and port."""

    class Answering(Handler):
        def do_GET(self) -> None:
            self.reply({"models": [{"name": "m:latest", "digest": "0123456789abcdef"}]})

        def do_POST(self) -> None:
            self.body()
            self.reply(body or {"error": "as set"}, status, headers)

    with loopback.serving(Answering, tls) as server:
        yield server.address


def built(provider: str, url: str, **more: Any) -> model.Provider:
    path = "/v1" if provider == "openai" else ""
    return model.build(ModelConfig(provider, "m", f"{url}{path}", SECRET, deadline=20, **more))


def failure(made: model.Provider) -> Exception:
    with pytest.raises(errors.ModelError) as caught:
        made.analyse("THEIR TEXT", time.monotonic() + 20)
    assert SECRET not in str(caught.value)
    assert "THEIR TEXT" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("provider", ["ollama", "openai"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_reported_with_where_it_goes_and_not_followed(
    provider: str, status: int
) -> None:
    target = f"https://user:{SECRET}@elsewhere.example/v2/chat?key={SECRET}"
    with serving(status, {"Location": target}) as address:
        error = failure(built(provider, f"http://{address}"))
    assert isinstance(error, ModelUnavailableError)
    assert str(error) == (
        f"the model's server redirects to https://elsewhere.example/v2/chat ({status}), which is "
        "not followed; set MODEL_BASE_URL to the URL that the model has there"
    )


@pytest.mark.parametrize("provider", ["ollama", "openai"])
@pytest.mark.parametrize("status", [300, 304, 308])
def test_a_redirect_to_nowhere_is_no_reply(provider: str, status: int) -> None:
    with serving(status) as address:
        assert isinstance(failure(built(provider, f"http://{address}")), errors.ModelError)


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder: Path = tmp_path_factory.mktemp("tls")
    made = ["-keyout", str(folder / "key"), "-out", str(folder / "cert"), "-days", "1"]
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=x", *made],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return context


@pytest.mark.parametrize("provider", ["ollama", "openai"])
@pytest.mark.parametrize("warm_up", [True, False])
def test_a_certificate_that_is_not_trusted_is_reported(
    provider: str, warm_up: bool, self_signed: ssl.SSLContext
) -> None:
    with serving(tls=self_signed) as address:
        made = built(provider, f"https://{address}")
        if warm_up:
            with pytest.raises(ModelUnavailableError) as caught:
                made.warm_up()
            error: Exception = caught.value
        else:
            error = failure(made)
    assert isinstance(error, ModelUnavailableError)
    assert "is not trusted: self" in str(error)
    assert "SSL_CERT_FILE" in str(error)


def _openssl(folder: Path, *arguments: str) -> None:
    try:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """The certificate of an authority of one's own, and a server's that it signed."""
    folder: Path = tmp_path_factory.mktemp("ca")
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    key = ("-nodes", "-newkey", "rsa:2048")
    authority = ("-keyout", "ca.key", "-out", "ca.crt", "-days", "1", "-subj", "/CN=ours")
    _openssl(folder, "req", "-x509", *key, *authority)
    _openssl(folder, "req", *key, "-keyout", "key", "-out", "csr", "-subj", "/CN=server")
    signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "san")
    _openssl(folder, "x509", "-req", "-in", "csr", "-out", "cert", "-days", "1", *signing)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    return folder / "ca.crt", context


@pytest.mark.parametrize(
    ("provider", "name"), [("ollama", "m"), ("openai", "m"), ("langchain", "openai:m")]
)
@pytest.mark.parametrize("trusted", [True, False])
def test_a_private_authority_is_trusted_where_the_variable_names_it(
    provider: str,
    name: str,
    trusted: bool,
    private: tuple[Path, ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the chart's model.ca sets it. A redirect is an answer: the handshake was done."""
    authority, served = private
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with serving(301, {"Location": "https://elsewhere.example/v1"}, tls=served) as address:
        path = "" if provider == "ollama" else "/v1"
        config = ModelConfig(provider, name, f"https://{address}{path}", SECRET, deadline=20)
        error = failure(model.build(config))
    assert ("redirects to" in str(error)) == trusted
    assert ("is not trusted" in str(error)) != trusted


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_a_port_that_speaks_no_tls_is_reported(provider: str) -> None:
    with serving() as address:
        error = failure(built(provider, f"https://{address}"))
    assert isinstance(error, ModelUnavailableError)
    assert "failed in TLS" in str(error)


def test_a_header_that_http_does_not_allow_is_reported() -> None:
    options = {"default_headers": {"X-Team": f"{SECRET}\n"}}
    with serving() as address:
        error = failure(built("openai", f"http://{address}", options=options))
    assert isinstance(error, ModelUnavailableError)
    assert "a header contains characters that HTTP does not allow" in str(error)


def test_what_our_hook_reported_counts_before_the_librarys_own() -> None:
    ours = ModelUnavailableError("redirected")
    outer = RuntimeError("Connection error.")
    outer.__cause__ = ours
    assert explain(outer, "http://h", "m") is ours


def _reply(**more: Any) -> SimpleNamespace:
    return SimpleNamespace(**({"content": "", "tool_calls": []} | more))


def test_arguments_of_a_tool_that_were_cut_are_shown_to_the_model() -> None:
    cut = '{"primary_emotion": "Jo'
    assert content_of(_reply(invalid_tool_calls=[{"args": cut, "name": "t", "id": "1"}])) == cut
    function = SimpleNamespace(arguments=cut)
    message = SimpleNamespace(content=None, tool_calls=[SimpleNamespace(function=function)])
    error = RuntimeError("cut")
    error.completion = SimpleNamespace(  # type: ignore[attr-defined]
        usage=SimpleNamespace(prompt_tokens=3, completion_tokens=4),
        choices=[SimpleNamespace(message=message)],
    )
    found = cut_off(error)
    assert found is not None
    assert found.content == cut


def test_cut_arguments_are_repaired() -> None:
    class Cut:
        name, model, version = "test", "m", "1"
        told = ""

        def warm_up(self) -> None: ...

        def close(self) -> None: ...

        def analyse(self, text: str, deadline: float) -> Answer:
            args = '{"primary_emotion": "Jo'
            return Answer(content_of(_reply(invalid_tool_calls=[{"args": args}])))

        def repair(self, text: str, said: str, problem: str, deadline: float) -> Answer:
            self.told = said
            return Answer(GOOD)

    provider = Cut()
    reply = Chain([Member(provider)], task_file.load()).ask("text", time.monotonic() + 60)
    assert reply.validated.fields() == GOOD
    assert provider.told == '{"primary_emotion": "Jo'


@pytest.mark.parametrize("name", ["finish_reason", "done_reason"])
def test_a_reply_that_was_cut_before_its_first_word_says_so(name: str) -> None:
    with pytest.raises(BadOutputError, match=r"token limit .* MODEL_MAX_OUTPUT_TOKENS"):
        content_of(_reply(response_metadata={name: "length"}))
    with pytest.raises(BadOutputError, match="the reply is empty"):
        content_of(_reply(response_metadata={name: "stop"}))


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_a_servers_words_are_logged_for_the_warm_up_text_alone(
    provider: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = {"error": {"message": f"the adapter is broken, key {SECRET}"}}
    if provider == "ollama":
        body = {"error": f"the adapter is broken, key {SECRET}"}  # type: ignore[dict-item]
    with serving(400, body=body) as address:
        made = built(provider, f"http://{address}")
        with caplog.at_level("WARNING", LOGGER.name):
            failure(made)
            assert "adapter is broken" not in caplog.text
            for _ in range(3):
                with pytest.raises(RefusedTextError):
                    made.warm_up()
    records = [r for r in caplog.records if "warm-up text" in r.getMessage()]
    said = str([vars(r) for r in records])
    assert len(records) == 1
    assert "adapter is broken" in said
    assert SECRET not in said


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_what_is_left_of_a_quota_in_an_answer_is_kept(provider: str) -> None:
    message = {"role": "assistant", "content": json.dumps(GOOD)}
    ollama = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message}
    openai = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    body = ollama | {"done": True, "done_reason": "stop"} | openai
    body |= {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    quota = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"}
    for headers, pause in ((quota, 90.0), ({}, None)):
        with serving(200, headers, body) as address:
            found = built(provider, f"http://{address}").analyse("text", time.monotonic() + 20)
        assert found.pause == pause
