"""What a demo that goes well leaves empty, and why: nothing else may be without data.

Queries of panels by `dashboard / panel / legend`; selectors of alerts by their text. A reason that
is no longer true (there is data) fails the test too, but for those in SOMETIMES.
"""

_CALM = "nothing of the kind happens in a demo that goes well"
_NO_TOKENS = "the builtin model has no tokens"
_NO_LIMIT = "no container of the release has a CPU limit, by default"

PANELS = {
    "selfheal-overview / Killed for memory / {{pod}} {{container}}": _CALM,
    "selfheal-overview / Throttling / {{pod}}": _NO_LIMIT,
    "selfheal-model / Errors / {{error_type}}": _CALM,
    "selfheal-model / Tokens / {{gen_ai_request_model}} {{gen_ai_token_type}}": _NO_TOKENS,
    "selfheal-model / Tokens a call / p50 {{gen_ai_token_type}}": _NO_TOKENS,
    "selfheal-model / Tokens a call / p95 {{gen_ai_token_type}}": _NO_TOKENS,
    "selfheal-remediation / Brakes / {{brake}}": "one bad node is under every brake",
    "selfheal-remediation / Conditions by node / {{node}} not Ready": _CALM,
    "selfheal-remediation / Signals not believed / {{cause}}": _CALM,
}

SELECTORS: dict[str, str] = {}

#: Has data in some demos and not in others, and why.
SOMETIMES: dict[str, str] = {}
