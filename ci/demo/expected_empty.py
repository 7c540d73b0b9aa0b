"""What a demo that goes well leaves empty, and why: nothing else may be without data.

Queries of panels by `dashboard / panel / legend`; selectors of alerts by their text. A reason that
is no longer true (there is data) fails the test too, but for those in SOMETIMES.
"""

_CALM = "nothing of the kind happens in a demo that goes well"
_ALL_PLACED = "kube-state-metrics tells only of pods that are unschedulable, and all have a node"
_MODEL = "{{gen_ai_provider_name}} {{gen_ai_request_model}} {{model_version}}"
_NO_TOKENS = "the builtin model has no tokens"
_NO_RESTORE = "deleted objects are not made again, by default"
_NO_LIMIT = "no container of the release has a CPU limit, by default"

PANELS = {
    "selfheal-overview / Firing alerts / {{alertname}} (critical)": _CALM,
    "selfheal-overview / Firing alerts / {{alertname}} (warning)": _CALM,
    "selfheal-overview / Firing alerts / {{alertname}} (info)": _CALM,
    "selfheal-overview / Out-of-memory kills / {{pod}} {{container}}": _CALM,
    "selfheal-overview / CPU by pod / {{container}} limit": _NO_LIMIT,
    "selfheal-overview / Throttling / {{pod}}": _NO_LIMIT,
    f"selfheal-model / Errors / {{{{error_type}}}} {_MODEL}": _CALM,
    f"selfheal-model / Tokens / {{{{gen_ai_token_type}}}} {_MODEL}": _NO_TOKENS,
    "selfheal-model / Tokens per call / p50 {{gen_ai_token_type}}": _NO_TOKENS,
    "selfheal-model / Tokens per call / p95 {{gen_ai_token_type}}": _NO_TOKENS,
    "selfheal-overview / Unschedulable pods / unschedulable": _ALL_PLACED,
    "selfheal-remediation / Limits / {{limit}}": "one bad node is under every limit",
    "selfheal-remediation / Objects of the release / missing": _NO_RESTORE,
    "selfheal-remediation / Objects of the release / changed: {{field}}": _NO_RESTORE,
    "selfheal-remediation / Failed restarts / {{cause}}": _CALM,
    "selfheal-remediation / Stuck rollouts / {{policy}}": _CALM,
    "selfheal-remediation / Ignored signals / {{cause}}": _CALM,
}

_KEDA = 'namespace="selfheal",scaledObject="selfheal-worker"}'
SELECTORS = {
    f"keda_scaler_detail_errors_total{{{_KEDA}": (
        "scraped through KEDA's pod it has the label exported_namespace"
    ),
    f"keda_scaler_active{{{_KEDA}": "as above: it has the label exported_namespace",
    'kube_deployment_status_condition{condition="ReplicaFailure",'
    'deployment=~"selfheal-(worker|remediator|ollama)",status="true"}': _CALM,
    'kube_pod_container_status_last_terminated_reason{reason="OOMKilled"}': _CALM,
    "kube_pod_status_unschedulable{}": _ALL_PLACED,
    'selfheal_remediator_limited_nodes{limit!~"minInterval|rate|maxDraining|paused|signal"}': (
        "one bad node is under every limit"
    ),
    'selfheal_remediator_policy_state{state="GaveUp"}': _CALM,
    'selfheal_remediator_signal_rejected_nodes{cause="stale-heartbeat"}': _CALM,
    'selfheal_remediator_signal_rejected_nodes{cause="suspected-detector"}': _CALM,
}

_AT_ONCE = "the replacement of an evicted worker may be ready before the next worker is asked to go"
_NO_ERROR = "KEDA counts its first error, which a demo may not have"
#: Has data in some demos and not in others, and why.
SOMETIMES = {
    "selfheal-remediation / Pods that block a drain / {{cause}}": _AT_ONCE,
    "selfheal_remediator_drain_blocked_pods{}": _AT_ONCE,
    "selfheal-remediation / Restarts by policies / {{policy}} {{cause}}": (
        "the frozen worker is restarted by its probe, before its policy would"
    ),
    "selfheal-overview / Scaler errors / errors": _NO_ERROR,
    "selfheal-model / Workers without a warm model / not ready": (
        "a worker is warm within a second or two of its start, which may fall between two scrapes"
    ),
    "selfheal-remediation / Conditions by node / {{node}} not Ready": (
        "a node is not ready while it joins, and on a busy machine now and then"
    ),
    f"keda_scaler_detail_errors_total{{exported_{_KEDA}": _NO_ERROR,
    'selfheal_remediator_policy_state{state="Degraded"}': (
        "a policy is degraded while the first of its pods start"
    ),
}
