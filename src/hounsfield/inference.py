"""Applying a trained network to windowed images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from hounsfield import models
from hounsfield.data.model_store import WEIGHTS, ModelCard, read_card
from hounsfield.errors import ArtifactError

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode with its card."""

    module: nn.Module
    card: ModelCard
    device: torch.device

    def foreground_logits(self, images: torch.Tensor, precision: Precision = "fp32") -> torch.Tensor:
        """Log-odds z1 - z0 of the foreground class, float32 on the CPU.

        Args:
            images: (N, H, W) float32 in [0, 1], as `hounsfield.windowing.Window` makes them.
            precision: bf16 runs the network under autocast; the difference z1 - z0 is taken in float32.

        Returns:
            (N, H, W) for segmentation, (N,) for slice detection. `sigmoid` of it is the probability.
        """
        with torch.inference_mode():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
                logits = self.module(images[:, None].to(self.device))
            logits = logits.float()
            odds: torch.Tensor = (logits[:, 1] - logits[:, 0]).cpu()
            return odds


def load_network(directory: Path) -> Network:
    """Load a model directory onto the GPU when there is one, else the CPU.

    On NVIDIA GPUs float32 convolutions are float32 in this process from then on: PyTorch's default, TF32, keeps only
    10 binary digits.

    Raises:
        ArtifactError: no complete model, or weights that do not fit the architecture of its card.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card = read_card(directory)
    module = models.build(card.architecture, **card.architecture_options)
    try:
        module.load_state_dict(load_file(Path(directory) / WEIGHTS))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise ArtifactError(f"{directory}/{WEIGHTS} does not fit architecture {card.architecture}: {error}") from error
    device = best_device()
    torch.backends.cudnn.allow_tf32 = False
    module.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Network(module, card, device)


def best_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself (a GPU that does, or a CPU with AMX or AVX-512 for it)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


def batches(rows: list[int], size: int) -> Iterator[list[int]]:
    """`rows` in consecutive lists of at most `size`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
