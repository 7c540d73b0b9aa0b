"""What the environment says. Every variable has the name of its field in capitals."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from selfheal_worker import api_keys
from selfheal_worker.plain_data import PlainDataError, is_text, read_json

# RabbitMQ keeps no time to live above 2**32 - 1 milliseconds.
_LONGEST_TTL = (2**32 - 1) // 1000
# What servers and brokers take for a whole number: 63 bits.
_LARGEST = 2**63 - 1
#: Seconds that the broker waits for an ack (consumer_timeout) by default, and the
#: part of them that a message may wait for its result to be taken.
CONSUMER_TIMEOUT = 1800
_PARKED = 600
# Bytes of a name that RabbitMQ takes. To a work queue's name more is appended, at most
# `.helm-test.retry.4294967s`.
_LONGEST_NAME = 255
_LONGEST_WORK_QUEUE = 230
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PROVIDER = r"^[a-z0-9][a-z0-9_.-]*$"
KEY_PREFIX = f"{api_keys.COMMON}_"
#: Fields that are secrets, or may contain one: a header of a model's options, a password in a URL.
SECRET = frozenset(
    {
        "amqp_uri",
        "amqp_password",
        "model_api_key",
        "model_base_url",
        "model_options",
        "models",
    }
)
#: The model that may be named without being defined.
BUILT_IN = "builtin"
# Providers of many models.
_NAMED_MODELS = frozenset({"ollama", "openai", "langchain", "llamacpp"})
URI_PATTERN = re.compile(r"^amqps?://[^/\s]")


class SettingsError(Exception):
    """The environment is wrong; the message has one line for each variable."""


Structured = Literal["auto", "schema", "tools", "json", "none"]


class NamedModel(BaseModel):
    """One of the named models, written as in the chart's values.

    None is not set. temperature, seed, max_output_tokens, structured, deadline_seconds and
    context_tokens are then as in the MODEL_ variables; a name, URL or limit is not.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, protected_namespaces=()
    )

    provider: str = Field(pattern=_PROVIDER)
    name: str | None = None
    version: str = Field("", max_length=128)
    base_url: str | None = Field(None, pattern=r"^https?://[^\s]+$")
    temperature: float | None = Field(None, ge=0, le=2)
    seed: int | None = Field(None, ge=0, le=_LARGEST)
    max_output_tokens: int | None = Field(None, ge=16, le=32768)
    structured: Structured | None = None
    deadline_seconds: float | None = Field(None, gt=0, le=3600)
    context_tokens: int | None = Field(None, ge=512, le=10_000_000)
    concurrency: int | None = Field(None, ge=1, le=1024)
    requests_per_minute: float | None = Field(None, gt=0, le=_LARGEST)
    options: dict[str, Any] = Field(default_factory=dict)


class Settings(BaseSettings):
    """All settings of the worker. Seconds and bytes, unless a description says otherwise."""

    model_config = SettingsConfigDict(
        frozen=True, hide_input_in_errors=True, protected_namespaces=()
    )

    amqp_uri: SecretStr | None = Field(
        None, description="amqp(s)://user:password@host:port/vhost; several joined by commas"
    )
    amqp_uri_file: Path | None = Field(
        None, description="file with the URI, read again at each reconnect"
    )
    amqp_host: str | None = Field(None, description="host or host:port; several joined by commas")
    amqp_port: int = Field(5672, ge=1, le=65535)
    amqp_vhost: str = "/"
    amqp_username: str | None = None
    amqp_username_file: Path | None = Field(None, description="read again at each reconnect")
    amqp_password: SecretStr | None = None
    amqp_password_file: Path | None = Field(None, description="read again at each reconnect")
    amqp_heartbeat: int = Field(15, ge=2, le=600)
    amqp_ca_file: Path | None = Field(None, description="CA bundle of the broker: turns TLS on")
    amqp_cert_file: Path | None = Field(None, description="client certificate (PEM)")
    amqp_key_file: Path | None = Field(None, description="key of the client certificate (PEM)")

    queue_name: str = Field("feedback", max_length=200)
    dlq_name: str = Field("", max_length=250, description="<queue>.dead-letters")
    results_queue: str = Field("", max_length=250, description="<queue>.results")
    retry_delays: Annotated[tuple[int, ...], NoDecode] = Field(
        (1, 5, 30, 120), description="seconds, increasing, separated by commas"
    )
    delivery_limit: int = Field(100, ge=1, le=100_000)
    results_max_length: int = Field(0, ge=0, le=_LARGEST, description="messages; 0 is no limit")
    results_max_age: int = Field(0, ge=0, le=_LONGEST_TTL, description="0 is no limit")
    dlq_max_length: int = Field(
        0, ge=0, le=_LARGEST, description="messages, the oldest are dropped; 0 is no limit"
    )
    dlq_max_age: int = Field(0, ge=0, le=_LONGEST_TTL, description="0 is no limit")

    concurrency: int = Field(8, ge=1, le=1024)
    max_text_bytes: int = Field(65536, ge=1, le=16 * 1024 * 1024)
    max_body_bytes: int = Field(
        0,
        ge=0,
        le=128 * 1024 * 1024,
        description="checked before decoding; 0: eight times MAX_TEXT_BYTES, at least 524288",
    )
    max_attempts: int = Field(5, ge=1, le=1000)
    shutdown_grace: float = Field(30.0, ge=0, le=3600)

    model_provider: str = Field("builtin", pattern=_PROVIDER)
    model_name: str | None = None
    model_base_url: str | None = Field(None, pattern=r"^https?://[^\s]+$")
    model_api_key: SecretStr | None = None
    model_temperature: float = Field(0.0, ge=0, le=2)
    model_deadline: float = Field(60.0, gt=0, le=3600, description="seconds for one model call")
    model_seed: int = Field(0, ge=0, le=_LARGEST)
    model_max_output_tokens: int = Field(512, ge=16, le=32768)
    model_context_tokens: int | None = Field(
        None,
        ge=512,
        le=10_000_000,
        description="tokens that the model reads at once: Ollama is asked for at most so many "
        "(8192), and a text that does not fit is not sent",
    )
    model_text_too_long: Literal["refuse", "shorten"] = "refuse"
    model_structured: Structured = "auto"
    model_concurrency: int | None = Field(None, ge=1, le=1024, description="calls at once")
    model_requests_per_minute: float | None = Field(None, gt=0, le=_LARGEST)
    model_options: Annotated[dict[str, Any], NoDecode] = Field(
        default_factory=dict, description="JSON object, options specific to the provider"
    )
    model_clamp: bool = Field(False, description="set a number out of range to the nearer bound")
    models: Annotated[dict[str, NamedModel], NoDecode] = Field(
        default_factory=dict, description="JSON object of named models"
    )
    model_active: str = Field("", description="one of the named models; empty: MODEL_PROVIDER")
    model_fallback: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="named models (or builtin), joined by commas"
    )
    model_api_keys: dict[str, SecretStr] = Field(default_factory=dict)
    task_file: Path | None = Field(None, description="YAML; empty: the built-in task")

    http_host: str = Field("", description="empty: all addresses, of IPv4 and IPv6")
    http_port: int = Field(8080, ge=0, le=65535, description="0 takes any free port")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    fault_model_delay: float = Field(
        0.0, ge=0, le=3600, description="seconds added to each model call (demos and tests)"
    )
    fault_model_hang_file: Path | None = Field(
        None, description="while this file exists, model calls hang (demos and tests)"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` has read: else pydantic would read the environment a second time."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @field_validator("queue_name", "dlq_name", "results_queue", "amqp_vhost")
    @classmethod
    def _broker_name(cls, value: str, field: ValidationInfo) -> str:
        most = _LONGEST_WORK_QUEUE if field.field_name == "queue_name" else _LONGEST_NAME
        size = len(value.encode())
        if size > most:
            raise ValueError(f"has {size} bytes, at most {most} are allowed")
        if _CONTROL.search(value):
            raise ValueError("must have no control characters")
        if field.field_name != "amqp_vhost" and value.startswith("amq."):
            raise ValueError("must not begin with 'amq.', which RabbitMQ reserves")
        return value

    @field_validator("models", "model_options", mode="before")
    @classmethod
    def _read_json(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            found = read_json(value)
        except PlainDataError as error:
            raise ValueError(f"must be a JSON object; it {error}") from None
        if not isinstance(found, dict):
            raise ValueError("must be a JSON object")
        return found

    @field_validator("models")
    @classmethod
    def _good_names(cls, value: dict[str, NamedModel]) -> dict[str, NamedModel]:
        for name in value:
            if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
                raise ValueError(f"{name!r} must be lower-case letters, digits and dashes")
        return value

    @field_validator("model_fallback", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("retry_delays", mode="before")
    @classmethod
    def _split_delays(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(re.fullmatch(r"[0-9]{1,7}", part) for part in parts):
            raise ValueError("must be whole seconds joined by commas, such as 1,5,30,120")
        return tuple(int(part) for part in parts)

    @field_validator("retry_delays")
    @classmethod
    def _growing(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or value[0] < 1 or list(value) != sorted(set(value)):
            raise ValueError("must be at least 1 and growing, such as 1,5,30,120")
        if value[-1] > _LONGEST_TTL:
            raise ValueError(f"must be at most {_LONGEST_TTL} each (RabbitMQ's longest TTL)")
        return value

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("amqp_uri")
    @classmethod
    def _uri(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            for uri in value.get_secret_value().split(","):
                if not URI_PATTERN.match(uri.strip()):
                    raise ValueError("must have the form amqp://user:password@host:5672/vhost")
        return value

    @model_validator(mode="after")
    def _names(self) -> Settings:
        fill = {
            "dlq_name": self.dlq_name or f"{self.queue_name}.dead-letters",
            "results_queue": self.results_queue or f"{self.queue_name}.results",
        }
        for name, value in fill.items():
            object.__setattr__(self, name, value)
        if not self.max_body_bytes:
            # JSON may write each byte of a text as \u00xx, six bytes; and there is metadata.
            object.__setattr__(self, "max_body_bytes", max(8 * self.max_text_bytes, 512 * 1024))
        if problems := list(self._conflicts()):
            raise ValueError("\n".join(problems))
        return self

    def _conflicts(self) -> Iterator[str]:
        """Settings that cannot be meant together."""
        if self.max_body_bytes < self.max_text_bytes:
            yield "MAX_BODY_BYTES must not be below MAX_TEXT_BYTES (0: chosen from it)"
        if (self.amqp_cert_file is None) != (self.amqp_key_file is None):
            yield "AMQP_CERT_FILE and AMQP_KEY_FILE must be set together"
        if len({self.queue_name, self.dlq_name, self.results_queue}) < 3:
            yield "QUEUE_NAME, DLQ_NAME and RESULTS_QUEUE must differ"
        own = {self.rights_queue(), *map(self.delay_queue, self.retry_delays)}
        for variable, name in (("DLQ_NAME", self.dlq_name), ("RESULTS_QUEUE", self.results_queue)):
            if name in own:
                yield (
                    f"{variable} is {name}, a name that the worker derives from QUEUE_NAME for "
                    "itself; use another one"
                )
        yield from self._conflicts_of_models()

    def _conflicts_of_models(self) -> Iterator[str]:
        for name, model in self.models.items():
            if model.provider in _NAMED_MODELS and not model.name:
                yield (
                    f"MODELS: {name}.name is not set; the provider {model.provider} needs the name "
                    "of a model"
                )
        known = {*self.models, BUILT_IN}
        wanted = [
            ("MODEL_ACTIVE", self.model_active),
            *(("MODEL_FALLBACK", name) for name in self.model_fallback),
        ]
        for variable, name in wanted:
            if name and name not in known:
                there = ", ".join(sorted(known))
                yield f"{variable}: no model is named {name!r}; there are {there}"
        chain = [self.model_active, *self.model_fallback]
        if len(set(chain)) < len(chain):
            yield "MODEL_ACTIVE and MODEL_FALLBACK must not name a model twice"

    def warnings(self) -> list[str]:
        """What may be meant, but has a price."""
        found = []
        if self.model_deadline > CONSUMER_TIMEOUT - _PARKED:
            found.append(
                f"MODEL_DEADLINE={self.model_deadline:g}: a message may be in flight for longer "
                f"than the broker's consumer timeout ({CONSUMER_TIMEOUT} s unless consumer_timeout "
                "was raised), after which the broker closes the channel and delivers all messages "
                "in flight again; raise consumer_timeout there, or lower MODEL_DEADLINE"
            )
        if "shutdown_grace" in self.model_fields_set and self.shutdown_grace < self.model_deadline:
            found.append(
                f"SHUTDOWN_GRACE={self.shutdown_grace:g} is shorter than MODEL_DEADLINE="
                f"{self.model_deadline:g}: a worker that stops may requeue messages whose calls "
                "would still have been answered; raise SHUTDOWN_GRACE to the deadline"
            )
        return found

    def delay_queue(self, seconds: int) -> str:
        """The name of the ladder's queue that gives a message back after so many seconds."""
        return f"{self.queue_name}.retry.{seconds}s"

    def rights_queue(self) -> str:
        """The name of a queue that does not exist, for checking the right to publish."""
        return f"{self.queue_name}.rights"


def load(environ: Mapping[str, str] | None = None, *, broker: bool = True) -> Settings:
    """Read the environment. Raises `SettingsError` that names all that is wrong at once.

    broker: whether the command needs to know where the broker is.
    """
    source = EnvSettingsSource(Settings)
    variables = os.environ if environ is None else environ
    # A Secret made from a file ends in a line break as often as not; no setting of ours does.
    given = {name: value.rstrip("\r\n") for name, value in variables.items()}
    # Empty means not set: a chart writes the variables of values that are empty too. Those of keys
    # are read by `keys`, and the field with all of them has no variable.
    source.env_vars = {
        name.lower(): value
        for name, value in given.items()
        if value and not name.upper().startswith(api_keys.COMMON)
    }
    garbled = [
        name.upper()
        for name, value in given.items()
        if name.lower() in Settings.model_fields and not is_text(value)
    ]
    if garbled:
        raise SettingsError("\n".join(f"{name}: is not UTF-8" for name in sorted(garbled)))
    known = source()
    models = api_keys.model_names(known.get("models"))
    found = api_keys.read_keys(variables, models)
    known["model_api_keys"] = found.named
    if found.common is not None:
        known["model_api_key"] = found.common
    problems: list[str] = [*found.problems, *api_keys.ambiguous(models or frozenset())]
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(known)
    except ValidationError as error:
        problems += [_explain(item["loc"], item["msg"], known) for item in error.errors()]
    address_known = any(known.get(n) for n in ("amqp_uri", "amqp_uri_file", "amqp_host"))
    if broker and not address_known:
        problems.append("AMQP_URI: is not set; set it, or AMQP_HOST, to the broker's address")
    if problems or settings is None:
        raise SettingsError("\n".join(problems))
    return settings


def _explain(loc: tuple[int | str, ...], message: str, known: Mapping[str, object]) -> str:
    text = message.removeprefix("Value error, ")
    if not loc:
        return text
    name = str(loc[0])
    if len(loc) > 1:  # models.triage.provider
        inside = ".".join(map(str, loc[1:]))
        return f"{name.upper()}: {inside}: {text[:1].lower()}{text[1:]}"
    # Only fields without secrets are quoted back.
    got = "" if name in SECRET or name not in known else f" (got {known[name]!r})"
    return f"{name.upper()}: {text[:1].lower()}{text[1:]}{got}"
