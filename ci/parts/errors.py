"""What goes wrong with parts, said to whoever asked for them."""


class PartsError(Exception):
    """A part cannot be had; the text says why and what to do. Nothing half-done is left."""
