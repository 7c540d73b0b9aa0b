"""What goes wrong with the local cluster, said to whoever asked for it."""


class ClusterError(Exception):
    """The cluster cannot do what was asked; the text says why and what to do about it."""
