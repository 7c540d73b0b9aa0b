"""What goes wrong with the local cluster, said to whoever asked for it."""

import errno

#: What a disk does, in contrast to a mistake in here.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)


class ClusterError(Exception):
    """The cluster cannot do what was asked; the text says why and what to do about it."""
