"""Which model gets which API key: no server is shown the key of another."""

from __future__ import annotations

import json

import pytest

from selfheal_worker.config import load
from selfheal_worker.model import registry
from selfheal_worker.task import task_file

TASK = task_file.load()
A, B = "https://a.example/v1", "https://b.example/v1"


def _key(common: dict[str, str], **named: str) -> str | None:
    """The key of the model `big-one`, where MODEL_API_KEY is set beside other variables."""
    own = {"MODEL_API_KEY_BIG_ONE": named.pop("own")} if "own" in named else {}
    variables = common | own | {"MODEL_API_KEY": "common", "MODELS": json.dumps({"big-one": named})}
    return registry.config(load(variables, broker=False), TASK, "big-one").api_key


@pytest.mark.parametrize(
    ("provider", "url", "named_provider", "named_url", "key"),
    [
        ("openai", A, "openai", A, "common"),
        ("openai", A, "openai", f"{A}/", "common"),
        ("openai", "", "openai", None, "common"),
        ("openai", A, "openai", B, None),
        ("openai", A, "openai", None, None),
        ("openai", "", "openai", B, None),
        ("openai", A, "ollama", A, None),
        ("builtin", "", "openai", None, None),
        ("builtin", "", "ollama", "http://ollama:11434", None),
    ],
)
def test_a_named_model_inherits_the_key_of_its_own_server_alone(
    provider: str, url: str, named_provider: str, named_url: str | None, key: str | None
) -> None:
    common = {"MODEL_PROVIDER": provider, "MODEL_NAME": "m", "MODEL_BASE_URL": url}
    more = {} if named_url is None else {"baseUrl": named_url}
    assert _key(common, provider=named_provider, name="n", **more) == key
    assert _key(common, provider=named_provider, name="n", own="its own", **more) == "its own"


def test_langchains_models_of_two_makers_share_no_key() -> None:
    common = {"MODEL_PROVIDER": "langchain", "MODEL_NAME": "anthropic:small"}
    assert _key(common, provider="langchain", name="anthropic:large") == "common"
    assert _key(common, provider="langchain", name="mistralai:large") is None


def test_the_model_of_the_variables_has_their_key() -> None:
    settings = load({"MODEL_PROVIDER": "openai", "MODEL_API_KEY": "common"}, broker=False)
    assert registry.config(settings, TASK, "").api_key == "common"
