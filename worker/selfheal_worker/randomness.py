"""Random numbers that spread retries and probes, from a generator of our own, and new ids."""

from __future__ import annotations

import uuid
from random import Random

RANDOM = Random()


def new_id(random: Random = RANDOM) -> str:
    """For a message that has none."""
    return str(uuid.UUID(int=random.getrandbits(128), version=4))
