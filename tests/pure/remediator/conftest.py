"""What tests of the remediator's threads share."""

import pytest


@pytest.fixture
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again after milliseconds: for tests that are not about the pause."""
    monkeypatch.setattr("selfheal_remediator.threads.supervision.FIRST_RESTART", 0.01)
