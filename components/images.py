"""References of the container images that the steps run in."""

CPU_IMAGE = "hounsfield-python:0.1.0"
TRAINING_IMAGE = "hounsfield-training-python:0.1.0"


def reference(image: str, registry: str = "", tag: str = "") -> str:
    """`image` in `registry` (host and folder) and with `tag`; empty texts leave it as it is."""
    name = image.rpartition(":")[0] + ":" + (tag or tag_of(image))
    return f"{registry.rstrip('/')}/{name}" if registry else name


def tag_of(image: str) -> str:
    """The tag of an image."""
    return image.rpartition(":")[2]
