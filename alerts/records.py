"""The recording rules, as data: which share of the messages fails or is late over which window."""

from __future__ import annotations

from dataclasses import dataclass

#: Windows over which the error budget is evaluated: short ones resolve an alert soon.
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
_SECONDS = {"m": 60, "h": 3600, "d": 86400}
#: Reasons for which no model could have answered: the publisher's errors. Every other one counts
#: as a failure, one that is added later too.
UNANSWERABLE = (
    *("body_too_large", "malformed_json", "not_an_object", "nested_too_deep", "missing_text"),
    *("text_not_a_string", "blank_text", "text_too_large", "bad_id"),
)
#: Matchers of the dead letters that the objective counts.
FAILED = f'reason!~"{"|".join(UNANSWERABLE)}"'
_LOST = f"selfheal_worker_dead_letters_total{{%worker%,{FAILED}}}"
_ANSWERED = 'selfheal_worker_messages_total{%worker%,outcome="answered"}'
# Prometheus 2 keeps `60.0` as the client wrote it; other clients write `60`.
_SOON = 'selfheal_worker_queue_wait_seconds_bucket{%worker%,le=~"%waitSeconds%([.]0)?"}'
_TAKEN = "selfheal_worker_queue_wait_seconds_count{%worker%}"


@dataclass(frozen=True, slots=True)
class Record:
    """A recording rule. `needs`: the parts of the release without which it is left out."""

    name: str
    expr: str
    needs: tuple[str, ...] = ("worker",)


def increase(counter: str, window: str) -> str:
    """By how much each worker's `counter` grew within `window`, such as `30m`.

    `increase` takes the first sample for what was there before. A worker that starts because
    messages wait has handled hundreds by then: of a process that began within the window the
    counter's value counts, unless what its container counted before a restart makes it more.
    """
    seconds = int(window[:-1]) * _SECONDS[window[-1]]
    began = f"last_over_time(process_start_time_seconds{{%worker%}}[{window}]) > time() - {seconds}"
    whole = f"last_over_time({counter}[{window}]) and on (pod, instance) {began}"
    # The label keeps the two apart; of one worker the larger counts.
    marked = f'label_replace({whole}, "of", "whole", "", "")'
    return f"max without (of) ({marked} or increase({counter}[{window}]))"


def failed(window: str) -> str:
    """The share of the messages that failed permanently, of those that could be answered."""
    # lost / (lost + answered), with each series queried once. NaN, of no messages, is not >= 0.
    return f"1 / (1 + sum({increase(_ANSWERED, window)}) / sum({increase(_LOST, window)})) >= 0"


def late(window: str) -> str:
    """The share of the messages that were received later than the objective."""
    # Clamped: at the edge of a window the two counters may be a sample apart.
    return (
        f"clamp_min(1 - sum({increase(_SOON, window)}) / sum({increase(_TAKEN, window)}), 0) >= 0"
    )


RECORDS = (
    *(Record(f"selfheal:results_failed:ratio_rate{window}", failed(window)) for window in WINDOWS),
    *(Record(f"selfheal:queue_wait_late:ratio_rate{window}", late(window)) for window in WINDOWS),
    # How many that is: of a few messages each is a large share.
    Record("selfheal:results_failed:increase6h", f"sum({increase(_LOST, '6h')})"),
    Record(
        "selfheal:queue_wait_late:increase6h",
        f"sum({increase(_TAKEN, '6h')}) - sum({increase(_SOON, '6h')})",
    ),
)
