"""What the local cluster's Prometheus saw of the demo: rules go in, a few numbers come out."""

import time
from collections.abc import Mapping

import yaml

from ci.cluster.prometheus import Prometheus
from ci.demo.console import Console
from ci.demo.kube import Kube

_RULES = "templates/alerts/prometheusrule.yaml"


def _worst(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, sum by (le) (max_over_time({metric}_bucket[%s])))"


def _mean(metric: str) -> str:
    return f"sum(max_over_time({metric}_sum[%s])) / sum(max_over_time({metric}_count[%s]))"


# What a person reads → (unit, expression over a window). A pod's counters go with the pod, so the
# most that each has shown is taken, and not what is there at the end.
_NUMBERS: Mapping[str, tuple[str, str]] = {
    "targets that answer": ("", "sum(up)"),
    "targets": ("", "count(up)"),
    "workers ready, at most": ("", "max_over_time(sum(selfheal_worker_ready)[%s:5s])"),
    "wait in the queue, 95 of 100 under": (
        "s",
        _worst(0.95, "selfheal_worker_queue_wait_seconds"),
    ),
    "model call, 95 of 100 under": (
        "s",
        _worst(0.95, "gen_ai_client_operation_duration_seconds"),
    ),
    "memory of a worker, at most": (
        "MB",
        'max(max_over_time(process_resident_memory_bytes{container="worker"}[%s])) / 1e6',
    ),
    "from the rule's 5 s over to the cordon": (
        "s",
        _mean("selfheal_remediator_action_delay_seconds"),
    ),
    "drain": ("s", _mean("selfheal_remediator_drain_duration_seconds")),
    "memory of the remediator, at most": (
        "MB",
        'max(max_over_time(process_resident_memory_bytes{container="remediator"}[%s])) / 1e6',
    ),
}


def load_rules(
    prometheus: Prometheus, kube: Kube, release: str, chart: str, arguments: list[str]
) -> int:
    """Gives Prometheus the alerts of the release as `helm template` renders them; their number.

    As a user does who has no Prometheus operator.
    """
    rendered = kube.helm(
        *("template", release, chart, *arguments),
        *("--set", "alerts.enabled=true", "--set", "alerts.interval=5s", "--show-only", _RULES),
    )
    groups = yaml.safe_load(rendered)["spec"]["groups"]
    prometheus.load_rules(release, groups)
    return sum("alert" in rule for group in groups for rule in group["rules"])


def numbers(prometheus: Prometheus, since: float) -> dict[str, float | None]:
    """The numbers by what they say; None where nothing was measured. `since` is a Unix time."""
    window = f"{max(30, round(time.time() - since))}s"
    return {
        text: prometheus.value(expr.replace("%s", window)) for text, (_, expr) in _NUMBERS.items()
    }


def tell(console: Console, prometheus: Prometheus, since: float) -> dict[str, float | None]:
    """Shows the numbers, what fires, and where to read on; gives the numbers."""
    found = numbers(prometheus, since)
    rows = [
        [text, "-" if value is None else f"{value:.{0 if value >= 100 or not unit else 2}f}", unit]
        for (text, value), (unit, _) in zip(found.items(), _NUMBERS.values(), strict=True)
    ]
    console.table(["measured", "value", ""], rows)
    firing = sorted({alert["alertname"] for alert in prometheus.firing()})
    console.say(f"alerts that fire: {', '.join(firing) or 'none'}")
    console.say(f"Prometheus stays at {prometheus.url}, Alertmanager at {prometheus.alertmanager}")
    return found
