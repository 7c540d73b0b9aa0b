"""The base URL that a user gives, and where requests go."""

from __future__ import annotations

import pytest

from worker.azure import DEFAULT_VERSION, Address, address

_RESOURCE = "https://r.openai.azure.com"
_DEPLOYMENT = f"{_RESOURCE}/openai/deployments/my-gpt"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://h:8000/v1", Address("http://h:8000/v1")),
        ("http://h:8000/v1/", Address("http://h:8000/v1")),
        ("http://h:8000/v1/chat/completions", Address("http://h:8000/v1")),
        ("http://h/v1?tenant=a", Address("http://h/v1", (("tenant", "a"),))),
        (_RESOURCE, Address(f"{_RESOURCE}/openai/v1")),
        (f"{_RESOURCE}/openai/", Address(f"{_RESOURCE}/openai/v1")),
        (f"{_RESOURCE}/openai/v1/", Address(f"{_RESOURCE}/openai/v1")),
        (
            "https://r.services.ai.azure.com",
            Address("https://r.services.ai.azure.com/openai/v1"),
        ),
        (_DEPLOYMENT, Address(_DEPLOYMENT, (("api-version", DEFAULT_VERSION),), classic=True)),
        (
            f"{_DEPLOYMENT}/chat/completions?api-version=2025-01-01-preview",
            Address(_DEPLOYMENT, (("api-version", "2025-01-01-preview"),), classic=True),
        ),
        (
            "https://gateway.example.com/openai/deployments/my-gpt?api-version=2024-06-01",
            Address(
                "https://gateway.example.com/openai/deployments/my-gpt",
                (("api-version", "2024-06-01"),),
                classic=True,
            ),
        ),
    ],
)
def test_the_address_that_is_meant(url: str, found: Address) -> None:
    assert address(url) == found
