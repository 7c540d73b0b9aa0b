"""The random numbers that spread retries and probes, from a generator of our own."""

from __future__ import annotations

from random import Random

RANDOM = Random()
