"""What all tiers share: a tier without its parts is skipped on a laptop and fails in CI."""

import os
from collections.abc import Callable

import pytest
from hypothesis import settings

# A test asserts nothing about time, so neither does Hypothesis: a busy machine is no failure.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def unavailable() -> Callable[[str], None]:
    """Call with the reason when a tier's real parts cannot be had here."""

    def skip_or_fail(reason: str) -> None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have every part: {reason}")
        pytest.skip(reason)

    return skip_or_fail
