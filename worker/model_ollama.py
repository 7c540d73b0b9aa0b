"""The provider `ollama`: a model on an Ollama server, through langchain-ollama.

The answer is constrained to the schema by the server (`format`). LangChain's own structured output
is not used: it takes more than twice the CPU a call, and hides errors that decide here.
"""

from __future__ import annotations

import copy
import json
import time
import urllib.error
import urllib.request
from typing import Any

import httpx
import ollama
from langchain_ollama import ChatOllama

from worker.model import (
    Answer,
    BadOutputError,
    ModelConfig,
    ModelConfigError,
    ModelUnavailableError,
    TransientError,
    Usage,
)
from worker.prompt import SYSTEM, user_part
from worker.verdict import MAX_PHRASE_CHARACTERS, SCHEMA

DEFAULT_BASE_URL = "http://127.0.0.1:11434"
WARM_UP_TEXT = "Thank you, this works very well."
MAX_OUTPUT_TOKENS = 512

# The server makes a grammar of the schema, which knows lists of values and lengths, but no range of
# fractions: a small model says 1.5 then, each time that it is asked.
FORMAT: dict[str, Any] = copy.deepcopy(SCHEMA)
FORMAT["properties"]["confidence_score"] = {"enum": [step / 20 for step in range(21)]}
FORMAT["properties"]["key_phrases"]["items"]["maxLength"] = MAX_PHRASE_CHARACTERS


class Ollama:
    """A model on an Ollama server."""

    name = "ollama"

    def __init__(self, config: ModelConfig, model: str) -> None:
        self.model = model
        self.version = ""
        self._base_url = (config.base_url or DEFAULT_BASE_URL).rstrip("/")
        self._deadline = config.deadline
        chat = ChatOllama(
            model=model,
            base_url=self._base_url,
            temperature=config.temperature,
            seed=0,
            num_predict=MAX_OUTPUT_TOKENS,
            reasoning=False,
            client_kwargs={
                "timeout": httpx.Timeout(config.deadline, connect=min(5.0, config.deadline)),
                # As many as there are threads, and one for the probe: httpx's default of 20
                # kept connections breaks under more threads than that.
                "limits": httpx.Limits(
                    max_connections=config.concurrency + 2,
                    max_keepalive_connections=config.concurrency + 2,
                ),
            },
        )
        # In one piece: a time-out between the pieces of a stream would not bound the whole.
        self._chat = chat.bind(format=FORMAT, stream=False)

    def warm_up(self) -> None:
        """Find the model's digest, and have the server load the model."""
        self.version = self._digest()
        self.analyse(WARM_UP_TEXT, time.monotonic() + self._deadline)

    def analyse(self, text: str, deadline: float) -> Answer:
        """Ask the server; the client's time-out is the whole deadline, since it begins now."""
        if time.monotonic() >= deadline:
            raise TransientError("no time is left for the call")
        try:
            reply = self._chat.invoke([("system", SYSTEM), ("human", user_part(text))])
        except (ConnectionError, httpx.ConnectError, httpx.ConnectTimeout):
            raise ModelUnavailableError(f"no answer from {self._base_url}") from None
        except httpx.TimeoutException:
            raise TransientError("the model did not answer before the deadline") from None
        except ollama.ResponseError as error:
            raise self._refused(error) from None
        except httpx.HTTPError as error:
            raise TransientError(f"the call broke: {type(error).__name__}") from None
        except (ValueError, TypeError, KeyError) as error:
            # Half an HTTP body, or JSON that is no chat reply.
            raise BadOutputError(f"no chat reply: {type(error).__name__}") from None
        if not isinstance(reply.content, str) or not reply.content.strip():
            raise BadOutputError("the reply is empty")
        return Answer(reply.content, _usage(reply.usage_metadata))

    def close(self) -> None:
        """Nothing to do: the connections end with the process."""

    def _refused(self, error: ollama.ResponseError) -> Exception:
        if error.status_code == 404:
            return ModelUnavailableError(
                f"model '{self.model}' is not on {self._base_url}; pull it there first"
            )
        return TransientError(f"{self._base_url} answered {error.status_code}")

    def _digest(self) -> str:
        """The first characters of the model's digest, as `ollama list` shows them."""
        try:
            with urllib.request.urlopen(f"{self._base_url}/api/tags", timeout=5) as reply:
                models = json.load(reply)["models"]
            digests = {one["name"]: str(one["digest"])[:12] for one in models}
        except urllib.error.HTTPError as error:
            raise TransientError(f"{self._base_url} answered {error.code}") from None
        except OSError:
            raise ModelUnavailableError(f"no answer from {self._base_url}") from None
        except (ValueError, KeyError, TypeError):
            raise ModelUnavailableError(f"{self._base_url} does not speak as Ollama does") from None
        for name in (self.model, f"{self.model}:latest"):
            if name in digests:
                return digests[name]
        raise ModelUnavailableError(
            f"model '{self.model}' is not on {self._base_url}; pull it there first"
        )


def _usage(metadata: Any) -> Usage | None:
    if not metadata:
        return None
    return Usage(int(metadata["input_tokens"]), int(metadata["output_tokens"]))


def build(config: ModelConfig) -> Ollama:
    """The ollama provider. Raises `ModelConfigError` where MODEL_NAME is missing."""
    if not config.name:
        raise ModelConfigError(
            "MODEL_NAME is not set; MODEL_PROVIDER=ollama needs the name of a model on the server, "
            "such as smollm2:135m"
        )
    return Ollama(config, config.name)
