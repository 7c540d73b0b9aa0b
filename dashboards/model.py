"""How the model answers."""

from __future__ import annotations

from dashboards.panels import WORKER, Board, Panel, Query, Row

_NONE = "no model was called"
_CALLS = f"gen_ai_client_operation_duration_seconds_count{{{WORKER}}}"
_BAD = f'gen_ai_client_operation_duration_seconds_count{{{WORKER},error_type!=""}}'
_BY = "gen_ai_provider_name, gen_ai_request_model, model_version"
_LEGEND = "{{gen_ai_provider_name}} {{gen_ai_request_model}} {{model_version}}"


def _quantile(share: float) -> Query:
    return Query(
        f"histogram_quantile({share}, sum by (le, {_BY}) (rate("
        f"gen_ai_client_operation_duration_seconds_bucket{{{WORKER}}}[$__rate_interval]))) >= 0",
        f"p{round(share * 100)} {_LEGEND}",
    )


_CALLED = Row(
    "Calls",
    (
        Panel(
            "Calls",
            "Model calls per second, by provider, model and version.",
            "cps",
            (Query(f"sum by ({_BY}) (rate({_CALLS}[$__rate_interval]))", _LEGEND),),
            empty=_NONE,
        ),
        Panel(
            "Latency",
            "Duration of one model call.",
            "s",
            (_quantile(0.5), _quantile(0.95), _quantile(0.99)),
            empty=_NONE,
        ),
        Panel(
            "Errors",
            "Failed calls per second by model and kind of error. ModelUnavailableError opens the breaker; "
            "others are retried.",
            "cps",
            (
                Query(
                    f"sum by ({_BY}, error_type) (rate({_BAD}[$__rate_interval])) > 0",
                    f"{{{{error_type}}}} {_LEGEND}",
                ),
            ),
            empty="none",
        ),
        Panel(
            "Error share",
            "Share of the calls that failed.",
            "percentunit",
            (
                Query(
                    f"(sum(rate({_BAD}[$__rate_interval])) or vector(0))"
                    f" / sum(rate({_CALLS}[$__rate_interval])) >= 0",
                    "failed",
                ),
            ),
            empty=_NONE,
            steps=((None, "green"), (0.05, "orange"), (0.2, "red")),
            width=6,
        ),
        Panel(
            "Concurrent calls",
            "Concurrent calls of each model, and how many are allowed: fewer while its server is "
            "overloaded (429, 503), none while it requests a pause.",
            "short",
            tuple(
                Query(
                    f"sum by (gen_ai_request_model) (selfheal_worker_model_calls_{what}{{{WORKER}}})",
                    f"{what} {{{{gen_ai_request_model}}}}",
                )
                for what in ("running", "allowed")
            ),
            empty=_NONE,
            width=6,
        ),
        Panel(
            "Tokens",
            "Tokens per second, as the provider counted them. The builtin model has none.",
            "short",
            (
                Query(
                    f"sum by ({_BY}, gen_ai_token_type) (rate("
                    f"gen_ai_client_token_usage_sum{{{WORKER}}}[$__rate_interval]))",
                    f"{{{{gen_ai_token_type}}}} {_LEGEND}",
                ),
            ),
            empty="the provider counts no tokens",
            width=6,
            whole=False,
        ),
        Panel(
            "Tokens per call",
            "Tokens of one call, by kind: the median, and what 95 of 100 stay under.",
            "short",
            tuple(
                Query(
                    f"histogram_quantile({share}, sum by (le, gen_ai_token_type) (rate("
                    f"gen_ai_client_token_usage_bucket{{{WORKER}}}[$__rate_interval]))) >= 0",
                    f"p{round(share * 100)} {{{{gen_ai_token_type}}}}",
                )
                for share in (0.5, 0.95)
            ),
            empty="the provider counts no tokens",
            width=6,
            whole=False,
        ),
    ),
)

_UP = Row(
    "State",
    (
        Panel(
            "Breaker",
            "Open: the model does not answer and this worker does not consume. A probe every few seconds "
            "closes it.",
            "short",
            (
                Query(
                    f'max by (pod) (selfheal_worker_breaker_state{{{WORKER},breaker="model"}})',
                    "{{pod}}",
                ),
            ),
            kind="timeline",
            empty="no worker runs",
            steps=((None, "green"), (1, "orange"), (2, "red")),
            mappings={"0": "closed", "1": "probing", "2": "open"},
            width=12,
        ),
        Panel(
            "Workers without a warm model",
            "Workers that run and are not ready.",
            "short",
            (Query(f"count(selfheal_worker_ready{{{WORKER}}} == 0)", "not ready"),),
            empty="none",
            steps=((None, "green"), (1, "orange")),
            width=12,
        ),
        Panel(
            "Load time",
            "Longest time that a worker needed to have its model ready, by provider, model and version.",
            "s",
            (
                Query(
                    f"max by ({_BY}) (selfheal_worker_model_load_seconds{{{WORKER}}})",
                    _LEGEND,
                ),
            ),
            empty="no model is ready",
            width=12,
        ),
        Panel(
            "Answered by a fallback",
            "Answers per second of another model than the active one; they are marked `degraded: true`.",
            "cps",
            (
                Query(
                    f"sum(rate(selfheal_worker_degraded_total{{{WORKER}}}[$__rate_interval]))",
                    "degraded",
                ),
            ),
            empty="no worker runs",
            steps=((None, "green"), (0.001, "orange")),
            width=12,
        ),
    ),
)

MODEL = Board(
    "selfheal-model",
    "selfheal / Model",
    "Latency and errors of model calls, by provider, model and version.",
    (_CALLED, _UP),
)
