"""Model providers: what one is, how it fails, and how one is found by name.

A provider is built from a `ModelConfig` by a factory. Our own and those of any installed package
are entry points of the group `selfheal.providers` (``name = "package.module:factory"``) and loaded
in the same way. A factory's module is imported only when its provider is configured, so that unused
providers cost nothing. `docs/providers.md` shows how to add one.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from pydantic import ValidationError

from selfheal_worker import api_keys
from selfheal_worker.model.errors import ModelConfigError, RefusedTextError
from selfheal_worker.model.token_counts import token_count
from selfheal_worker.runtime import REAL, Runtime
from selfheal_worker.task.task import Task

GROUP = "selfheal.providers"

# As in pyproject.toml, for a plain copy of the package (as in the container image), which has no
# metadata; and a package cannot replace them.
BUILT_IN_PROVIDERS: Mapping[str, str] = {
    "builtin": "selfheal_worker.model.providers.builtin:build",
    "ollama": "selfheal_worker.model.providers.ollama:build",
    "openai": "selfheal_worker.model.providers.openai:build",
    "langchain": "selfheal_worker.model.providers.langchain:build",
    "llamacpp": "selfheal_worker.model.providers.llamacpp:build",
}

#: The packages that a provider needs, by their names on an index.
PACKAGES: Mapping[str, str] = {
    "ollama": "langchain-core langchain-ollama",
    "openai": "langchain-openai",
    "langchain": "langchain",
    "llamacpp": "langchain-community llama-cpp-python",
}

#: The image's requirements for the providers that it has only when it is built with them.
REQUIREMENTS: Mapping[str, str] = {"openai": "worker-providers", "langchain": "worker-providers"}

_USERINFO = re.compile(r"(?<=//)[^/?#\s]*@")


def _built_in_task() -> Task:
    from selfheal_worker.task import task_file

    return task_file.load()


#: Makes an `httpcore.NetworkBackend` from `call_network.Bounds` and options of its sockets; not
#: typed so here, since most providers need no HTTP client.
Network = Callable[[Any, Iterable[Any]], Any]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The user's settings of the model, and its task.

    name and base_url are None when they were not set: the provider then takes its own default or
    raises `ModelConfigError`. deadline is in seconds for one call, concurrency the number of
    threads that call `analyse` at the same time. context_tokens (None: not set) and max_text_bytes
    give the size of the context. structured is how the output is constrained: auto,
    schema, tools, json or none. options are specific to the provider; key is the model's name
    in the list of models, "" for the one that MODEL_PROVIDER and so on describe. network makes the
    connections of HTTP clients, None the machine's own; runtime has the time, threads and locks.
    """

    provider: str
    name: str | None = None
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    temperature: float = 0.0
    deadline: float = 60.0
    concurrency: int = 8
    seed: int = 0
    max_output_tokens: int = 512
    context_tokens: int | None = None
    max_text_bytes: int = 65536
    structured: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)
    task: Task = field(default_factory=_built_in_task)
    key: str = ""
    network: Network | None = field(default=None, repr=False, compare=False)
    runtime: Runtime = field(default=REAL, repr=False, compare=False)

    def setting(self, field_name: str) -> str:
        """Where the user wrote a field: MODEL_BASE_URL, or models.triage.baseUrl."""
        if not self.key:
            return f"MODEL_{field_name.upper()}"
        first, *rest = field_name.split("_")
        return f"models.{self.key}.{first}" + "".join(word.capitalize() for word in rest)

    def key_variable(self) -> str:
        """The variable that holds the API key: MODEL_API_KEY, or MODEL_API_KEY_TRIAGE."""
        return api_keys.variable(self.key)


@dataclass(frozen=True, slots=True)
class Origin:
    """The model of an answer, for results and metrics."""

    provider: str
    name: str
    version: str
    # Of the server's configuration, where it reports one; in results alone, it changes often.
    fingerprint: str = ""

    def described(self) -> dict[str, str]:
        """As results carry it."""
        described = {"provider": self.provider, "name": self.name, "version": self.version}
        return described | ({"system_fingerprint": self.fingerprint} if self.fingerprint else {})


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that calls took, as the provider counted them; output_tokens: None is unknown."""

    input_tokens: int
    output_tokens: int | None = None

    def __add__(self, other: Usage) -> Usage:
        """What both took; unknown where one is."""
        known = self.output_tokens is not None and other.output_tokens is not None
        written = (self.output_tokens or 0) + (other.output_tokens or 0)
        return Usage(self.input_tokens + other.input_tokens, written if known else None)


def counted(input_tokens: object, output_tokens: object) -> Usage | None:
    """What a server reports of its tokens. None where it counted none of the input: some servers
    say 0, or what is no number, of what they do not know."""
    read = token_count(input_tokens)
    return Usage(read, token_count(output_tokens)) if read else None


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer to one text, not yet validated: `task.answer` does that.

    content is the model's JSON (as text, or already parsed) in the shape of the task's schema.
    pause: seconds that the server requests as a pause from now on, if any. version and
    fingerprint: of the model that gave this answer; None: the provider's version applies.
    """

    content: str | Mapping[str, Any]
    usage: Usage | None = None
    pause: float | None = None
    version: str | None = None
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.usage is not None:  # a plug-in may have it from its server as it is
            known = counted(self.usage.input_tokens, self.usage.output_tokens)
            object.__setattr__(self, "usage", known)


class UnconfirmedRefusalError(RefusedTextError):
    """The server refused a text, and nothing shows yet that it takes others: tried once more."""


class Provider(Protocol):
    """One model. `analyse` is called by several threads at once; the rest by one."""

    @property
    def name(self) -> str:
        """The provider's name, as in MODEL_PROVIDER."""

    @property
    def model(self) -> str:
        """The model's name, for results and metrics."""

    @property
    def version(self) -> str:
        """The model's version (digest, date, …), or "" where there is none. Read after warm_up, and
        with each answer that does not say its own."""

    def warm_up(self) -> None:
        """Make the first `analyse` as fast as the others. Raises `ModelError`; may be repeated."""

    def analyse(self, text: str, deadline: float) -> Answer:
        """Say what the text shows. Raises `ModelError` and nothing else for what may happen.

        text is a non-blank str without lone surrogates; deadline is a `time.monotonic()` value by
        which this has returned or raised `TransientError`.
        """

    def close(self) -> None:
        """Let go of connections. Calls that are under way may fail with `TransientError`."""


@runtime_checkable
class RepairRequest(Protocol):
    """A provider that can repair an answer; optional."""

    def repair(self, text: str, reply: str, problem: str, deadline: float) -> Answer:
        """Call the model once more: it answered `reply`, which is invalid because of `problem`."""


Factory = Callable[[ModelConfig], Provider]


def build(config: ModelConfig) -> Provider:
    """Build the provider that config names. Raises `ModelConfigError`."""
    _check_url(config)
    where = f"{config.setting('provider')}={config.provider}"
    entry = _entry_point(config.provider)
    if entry is None:
        raise ModelConfigError(f"{where}: no such provider; installed: {', '.join(names())}")
    try:
        factory: Factory = getattr(importlib.import_module(entry.module), entry.attr)
    except ModuleNotFoundError as error:
        raise ModelConfigError(f"{where} {missing(error, config.provider)}") from error
    except (ImportError, AttributeError) as error:
        raise ModelConfigError(f"{where}: {entry.value} cannot be loaded: {error}") from error
    except Exception as error:  # noqa: BLE001 ollama's own package makes a client when it is imported
        raise _unfit(error, config) from None
    try:
        return factory(config)
    except ModelConfigError:
        raise
    except Exception as error:  # noqa: BLE001 whatever a client library raises
        raise _unfit(error, config) from None


def _check_url(config: ModelConfig) -> None:
    """Some clients take a default where they cannot read the port."""
    try:
        _ = urlsplit(config.base_url or "").port
    except ValueError:
        raise ModelConfigError(
            f"{config.setting('base_url')}: host and port cannot be read; "
            "it must look like http://host:port/path"
        ) from None


def _unfit(error: Exception, config: ModelConfig) -> ModelConfigError:
    """What to raise, without a traceback: a client library may quote its settings, the key too."""
    return ModelConfigError(
        f"{config.setting('provider')}={config.provider} cannot be created from its settings "
        f"({config.setting('options')}, {config.setting('base_url')}) or HTTPS_PROXY and the like: "
        f"{type(error).__name__}: {brief(error, config)}"
    )


def brief(error: Exception, config: ModelConfig) -> str:
    """What a library says of the settings, in one line, without the secrets that it may quote."""
    message = str(error)
    if isinstance(error, ValidationError):
        parts = ((".".join(map(str, one["loc"])), one["msg"]) for one in error.errors())
        message = "; ".join(f"{name}: {what}" if name else what for name, what in parts)
    message = without_userinfo(" ".join(message.split()))
    return (message.replace(config.api_key, "***") if config.api_key else message)[:300]


def without_userinfo(text: str) -> str:
    """A URL, or what quotes one, without the user and the password in it."""
    return _USERINFO.sub("", text)


def missing(error: ModuleNotFoundError, provider: str) -> str:
    """What to say of a package that is not there: its name, and how it comes."""
    message = f"needs the Python module {error.name!r}, which is not installed"
    if provider in PACKAGES:
        message += f"; pip install {PACKAGES[provider]} provides it"
    if provider in REQUIREMENTS:
        message += f", in an image the build argument REQUIREMENTS={REQUIREMENTS[provider]}"
    return message


def names() -> list[str]:
    """The names of all available providers."""
    return sorted({*BUILT_IN_PROVIDERS, *entry_points(group=GROUP).names})


def _entry_point(name: str) -> EntryPoint | None:
    own = BUILT_IN_PROVIDERS.get(name)
    if own is not None:
        return EntryPoint(name, own, GROUP)
    # The last one, if several packages have one of that name.
    return next(reversed([*entry_points(group=GROUP, name=name)]), None)
