"""Published weights as the beginning of a training: files in the key naming of torchvision or RadImageNet.

Nothing is ever downloaded from the web: the file is fetched once by its user, and its licence read by them.
"""

import io
import pickle
import re
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from hounsfield.errors import InputError
from hounsfield.models.resnet import ResNet
from hounsfield.remote import SCHEMES, fetch

SEQUENTIAL = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
WRAPPERS = ("state_dict", "model_state_dict", "model")
OUTER = re.compile(r"^(?:module|model|backbone|encoder|resnet|_orig_mod)\.")
HEAD = re.compile(r"^(?:fc|classifier|head)\.")
FIRST = "conv1.weight"
COUNTER = "num_batches_tracked"
NAMED = 3
DAMAGED = (
    SafetensorError, RuntimeError, EOFError, struct.error, LookupError, ValueError, TypeError, AttributeError,
)  # fmt: skip
PYTORCH = (b"PK\x03\x04", b"\x80")


def load_initial_weights(network: ResNet, source: str) -> int:
    """Replace all of `network` but its last layer by the weights in `source`, and return how many tensors were taken.

    Accepted are torchvision's parameter names (`layer1.0.conv1.weight`) and those of an nn.Sequential of its children,
    as RadImageNet's PyTorch models have (`backbone.4.0.conv1.weight`), behind any prefix such as `module.`. A first
    convolution of three input channels is summed over them for a network with one: the same as showing it the grey
    image three times. Images here are in [0, 1], while published weights were made for standardised ones (ImageNet's
    by its mean and SD). This is not corrected for: the first convolution has no bias to take the mean, and in training
    the batch norm behind it removes shift and scale alike, but for the borders. Until its running statistics have
    followed, the untrained features differ. The head, made for other classes, is never taken.

    Args:
        network: changed in place, where it lies and in its dtype.
        source: path, file:// or s3:// address of a safetensors or PyTorch (.pt, .pth) file. S3's endpoint, region and
            credentials are those of the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...).

    Raises:
        InputError: an address that cannot be read or is on the web, a file that is no state dict or needs code to be
            run to read it, weights that are missing, of another shape or not finite.
    """
    given = _torchvision_names(_read(source))
    wanted = {key: value for key, value in network.state_dict().items() if not HEAD.match(key)}
    first = given.get(FIRST)
    if first is not None and first.ndim == 4 and first.shape[1] == 3 and wanted[FIRST].shape[1] == 1:
        given[FIRST] = first.double().sum(dim=1, keepdim=True)
    missing = [key for key in wanted if key not in given and not key.endswith(COUNTER)]
    if missing:
        raise InputError(
            f"initial weights {source}: {_listed(missing)} missing: "
            f"expected a ResNet of the same depth in the key names of torchvision or RadImageNet"
        )
    taken = {key: given[key] for key in wanted if key in given}
    misshapen = [
        f"{key} is {_shape(value)} for {_shape(wanted[key])}"
        for key, value in taken.items()
        if value.shape != wanted[key].shape
    ]
    if misshapen:
        raise InputError(
            f"initial weights {source}: {_listed(misshapen)}: "
            "use weights of this depth, and the published base_channels"
        )
    broken = [key for key, value in taken.items() if not torch.isfinite(value).all()]
    if broken:
        raise InputError(f"initial weights {source}: {_listed(broken)} not finite: fetch the file again")
    surplus = [key for key in given if key not in wanted and not HEAD.match(key)]
    if surplus:
        raise InputError(f"initial weights {source}: {_listed(surplus)} unknown here: use weights of the same depth")
    network.load_state_dict(taken, strict=False)
    return len(taken)


def _torchvision_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed: dict[str, torch.Tensor] = {}
    for key, value in weights.items():
        name = key
        while (inner := OUTER.sub("", name)) != name:
            name = inner
        child, _, rest = name.partition(".")
        name = f"{SEQUENTIAL[child]}.{rest}" if child in SEQUENTIAL else name
        if name in renamed:
            raise InputError(f"initial weights hold {name} twice ({key} is one): keep the weights of one network alone")
        renamed[name] = value
    return renamed


def _read(source: str) -> dict[str, torch.Tensor]:
    """The state dict in `source`, read without running any code of it."""
    content = _content(source)
    unreadable = f"initial weights {source} cannot be read: expected a complete safetensors or PyTorch (.pt, .pth) file"
    try:
        if content[8:9] == b"{":
            loaded: Any = load_safetensors(content)
        elif content.startswith(PYTORCH):
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        else:
            raise InputError(unreadable)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"initial weights {source} hold more than tensors and would run code when read: "
            "save the network's state_dict() alone, best as safetensors"
        ) from error
    except DAMAGED as error:
        raise InputError(unreadable) from error
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not loaded:
        raise InputError(f"initial weights {source} hold a {type(loaded).__name__}, expected a state dict of tensors")
    weights = {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
    if len(weights) < len(loaded):
        others = [str(key) for key, value in loaded.items() if not isinstance(value, torch.Tensor)]
        raise InputError(
            f"initial weights {source}: {_listed(others)} no tensor: save the network's state_dict() alone"
        )
    return weights


def _content(source: str) -> bytes:
    scheme, separator, rest = source.partition("://")
    if scheme == "file" and separator:
        host, _, name = rest.partition("/")
        if host not in ("", "localhost"):
            raise InputError(f"initial weights {source} name the host {host}: expected file:///path")
        path = Path("/" + unquote(name))
    elif scheme in SCHEMES and separator:
        if not rest.partition("/")[2]:
            raise InputError(f"initial weights {source}: expected s3://bucket/key")
        path = fetch(source)
    elif separator:
        raise InputError(
            f"initial weights {source}: nothing is downloaded while training: "
            "fetch the file first and give its path, file:// or s3:// address"
        )
    else:
        path = Path(source).expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"initial weights {source} cannot be read: {error.strerror}: give the path of a file"
        ) from error


def _listed(names: list[str]) -> str:
    """The first few names and the number of all."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more} {'is' if len(names) == 1 else 'are'}"


def _shape(value: torch.Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"
