"""What goes wrong with parts, said to whoever asked for them."""


class PartsError(Exception):
    """A part cannot be had; the text says why and what to do. Nothing half-done is left."""


class Unreachable(PartsError):
    """A host does not answer, or does not have the file."""


class Refused(PartsError):
    """A host answers with something that may not be used: another content, or another place."""
