"""The provider `llamacpp`: a GGUF file in this process, through langchain-community."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import llama_cpp  # noqa: F401 LangChain imports it late; here its absence is reported as a package's

from selfheal_worker.model import schema_subsets
from selfheal_worker.model.errors import (
    ModelConfigError,
    ModelUnavailableError,
    TextTooLongError,
    TransientError,
)
from selfheal_worker.model.provider import ModelConfig
from selfheal_worker.model.providers.chat import Chat, Http

with warnings.catch_warnings():
    # The package says at import that it is no longer maintained; its ChatLlamaCpp has no successor.
    warnings.filterwarnings(
        "ignore", message=r".*langchain-community. is being sunset", category=DeprecationWarning
    )
    from langchain_community.chat_models.llamacpp import ChatLlamaCpp

_CONTEXT_TOKENS = 4096
# So many tokens of a prompt are read between two reads of the clock. LangChain's own 8 reads a
# prompt at a fraction of the speed, llama.cpp's 512 takes a large model a minute.
_BATCH_TOKENS = 64


class LlamaCpp:
    """One model in memory, one call at a time; the clock is read before each token."""

    def __init__(self, config: ModelConfig, file: Path) -> None:
        self._config = config
        self._file = file
        self._turn = config.runtime.lock()
        self._http = Http(config)
        self._chat: Any = None

    def load(self) -> None:
        """Read the file into memory. Raises `ModelUnavailableError`."""
        with self._turn:
            if self._chat is not None:
                return
            config = self._config
            settings: dict[str, Any] = {
                "n_ctx": config.context_tokens or _CONTEXT_TOKENS,
                "n_batch": _BATCH_TOKENS,
                "verbose": False,
                "streaming": False,  # a stream says no number of tokens
            }
            try:
                chat = ChatLlamaCpp(
                    model_path=str(self._file),
                    temperature=config.temperature,
                    seed=config.seed,
                    max_tokens=config.max_output_tokens,
                    **(settings | dict(config.options)),
                )
            except (ValueError, ImportError) as error:
                why = " ".join(str(error).split())[:300]
                raise ModelUnavailableError(f"{self._file} cannot be loaded: {why}") from None
            self._watch(chat.client)
            response_format: dict[str, Any] = {}
            if config.structured in ("auto", "schema"):
                response_format = {
                    "type": "json_object",
                    "schema": schema_subsets.repeatable(config.task.grammar()),
                }
            elif config.structured == "json":
                response_format = {"type": "json_object"}
            self._chat = chat.bind(response_format=response_format) if response_format else chat

    def invoke(self, messages: Any, /) -> Any:
        """The whole message."""
        if not self._turn.acquire(timeout=max(0.0, self._http.call.left())):
            raise TransientError("the model was busy until the deadline")
        try:
            self.check_time()
            reply = self._chat.invoke(messages)
        except ValueError as error:
            if "exceed context window" in str(error):
                raise TextTooLongError(
                    "the text does not fit into the model's context; "
                    f"{self._config.setting('options')}.n_ctx makes it larger"
                ) from None
            raise
        finally:
            self._turn.release()
        counted = reply.response_metadata.get("token_usage") or {}
        if counted:
            reply.usage_metadata = {
                "input_tokens": counted.get("prompt_tokens"),
                "output_tokens": counted.get("completion_tokens"),
            }
        return reply

    def _watch(self, client: Any) -> None:
        """Have the clock read wherever the model reads: a long prompt takes its time too."""
        read = client.eval

        def watched(tokens: Sequence[int]) -> None:
            for at in range(0, len(tokens), client.n_batch):
                self.check_time()
                read(tokens[at : at + client.n_batch])

        client.eval = watched

    def check_time(self) -> None:
        """Raise `TransientError` where the call's time is over; called before each step."""
        if self._http.closed:
            raise TransientError("the worker is stopping")
        if self._http.call.left() <= 0:
            raise TransientError("the model did not answer before the deadline")

    @property
    def http(self) -> Http:
        """Carries each thread's deadline; no connection is ever made."""
        return self._http


class LlamaCppChat(Chat):
    """The model as a provider."""

    calls_at_once = 1

    def __init__(self, config: ModelConfig, file: Path) -> None:
        self._llama = LlamaCpp(config, file)
        self._model_file = file
        context = config.options.get("n_ctx", config.context_tokens or _CONTEXT_TOKENS)
        super().__init__("llamacpp", file.name, config, self._llama, str(file), self._llama.http)
        self.context_tokens = context if isinstance(context, int) else None

    def warm_up(self) -> None:
        """Load the file, and find its version: the first characters of its SHA-256."""
        self._llama.load()
        if not self.version:
            with self._model_file.open("rb") as stream:
                digest = sha256()
                while piece := stream.read(1 << 20):
                    digest.update(piece)
            self.version = digest.hexdigest()[:12]
        super().warm_up()


def build(config: ModelConfig) -> LlamaCppChat:
    """The llamacpp provider. Raises `ModelConfigError` where the file is not there."""
    file = Path(config.name or "")
    if not config.name or not file.is_file():
        raise ModelConfigError(
            f"{config.setting('name')}={config.name or ''}: no such file; "
            f"{config.setting('provider')}=llamacpp needs the path of a GGUF file"
        )
    if config.structured == "tools":
        raise ModelConfigError(
            f"{config.setting('structured')}=tools: llamacpp knows auto, schema, json and none"
        )
    return LlamaCppChat(config, file)
