"""Addresses of Azure OpenAI and of others that carry a query. Pure.

The classic API has the deployment in the path, the API's version in the query and the key in a
header of its own (https://learn.microsoft.com/azure/ai-foundry/openai/reference); the v1 API is
OpenAI's (https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit, urlunsplit

#: The latest version of the classic API that is no preview.
DEFAULT_VERSION = "2024-10-21"
KEY_HEADER = "api-key"

_DEPLOYMENT = re.compile(r"/openai/deployments/[^/]+\Z")
# Of the public cloud, of Azure Government, and of Azure in China.
_CLOUDS = ("com", "us", "cn")
_HOSTS = tuple(
    f".{service}.azure.{cloud}"
    for service in ("openai", "cognitiveservices", "services.ai")
    for cloud in _CLOUDS
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where requests go: the base of the paths, the query of each; classic: as Azure's old API."""

    base: str
    query: tuple[tuple[str, str], ...] = ()
    classic: bool = False


def address(url: str) -> Address:
    """The address that a user's base URL means: also one that names the whole path of a call."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    query = dict(parse_qsl(parts.query))
    classic = _DEPLOYMENT.search(path) is not None
    if classic:
        query.setdefault("api-version", DEFAULT_VERSION)
    elif (parts.hostname or "").endswith(_HOSTS) and path in ("", "/openai"):
        path = "/openai/v1"
    base = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    return Address(base, tuple(query.items()), classic)
