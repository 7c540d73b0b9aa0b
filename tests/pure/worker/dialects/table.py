"""Each provider with each server that it can meet, and what is sent there in the end.

`docs/providers.md` has this table; `test_dialects.py` holds it to the servers' fakes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfheal_worker.model.provider import ModelConfig
from tests.pure.worker.dialects.azure_openai import Azure, AzureReasoning
from tests.pure.worker.dialects.dialect import KEY, Dialect
from tests.pure.worker.dialects.litellm import LiteLLM
from tests.pure.worker.dialects.llama_cpp_server import LlamaCppServer
from tests.pure.worker.dialects.mistral import Mistral
from tests.pure.worker.dialects.ollama import OldOllama, Ollama, OllamaV1
from tests.pure.worker.dialects.openai_chat import OpenAI, Reasoning
from tests.pure.worker.dialects.openrouter import OpenRouter
from tests.pure.worker.dialects.server import Served
from tests.pure.worker.dialects.tgi import TGI
from tests.pure.worker.dialects.vllm import VLLM, OldVLLM

MAX, NEWER, PREDICT = "max_tokens", "max_completion_tokens", "num_predict"
SCHEMA, OBJECT, VALUE, TOOLS = "json_schema", "json_object", "json_object with value", "tools"
FORMAT, WORD, PROMPT = "format: the schema", "format: json", "the prompt alone"


@dataclass(frozen=True)
class Pair:
    """A provider and a server; limit, seed, temperature, shape: what is sent, "" for nothing."""

    provider: str
    dialect: type[Dialect]
    limit: str
    seed: str = "seed"
    temperature: str = "temperature"
    shape: str = SCHEMA

    @property
    def id(self) -> str:
        """For pytest."""
        return f"{self.provider} with {self.dialect.name}"

    def config(self, served: Served, **more: Any) -> ModelConfig:
        """The settings of a user."""
        provider, _, kind = self.provider.partition(" ")
        base: str | None = served.url
        options: dict[str, Any] = {}
        name = "m"
        if provider == "langchain":
            name = kind.removesuffix("MODEL") + "m"
            if kind.startswith("azure"):
                base = None
                options = {"azure_endpoint": served.root, "azure_deployment": "m"}
                options["api_version"] = served.url.rpartition("=")[2]
        options |= more.pop("options", {})
        return ModelConfig(provider, name, base, KEY, options=options, **more)


_OPENAI = "langchain openai:MODEL"
_AZURE = "langchain azure_openai:MODEL"
_OLLAMA = "langchain ollama:MODEL"
PAIRS = (
    Pair("openai", OpenAI, MAX),
    Pair("openai", Reasoning, NEWER, temperature=""),
    Pair("openai", Azure, MAX),
    Pair("openai", AzureReasoning, NEWER, temperature=""),
    Pair("openai", Mistral, MAX, "random_seed"),
    Pair("openai", OpenRouter, MAX, shape=OBJECT),
    Pair("openai", LiteLLM, MAX, ""),
    Pair("openai", VLLM, MAX),
    Pair("openai", OldVLLM, MAX),
    Pair("openai", LlamaCppServer, MAX),
    Pair("openai", TGI, MAX, shape=VALUE),
    Pair("openai", OllamaV1, MAX),
    Pair("ollama", Ollama, PREDICT, shape=FORMAT),
    Pair("ollama", OldOllama, PREDICT, shape=WORD),
    Pair(_OPENAI, OpenAI, NEWER, "", shape=TOOLS),
    Pair(_OPENAI, Reasoning, NEWER, "", "", TOOLS),
    Pair(_OPENAI, Mistral, MAX, "", shape=TOOLS),
    Pair(_OPENAI, OpenRouter, NEWER, "", shape=TOOLS),
    Pair(_OPENAI, LiteLLM, NEWER, "", shape=TOOLS),
    Pair(_OPENAI, OldVLLM, MAX, "", shape=TOOLS),
    Pair(_OPENAI, LlamaCppServer, NEWER, "", shape=TOOLS),
    Pair(_AZURE, Azure, MAX, "", shape=TOOLS),
    Pair(_AZURE, AzureReasoning, NEWER, "", "", TOOLS),
    Pair(_OLLAMA, Ollama, PREDICT, shape=TOOLS),
    Pair(_OLLAMA, OldOllama, PREDICT, shape=PROMPT),
)


def sent(body: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Limit, seed, temperature and shape of a request, as the table names them."""
    options = body.get("options", {})
    limits = [n for n in (MAX, NEWER) if n in body] + [n for n in (PREDICT,) if n in options]
    seeds = [n for n in ("seed", "random_seed") if n in body or n in options]
    warm = "temperature" if "temperature" in body or "temperature" in options else ""
    return " and ".join(limits), " and ".join(seeds), warm, _shape(body)


def _shape(body: Mapping[str, Any]) -> str:
    shape = body.get("response_format") or {}
    if body.get("tools"):
        return TOOLS
    if "format" in body:
        return WORD if body["format"] == "json" else FORMAT
    if shape:
        return str(shape["type"]) + (" with value" if "value" in shape else "")
    return PROMPT


def table() -> str:
    """The table as the page has it."""
    lines = [
        "| `model.provider` | server | limit | seed | temperature | shape |",
        "|---|" + "---|" * 5,
    ]
    for pair in PAIRS:
        provider, _, name = pair.provider.partition(" ")
        named = f"`{provider}`" + (f" (`{name}`)" if name else "")
        cells = [pair.limit, pair.seed, "yes" if pair.temperature else ""]
        row = [
            named,
            pair.dialect.name,
            *(f"`{c}`" if "_" in c or c == "seed" else c for c in cells),
        ]
        lines.append("| " + " | ".join([*(cell or "no" for cell in row), pair.shape]) + " |")
    return "\n".join(lines)
