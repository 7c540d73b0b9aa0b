"""The names of all metrics and the values that their labels may have."""

from __future__ import annotations

from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.process_collector import ProcessCollector

from selfheal_worker.model.breaker import State
from selfheal_worker.model.failure_effects import EFFECTS, effect_of
from selfheal_worker.model.limits import Concurrency
from selfheal_worker.model.provider import Origin, Usage

# OpenTelemetry's advice for gen_ai.client.operation.duration: 0.01 * 2^n, up to 81.92 s.
_DURATION = tuple(0.01 * 2**n for n in range(14))
# And for gen_ai.client.token.usage: 4^n, as far as a message of 64 KiB can reach.
_TOKENS = tuple(4**n for n in range(9))
_WAIT = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

OUTCOMES = ("answered", "retried", "dead_lettered", "requeued", "lost_connection")
DEAD_LETTER_REASONS = (
    "body_too_large",
    "malformed_json",
    "not_an_object",
    "nested_too_deep",
    "missing_text",
    "text_not_a_string",
    "blank_text",
    "text_too_large",
    "bad_id",
    "result_too_large",
    "text_too_long",
    "refused_by_model",
    "content_filtered",
    "retries_exhausted",
)
BREAKERS = ("model", "results")
#: Kinds of errors of model calls; a fixed set, because each is a histogram more.
ERROR_TYPES = tuple(dict.fromkeys(effect.label for effect in EFFECTS.values()))
#: gen_ai.operation.name: of language models, and of the one inside the worker.
OPERATIONS = ("chat", "classify")
#: A server may report another version with each answer: so many of one model have series of their
#: own, all others share those of OTHER_VERSION.
MOST_VERSIONS, OTHER_VERSION = 10, "_OTHER"
_MODEL_LABELS = (
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "model_version",
)


_Labels = tuple[str, str, str, str]


class MessageMetrics:
    """What became of messages. From the link's thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self.settled = counter(
            "selfheal_worker_messages", "Messages settled, by outcome.", ["outcome"]
        )
        self.dead_letters = counter(
            "selfheal_worker_dead_letters",
            "Messages sent to the dead letters, by reason.",
            ["reason"],
        )
        self.answered = self.settled.labels("answered")
        for outcome in OUTCOMES:
            self.settled.labels(outcome)
        for reason in DEAD_LETTER_REASONS:
            self.dead_letters.labels(reason)
        self.duration = histogram(
            "selfheal_worker_process_duration_seconds",
            "From delivery to the confirmed publish.",
            buckets=_DURATION,
        )
        self.wait = histogram(
            "selfheal_worker_queue_wait_seconds",
            "From the publisher's timestamp (whole seconds) to the first delivery.",
            buckets=_WAIT,
        )
        self.degraded = counter(
            "selfheal_worker_degraded", "Messages answered by another model than the active one."
        )
        self.phrases_dropped = counter(
            "selfheal_worker_phrases_dropped",
            "Phrases of answers that should have been excerpts and were not in the text.",
        )


class ProcessMetrics:
    """How the worker is. What changes is set when it is asked, but `hangs` is counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        self.in_flight = gauge("selfheal_worker_in_flight", "Messages delivered, not yet settled.")
        self.concurrency = gauge("selfheal_worker_concurrency", "Messages that may be in flight.")
        self.ready = gauge("selfheal_worker_ready", "1 when the model is warm and it consumes.")
        self.hung = gauge("selfheal_worker_hung_handlers", "Handlers past their deadline.")
        self.abandoned = gauge(
            "selfheal_worker_abandoned_calls",
            "Model calls past their deadline that still run in a client library.",
        )
        self.hangs = counter(
            "selfheal_worker_handler_hangs", "Handlers that passed their deadline."
        )
        breaker = gauge(
            "selfheal_worker_breaker_state",
            "0 closed (work flows), 1 probing, 2 open.",
            ["breaker"],
        )
        self._breakers = {name: breaker.labels(name) for name in BREAKERS}

    def breaker(self, name: str, state: State) -> None:
        """Show a breaker's state."""
        self._breakers[name].set(state.value)


class BrokerMetrics:
    """The connection to the broker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        self.connected = gauge("selfheal_worker_broker_connected", "1 when connected.")
        self.blocked = gauge(
            "selfheal_worker_broker_blocked",
            "1 while the broker takes no publishes (its memory or disk alarm).",
        )
        self.disconnects = counter(
            "selfheal_worker_broker_disconnects", "Connections lost or refused."
        )


class ModelMetrics:
    """The calls of models. From any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self._operation = histogram(
            "gen_ai_client_operation_duration_seconds",
            "One model call.",
            [*_MODEL_LABELS, "error_type"],
            buckets=_DURATION,
        )
        self._tokens = histogram(
            "gen_ai_client_token_usage",
            "Tokens of one model call, as the provider counted them.",
            [*_MODEL_LABELS, "gen_ai_token_type"],
            buckets=_TOKENS,
        )
        self._load = gauge(
            "selfheal_worker_model_load_seconds",
            "What it took to have a model ready, when it was ready first.",
            _MODEL_LABELS[1:],
        )
        self._allowed = gauge(
            "selfheal_worker_model_calls_allowed",
            "Calls of a model that may run at once: fewer while its server is overloaded.",
            _MODEL_LABELS[1:3],
        )
        self._running = gauge(
            "selfheal_worker_model_calls_running",
            "Calls of a model that run now.",
            _MODEL_LABELS[1:3],
        )
        #: By provider and model.
        self._versions: dict[tuple[str, str], set[str]] = {}
        self._timers: dict[tuple[_Labels, str], Histogram] = {}
        self._counted: dict[tuple[_Labels, str], Histogram] = {}

    def loaded(self, origin: Origin, seconds: float) -> None:
        """Say that a model is ready, and how long that took."""
        self._load.labels(*self._labels(origin)[1:]).set(seconds)

    def calls(self, origin: Origin, found: Concurrency, most: int) -> None:
        """Show how many calls of a model run and may run; most: the threads that there are."""
        labels = (origin.provider, origin.name)
        allowed = most if found.allowed is None else min(most, found.allowed)
        self._allowed.labels(*labels).set(allowed)
        self._running.labels(*labels).set(found.running)

    def called(
        self,
        origin: Origin,
        seconds: float,
        error: BaseException | None,
        usage: Usage | None = None,
    ) -> None:
        """Count one model call and its tokens."""
        kind = "" if error is None else effect_of(error).label
        labels = self._labels(origin)
        timer = self._timers.get((labels, kind))
        if timer is None:
            timer = self._operation.labels(*labels, kind)
            self._timers[labels, kind] = timer
        timer.observe(seconds)
        if usage is not None:
            self._counter(labels, "input").observe(usage.input_tokens)
            if usage.output_tokens is not None:
                self._counter(labels, "output").observe(usage.output_tokens)

    def _counter(self, labels: _Labels, kind: str) -> Histogram:
        counter = self._counted.get((labels, kind))
        if counter is None:
            counter = self._tokens.labels(*labels, kind)
            self._counted[labels, kind] = counter
        return counter

    def _labels(self, origin: Origin) -> _Labels:
        operation = "classify" if origin.provider == "builtin" else "chat"
        known = self._versions.setdefault((origin.provider, origin.name), set())
        if origin.version not in known and len(known) < MOST_VERSIONS:
            known.add(origin.version)
        version = origin.version if origin.version in known else OTHER_VERSION
        return (operation, origin.provider, origin.name, version)


class Metrics:
    """One process's metrics, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.messages = MessageMetrics(self.registry)
        self.process = ProcessMetrics(self.registry)
        self.broker = BrokerMetrics(self.registry)
        self.model = ModelMetrics(self.registry)

    def exposition(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)
