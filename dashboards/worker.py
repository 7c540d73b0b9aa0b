"""What the workers do with messages."""

from __future__ import annotations

from alerts.records import failed, increase, late
from dashboards.panels import WORKER, Board, Panel, Query, Row

_NONE = "no worker runs"


def _of_workers(expr: str) -> str:
    """An expression of the rules, for the selected release and the default objectives."""
    return expr.replace("%worker%", WORKER).replace("%waitSeconds%", "60")


def _quantiles(metric: str) -> tuple[Query, ...]:
    return tuple(
        Query(
            f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{{WORKER}}}"
            "[$__rate_interval]))) >= 0",
            f"p{round(share * 100)}",
        )
        for share in (0.5, 0.95, 0.99)
    )


_FLOW = Row(
    "Flow",
    (
        Panel(
            "Outcomes",
            "Outcomes of messages per second: answered, retried, dead-lettered, requeued at a "
            "shutdown, or lost with the connection (the broker redelivers those).",
            "cps",
            (
                Query(
                    "sum by (outcome) (rate(selfheal_worker_messages_total"
                    f"{{{WORKER}}}[$__rate_interval]))",
                    "{{outcome}}",
                ),
            ),
            empty=_NONE,
            stack=True,
        ),
        Panel(
            "From delivery to answer",
            "Time from a message's delivery to its result's confirmed publish.",
            "s",
            _quantiles("selfheal_worker_process_duration_seconds"),
            empty="no messages",
        ),
        Panel(
            "Wait before delivery",
            "Time from the publisher's timestamp (whole seconds) to the first delivery. Messages "
            "without a timestamp, and dead letters that were replayed, do not count.",
            "s",
            _quantiles("selfheal_worker_queue_wait_seconds"),
            empty="no messages with a timestamp",
            steps=((None, "green"), (60, "orange"), (300, "red")),
        ),
        Panel(
            "In flight",
            "Messages in flight in each worker, and the maximum.",
            "short",
            (
                Query(f"sum by (pod) (selfheal_worker_in_flight{{{WORKER}}})", "{{pod}}"),
                Query(f"max(selfheal_worker_concurrency{{{WORKER}}})", "maximum per worker"),
            ),
            empty=_NONE,
        ),
        Panel(
            "Dead letters by reason",
            "Dead letters within 30 minutes. `selfheal-worker dead-letters list` shows them.",
            "short",
            (
                Query(
                    _of_workers(
                        "sum by (reason) ("
                        f"{increase('selfheal_worker_dead_letters_total{%worker%}', '30m')}) > 0"
                    ),
                    "{{reason}}",
                ),
            ),
            empty="none",
            steps=((None, "green"), (10, "orange")),
        ),
        Panel(
            "Retries",
            "Messages sent to a delay queue per second.",
            "cps",
            (
                Query(
                    f'sum(rate(selfheal_worker_messages_total{{{WORKER},outcome="retried"}}'
                    "[$__rate_interval]))",
                    "retried",
                ),
            ),
            empty=_NONE,
        ),
    ),
)

_PROMISES = Row(
    "Objectives",
    (
        Panel(
            "Failed share against the objective",
            "Share of the messages that fail permanently, by the windows of the burn rate alerts. The line "
            "is the default objective (99 %).",
            "percentunit",
            tuple(Query(_of_workers(failed(window)), window) for window in ("5m", "1h", "6h")),
            empty="no messages",
            steps=((None, "green"), (0.01, "red")),
            width=12,
        ),
        Panel(
            "Late share against the objective",
            "Share of the messages received later than 60 s after they were published, by the windows of "
            "the burn rate alerts. The line is the default objective (95 %).",
            "percentunit",
            tuple(Query(_of_workers(late(window)), window) for window in ("5m", "1h", "6h")),
            empty="no messages with a timestamp",
            steps=((None, "green"), (0.05, "red")),
            width=12,
        ),
    ),
)

_STATE = Row(
    "State",
    (
        Panel(
            "Ready",
            "1 when a worker's model is warm and it consumes.",
            "short",
            (Query(f"max by (pod) (selfheal_worker_ready{{{WORKER}}})", "{{pod}}"),),
            kind="timeline",
            empty=_NONE,
            steps=((None, "orange"), (1, "green")),
            mappings={"0": "not ready", "1": "ready"},
            width=12,
        ),
        Panel(
            "Breakers",
            "A breaker that is not closed stops a worker from consuming until a probe succeeds. This is "
            "the worst state of all workers.",
            "short",
            (
                Query(
                    f"max by (breaker) (selfheal_worker_breaker_state{{{WORKER}}})", "{{breaker}}"
                ),
            ),
            kind="timeline",
            empty=_NONE,
            steps=((None, "green"), (1, "orange"), (2, "red")),
            mappings={"0": "closed", "1": "probing", "2": "open"},
            width=12,
        ),
        Panel(
            "Broker connections",
            "Workers that are connected, that the broker blocks, and connections lost within 5 minutes.",
            "short",
            (
                Query(f"sum(selfheal_worker_broker_connected{{{WORKER}}})", "connected"),
                Query(f"sum(selfheal_worker_broker_blocked{{{WORKER}}})", "blocked"),
                Query(
                    f"sum(increase(selfheal_worker_broker_disconnects_total{{{WORKER}}}[5m]))",
                    "lost",
                ),
            ),
            empty=_NONE,
            width=6,
        ),
        Panel(
            "Hung handlers",
            "Model calls past their deadline: now, and within 30 minutes.",
            "short",
            (
                Query(f"sum(selfheal_worker_hung_handlers{{{WORKER}}})", "now"),
                Query(
                    _of_workers(
                        f"sum({increase('selfheal_worker_handler_hangs_total{%worker%}', '30m')})"
                    ),
                    "in 30 minutes",
                ),
            ),
            empty=_NONE,
            width=6,
        ),
        Panel(
            "CPU",
            "CPU seconds per second of each worker's process.",
            "short",
            (
                Query(
                    f"sum by (pod) (rate(process_cpu_seconds_total{{{WORKER}}}[$__rate_interval]))",
                    "{{pod}}",
                ),
            ),
            empty=_NONE,
            width=6,
            whole=False,
            least=0.1,
        ),
        Panel(
            "Memory",
            "Resident memory of each worker's process.",
            "bytes",
            (Query(f"max by (pod) (process_resident_memory_bytes{{{WORKER}}})", "{{pod}}"),),
            empty=_NONE,
            width=6,
        ),
    ),
)

WORKER_BOARD = Board(
    "selfheal-worker",
    "selfheal / Worker",
    "Outcomes, durations and health of the workers.",
    (_FLOW, _PROMISES, _STATE),
)
