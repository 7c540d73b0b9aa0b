"""The Go programs that the local cluster is made of, built once into the user's cache."""

from ci.parts.build import ensure
from ci.parts.errors import PartsError

__all__ = ["PartsError", "ensure"]
