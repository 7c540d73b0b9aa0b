"""Makes the passwords that the broker's Secret lacks, and writes what is made of them beside them.

A password that is there is kept, so running this again changes nothing. It needs Python alone, and
runs in a Job of a release that was rendered without a cluster.

Environment: NAMESPACE and SECRET; DEFINITIONS, the JSON of RabbitMQ's definitions with
`passwordKey` (a key of the Secret) where a user's password belongs; URIS, JSON of key -> [URI, the
Secret's key of its `{user}`, that of its `{password}`].
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import ssl
import string
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

LENGTH = 32
ALPHABET = string.ascii_letters + string.digits


def filled(
    data: dict[str, str], definitions: dict[str, Any], uris: dict[str, list[str]]
) -> dict[str, str]:
    """The Secret's data with passwords, definitions and URIs."""
    found = dict(data)
    users = []
    for described in definitions["users"]:
        user = dict(described)
        key = user.pop("passwordKey")
        if not found.get(key):
            found[key] = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
        users.append({**user, "password": found[key]})
    found["definitions.json"] = json.dumps({**definitions, "users": users}, indent=2)
    for key, (uri, user_key, password_key) in uris.items():
        found[key] = uri.format(
            user=urllib.parse.quote(found[user_key], safe=""),
            password=urllib.parse.quote(found[password_key], safe=""),
        )
    return found


def call(method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The Secret, as the API server answers. Raises OSError."""
    account = os.environ.get("ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount")
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    server = os.environ.get(
        "SERVER", f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    )
    token = (Path(account) / "token").read_text(encoding="utf-8").strip()
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/merge-patch+json",
    }
    asked = urllib.request.Request(
        f"{server}/api/v1/namespaces/{os.environ['NAMESPACE']}/secrets/{os.environ['SECRET']}",
        data=None if body is None else json.dumps(body).encode(),
        headers=headers,
        method=method,
    )
    trusted = None
    if server.startswith("https:"):
        trusted = ssl.create_default_context(cafile=f"{account}/ca.crt")
    with urllib.request.urlopen(asked, timeout=30, context=trusted) as answer:
        secret: dict[str, Any] = json.load(answer)
        return secret


def main() -> str:
    """What was done. Raises OSError when the API server is not there or refuses."""
    secret = call("GET")
    encoded = secret.get("data") or {}
    data = {key: base64.b64decode(value).decode() for key, value in encoded.items()}
    wanted = filled(data, json.loads(os.environ["DEFINITIONS"]), json.loads(os.environ["URIS"]))
    changed = {key: value for key, value in wanted.items() if data.get(key) != value}
    if not changed:
        return "all passwords are there, nothing changed"
    written = {key: base64.b64encode(value.encode()).decode() for key, value in changed.items()}
    # With the version that was read: of two at once the second is refused, and reads again.
    version = secret["metadata"]["resourceVersion"]
    call("PATCH", {"metadata": {"resourceVersion": version}, "data": written})
    return f"wrote {', '.join(sorted(changed))}"


if __name__ == "__main__":
    subject = f"Secret {os.environ['NAMESPACE']}/{os.environ['SECRET']}"
    try:
        sys.stdout.write(f"{subject}: {main()}\n")
    except OSError as error:
        sys.exit(f"{subject}: {error}; the Job tries again")
