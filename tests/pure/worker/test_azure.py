"""The base URL that a user gives, and where requests go."""

from __future__ import annotations

import pytest

from selfheal_worker.model.providers.azure import DEFAULT_VERSION, Address, address

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


@pytest.mark.parametrize("cloud", ["com", "us", "cn"])
@pytest.mark.parametrize("service", ["openai", "cognitiveservices", "services.ai"])
def test_azure_is_known_in_each_cloud(service: str, cloud: str) -> None:
    url = f"https://r.{service}.azure.{cloud}"
    assert address(url) == Address(f"{url}/openai/v1")


@pytest.mark.parametrize("host", ["openai.azure.us.example.com", "r.openai.azure.de", "azure.com"])
def test_another_host_is_no_azure(host: str) -> None:
    assert address(f"https://{host}") == Address(f"https://{host}")
