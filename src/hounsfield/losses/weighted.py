"""Cross entropy of slices with a weight on the majority class."""

import torch
from torch import nn

from hounsfield.errors import InputError
from hounsfield.losses.batch import BatchLoss


class WeightedCrossEntropy(BatchLoss):
    """Mean over a batch of the two-class cross entropy, class 0 multiplied by `background_weight`, class 1 by 1."""

    def __init__(self, background_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= background_weight <= 1:
            raise InputError(f"loss: the class weight is {background_weight}, expected a number in [0, 1]")
        self.background_weight = background_weight

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar float32 loss of logits (N, 2) of any floating dtype and a target (N,) of 0 and 1."""
        truth = target.long()
        losses = nn.functional.cross_entropy(logits.float(), truth, reduction="none")
        weights = torch.where(truth == 1, 1.0, self.background_weight)
        if not self.synchronised:
            return (losses * weights).mean()
        count = torch.tensor(float(len(truth)), device=logits.device)
        torch.distributed.all_reduce(count)
        return (losses * weights).sum() * torch.distributed.get_world_size() / count
