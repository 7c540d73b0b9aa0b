"""What goes wrong with images, said to whoever asked for them."""


class ImagesError(Exception):
    """An image or root file system cannot be had; the text says why and what to do."""
