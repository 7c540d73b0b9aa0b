"""Signatures of webhooks. Pure.

The scheme is Standard Webhooks 1.0, symmetric (`v1`):
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac

PREFIX = "whsec_"
#: Bytes that a secret may have.
SHORTEST, LONGEST = 24, 64


class UnusableSecret(ValueError):
    """The secret is none; the message does not show it."""


def secrets_from(text: str) -> list[bytes]:
    """One secret of each line that is not empty. Raises UnusableSecret."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UnusableSecret("it is empty")
    return [_secret(line, number) for number, line in enumerate(lines, 1)]


def _secret(line: str, number: int) -> bytes:
    allowed = f"{PREFIX} and the base64 of {SHORTEST} to {LONGEST} random bytes is expected"
    if not line.startswith(PREFIX):
        raise UnusableSecret(f"line {number} does not begin with {PREFIX}: {allowed}")
    try:
        secret = base64.b64decode(line.removeprefix(PREFIX), validate=True)
    except ValueError:
        # Without the cause, which quotes what it could not decode.
        raise UnusableSecret(f"line {number} is no base64: {allowed}") from None
    if not SHORTEST <= len(secret) <= LONGEST:
        raise UnusableSecret(f"line {number} has {len(secret)} bytes: {allowed}")
    return secret


def signature(secrets: list[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The header webhook-signature: one signature by each secret, so that they can be rotated.

    message_id: without full stops, which separate the parts of what is signed.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = [hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
