"""Container images and root file systems for the local cluster and the tests.

`ensure(names)` gives images as docker archives, `ci.images.rootfs.ensure(name)` a root file system.
"""

from ci.images.build import Image, ensure
from ci.images.errors import ImagesError

__all__ = ["Image", "ImagesError", "ensure"]
