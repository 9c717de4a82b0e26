"""Losses of two-class logits with analytic gradients, exact at any logit.

With z = z1 - z0 the log-odds of the foreground, y the truth and t = -z where y = 1, z where y = 0:

    p_t = sigmoid(-t), q = 1 - p_t = sigmoid(t), -log p_t = softplus(t)
    CE   = softplus(t)
    BL   = alpha_t softplus(t)            alpha_t = alpha where y = 1, 1 - alpha where y = 0
    FL   = alpha_t q^gamma softplus(t)    dFL/dt = alpha_t q^gamma (gamma p_t softplus(t) + q)
    Dice = 1 - (2 TP + smooth) / (2 TP + FP + FN + smooth) with TP = sum p_t y, FP + FN = sum q
    CL   = (1 - beta) FL + beta Dice

Nothing is ever one minus a rounded probability, no logarithm sees a probability, and a term of a badly classified pixel
keeps its gradient. The parts are computed chunk by chunk so that the intermediate values stay in the cache.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from hounsfield.errors import InputError
from hounsfield.losses.batch import BatchLoss

LossName = Literal["ce", "bl", "fl", "dice", "cl"]
LOSSES: tuple[LossName, ...] = get_args(LossName)

_CHUNK = 1 << 18
"""Pixels worked on at a time on a CPU: few enough for its caches, enough to keep several threads busy."""


@dataclass(frozen=True)
class Terms:
    """`focal` and `dice` are the weights of the two terms, `alpha` None means no balancing (a weight of 1)."""

    focal: float
    dice: float
    alpha: float | None
    gamma: float
    smooth: float


class BinaryLoss(BatchLoss):
    """A weighted sum of the mean focal loss and the Dice loss of a batch.

    Synchronised, its Dice is that of the whole batch, whatever the shares of the processes.
    """

    def __init__(self, terms: Terms) -> None:
        super().__init__()
        self.terms = terms

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of a batch.

        Args:
            logits: (N, 2, H, W) of background and foreground, any floating dtype; half precision is worked on in
                float32.
            target: (N, H, W) bool or integer, 0 background and 1 foreground.

        Returns:
            Scalar, float32 (float64 for float64 logits).

        Raises:
            InputError: the shapes do not fit.
        """
        if logits.ndim != 4 or logits.shape[1] != 2 or target.shape != logits[:, 0].shape:
            raise InputError(
                f"loss: expected logits (N, 2, H, W) and a target (N, H, W), came {tuple(logits.shape)} and "
                f"{tuple(target.shape)}"
            )
        loss: torch.Tensor = _FocalDice.apply(  # type: ignore[no-untyped-call]
            logits, target, self.terms, self.synchronised
        )
        return loss


def build_loss(
    name: LossName, alpha: float = 0.25, gamma: float = 4.0, beta: float = 0.7, smooth: float = 1e-6
) -> BinaryLoss:
    """The loss `name`; parameters that it does not have are ignored.

    Args:
        alpha: weight of the foreground in BL, FL and CL, in [0, 1].
        gamma: focusing exponent of FL and CL, at least 0.
        beta: share of Dice in CL, in [0, 1].
        smooth: added to numerator and denominator of Dice, above 0.

    Raises:
        InputError: unknown name or a parameter out of its range.
    """
    for parameter, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value <= 1:
            raise InputError(f"loss: {parameter} is {value}, expected a number in [0, 1]")
    if gamma < 0 or smooth <= 0:
        raise InputError(f"loss: gamma is {gamma} and smooth {smooth}, expected gamma >= 0 and smooth > 0")
    match name:
        case "ce":
            return BinaryLoss(Terms(1.0, 0.0, None, 0.0, smooth))
        case "bl":
            return BinaryLoss(Terms(1.0, 0.0, alpha, 0.0, smooth))
        case "fl":
            return BinaryLoss(Terms(1.0, 0.0, alpha, gamma, smooth))
        case "dice":
            return BinaryLoss(Terms(0.0, 1.0, None, 0.0, smooth))
        case "cl":
            return BinaryLoss(Terms(1.0 - beta, beta, alpha, gamma, smooth))
    raise InputError(f"loss: {name!r} is not one of {', '.join(LOSSES)}")


class _FocalDice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, target: torch.Tensor, terms: Terms, synchronised: bool) -> torch.Tensor:
        dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
        needs_gradient = logits.requires_grad
        shape = target.shape
        focal_gradient = logits.new_empty(shape, dtype=dtype) if needs_gradient and terms.focal else None
        dice_gradient = logits.new_empty(shape, dtype=dtype) if needs_gradient and terms.dice else None
        sums = logits.new_zeros(4, dtype=torch.float64)
        sums[3] = target.numel()
        exact_from = 20 if dtype == torch.float32 else 40
        for part in _chunks(logits):
            y = target[part].to(dtype)
            toward = 1 - 2 * y
            t = (logits[part, 1].to(dtype) - logits[part, 0].to(dtype)).mul_(toward)
            p, q = t.neg().sigmoid_(), t.sigmoid()
            if terms.focal:
                weight = _power(q, terms.gamma)
                if terms.alpha is not None:
                    weight = weight.mul_(y * (2 * terms.alpha - 1) + (1 - terms.alpha))
                nll = nn.functional.softplus(t, threshold=exact_from)
                sums[0] += torch.dot(nll.flatten(), weight.flatten())
                if focal_gradient is not None:
                    slope = nll.mul_(p).mul_(terms.gamma).add_(q) if terms.gamma else q
                    torch.mul(slope, weight.mul_(toward), out=focal_gradient[part])
            if terms.dice:
                sums[1] += torch.dot(p.flatten(), y.flatten())
                sums[2] += q.sum()
                if dice_gradient is not None:
                    torch.mul(p, q, out=dice_gradient[part])
        ctx.workers = 1
        if synchronised:
            torch.distributed.all_reduce(sums)
            ctx.workers = torch.distributed.get_world_size()
        focal, overlap, missed, pixels = sums.tolist()
        total = 2 * overlap + missed + terms.smooth
        ctx.terms, ctx.like = terms, logits
        ctx.focal_scale = terms.focal / pixels
        ctx.background_scale = terms.dice * (2 * overlap + terms.smooth) / total**2
        ctx.foreground_scale = terms.dice * (2 * overlap + 2 * missed + terms.smooth) / total**2
        ctx.save_for_backward(target, focal_gradient, dice_gradient)
        return torch.tensor(
            terms.focal * focal / pixels + terms.dice * missed / total, dtype=dtype, device=logits.device
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        target, focal_gradient, dice_gradient = ctx.saved_tensors
        factor = float(upstream) * ctx.workers
        gradient = torch.empty_like(ctx.like)
        for part in _chunks(gradient):
            foreground, background = gradient[part, 1], gradient[part, 0]
            if dice_gradient is None:
                torch.mul(focal_gradient[part], factor * ctx.focal_scale, out=foreground)
            else:
                y = target[part].to(dice_gradient.dtype)
                away, back = factor * ctx.background_scale, factor * ctx.foreground_scale
                slope = y.mul_(-away - back).add_(away).mul_(dice_gradient[part])
                if focal_gradient is not None:
                    slope.add_(focal_gradient[part], alpha=factor * ctx.focal_scale)
                foreground.copy_(slope)
            torch.neg(foreground, out=background)
        return gradient, None, None, None


def _chunks(logits: torch.Tensor) -> list[slice]:
    """Ranges of images that are worked on together."""
    count, _, rows, columns = logits.shape
    step = max(1, _CHUNK // max(1, rows * columns)) if logits.device.type == "cpu" else max(1, count)
    return [slice(start, start + step) for start in range(0, count, step)]


def _power(q: torch.Tensor, gamma: float) -> torch.Tensor:
    """q^gamma as a new tensor; squaring is several times faster than `pow`."""
    if gamma == 0:
        return torch.ones_like(q)
    if gamma == 4:
        return q.square().square_()
    return q.pow(gamma)
