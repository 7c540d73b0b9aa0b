"""Keys and passwords of model servers: sent where they belong, and never printed."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from selfheal_worker.config import SettingsError, load
from selfheal_worker.model import provider as model
from selfheal_worker.model.errors import ModelConfigError, ModelError
from selfheal_worker.model.provider import ModelConfig
from tests.support.loopback import Handler, serving
from tests.support.model_proxy import faulty, refused

pytest.importorskip("langchain_ollama")
pytest.importorskip("langchain_openai")
SAID = {"message": {"role": "assistant", "content": "{}"}, "done": True, "done_reason": "stop"}


@contextmanager
def _guarded(wanted: str) -> Iterator[str]:
    """An Ollama that answers those alone who say that in Authorization; its host and port."""

    class Guarded(Handler):
        def do_GET(self) -> None:
            self._answer({"models": [{"name": "m:latest", "digest": "0123456789abcdef"}]})

        def do_POST(self) -> None:
            self.body()
            self._answer({"model": "m", "created_at": "2026-01-01T00:00:00Z", **SAID})

        def _answer(self, content: Any) -> None:
            self.reply(content, 200 if self.headers["Authorization"] == wanted else 401)

    with serving(Guarded) as server:
        yield server.address


@pytest.mark.parametrize("how", ["key", "url"])
def test_an_ollama_behind_a_proxy_that_wants_a_key_becomes_warm(how: str) -> None:
    basic = base64.b64encode(b"user:SECRET").decode()
    with _guarded("Bearer SECRET" if how == "key" else f"Basic {basic}") as address:
        key, user = ("SECRET", "") if how == "key" else (None, "user:SECRET@")
        asked = model.build(ModelConfig("ollama", "m", f"http://{user}{address}", key))
        asked.warm_up()
        assert asked.version == "0123456789ab"
        asked.close()


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_no_failure_tells_the_password_in_the_url(provider: str) -> None:
    with faulty("http://127.0.0.1:9") as gateway:
        address = gateway.url.removeprefix("http://")
        url = f"http://user:SECRET@{address}/v1"
        asked = model.build(ModelConfig(provider, "m", url))
        gateway.faults.extend([refused(401), refused(404), refused(500)])
        for _ in range(3):
            with pytest.raises(ModelError, match=f"http://{address}/v1") as caught:
                asked.analyse("text", time.monotonic() + 60)
            assert "SECRET" not in str(caught.value)
        with pytest.raises(ModelError) as caught:
            asked.warm_up()
        assert "SECRET" not in str(caught.value)
        asked.close()


@pytest.mark.parametrize(
    ("provider", "more"),
    [
        ("openai", {"api_key": "SECRET", "options": {"default_headers": "Bearer SECRET"}}),
        ("openai", {"base_url": "http://user:SECRET@host:notaport"}),
        ("ollama", {"base_url": "http://user:SECRET@host:notaport"}),
        ("ollama", {"options": {"num_ctx": "SECRET"}}),
    ],
)
def test_settings_that_a_client_refuses_are_not_quoted(provider: str, more: dict[str, Any]) -> None:
    with pytest.raises(ModelConfigError) as caught:
        model.build(ModelConfig(provider, "m", **more))
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL_OPTIONS", '{"default_headers": {"Authorization": "Bearer SECRET"},}'),
        ("MODELS", '{"big": {"provider": "openai", "baseUrl": "http://user:SECRET@gw"},}'),
        ("MODELS", '{"Big": {"provider": "openai", "options": {"api_key": "SECRET"}}}'),
        ("MODELS", '{"big": {"provider": "openai", "baseUrl": "htps://user:SECRET@gw"}}'),
        ("MODEL_BASE_URL", "htps://user:SECRET@gw"),
    ],
)
def test_variables_that_may_hold_a_secret_are_not_quoted(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: ") as caught:
        load({name: value}, broker=False)
    assert "SECRET" not in str(caught.value)
