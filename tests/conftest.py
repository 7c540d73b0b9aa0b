"""What all tiers share: a tier without its parts is skipped on a laptop and fails in CI."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# A test asserts nothing about time, so neither does Hypothesis: a busy machine is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# The same programs wherever the tests run: unless SELFHEAL_PARTS is set, no host of official
# archives is asked.
os.environ.setdefault("SELFHEAL_PARTS", "source")


@pytest.fixture(scope="session")
def unavailable() -> Callable[[str], None]:
    """Call with the reason when a tier's real parts cannot be had here."""

    def skip_or_fail(reason: str) -> None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have every part: {reason}")
        pytest.skip(reason)

    return skip_or_fail


#: Modules of the pure tier that take more than two seconds: they start whole programs and servers,
#: wait for what they do, or draw many examples. `--fast` leaves them out.
SLOW = frozenset(
    f"tests/pure/{name}.py"
    for name in (
        "golden/test_goldens",
        "remediator/test_api_outage",
        "remediator/test_canary",
        "remediator/test_canary_requests",
        "remediator/test_conflicts",
        "remediator/test_correlation",
        "remediator/test_etcd_restore",
        "remediator/test_healing_begins_again",
        "remediator/test_healing_engine",
        "remediator/test_informer",
        "remediator/test_leader",
        "remediator/test_leftovers",
        "remediator/test_malformed_responses",
        "remediator/test_observe_first",
        "remediator/test_planner",
        "remediator/test_pod_topology",
        "remediator/test_queues",
        "remediator/test_restart_check",
        "remediator/test_returning_pods",
        "remediator/test_series_removal",
        "remediator/test_stale_pod_lists",
        "remediator/test_supervision",
        "remediator/test_takeover",
        "remediator/test_unanswered_changes",
        "remediator/test_waves",
        "test_sizes",
        "worker/dialects/test_dialects",
        "worker/dialects/test_parameters",
        "worker/test_adaptive_limit",
        "worker/test_call_deadline",
        "worker/test_call_errors",
        "worker/test_chain",
        "worker/test_deadlines",
        "worker/test_evaluate",
        "worker/test_memory",
        "worker/test_message",
        "worker/test_plain_data",
        "worker/test_providers",
        "worker/test_refusals",
        "worker/test_slow_responses",
        "worker/test_token_counts",
        "worker/test_untrusted_output",
        "worker_builtin/test_classifier",
    )
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out what takes seconds")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--fast"):
        return
    slow = {Path(config.rootpath, name) for name in SLOW}
    left_out = [item for item in items if item.path in slow]
    items[:] = [item for item in items if item.path not in slow]
    config.hook.pytest_deselected(items=left_out)
