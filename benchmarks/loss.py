"""Focal + Dice loss, forward and backward, 8 x 512x512 float32: time and memory beside other implementations.

python benchmarks/loss.py [--images 8] [--size 512] [--repeats 11]
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from hounsfield.losses import build_loss

ALPHA, GAMMA, BETA = 0.25, 4.0, 0.7


def log_of_probability(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The loss as it is often written: logarithm of a softmax's probability plus a small number."""
    p = logits.softmax(dim=1)[:, 1]
    y = target.float()
    p_t, alpha_t = torch.where(target, p, 1 - p), torch.where(target, ALPHA, 1 - ALPHA)
    focal = -(alpha_t * (1 - p_t) ** GAMMA * torch.log(p_t + 1e-7)).mean()
    dice = 1 - (2 * (p * y).sum() + 1e-6) / (p.sum() + y.sum() + 1e-6)
    return (1 - BETA) * focal + BETA * dice


def contenders() -> dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    from monai.losses import DiceFocalLoss

    monai = DiceFocalLoss(
        sigmoid=True, batch=True, alpha=ALPHA, gamma=GAMMA, lambda_dice=BETA, lambda_focal=1 - BETA,
        smooth_nr=1e-6, smooth_dr=1e-6,
    )  # fmt: skip
    return {
        "hounsfield": build_loss("cl", ALPHA, GAMMA, BETA),
        "MONAI DiceFocalLoss on z1 - z0": lambda x, y: monai(x[:, 1:] - x[:, :1], y[:, None].float()),
        "log(p + eps)": log_of_probability,
        "limit: BCE with logits on z1 - z0": lambda x, y: functional.binary_cross_entropy_with_logits(
            x[:, 1] - x[:, 0], y.float()
        ),
    }


def megabytes(step: Callable[[], None]) -> float:
    """Peak of what `step` allocates, from the allocator's own record."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    level = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    return peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=11)
    arguments = parser.parse_args()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    torch.manual_seed(0)
    shape = (arguments.images, arguments.size, arguments.size)
    logits = torch.randn(shape[0], 2, *shape[1:], requires_grad=True)
    target = torch.rand(shape) < 0.02
    steps = {name: lambda loss=loss: loss(logits, target).backward() for name, loss in contenders().items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(arguments.repeats + 1):
        for name, step in steps.items():
            logits.grad = None
            start = time.perf_counter()
            step()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    ours = statistics.median(seconds["hounsfield"])
    print(f"{'contender':36} {'ms':>8} {'x ours':>8} {'peak MB':>8}")
    for name, step in steps.items():
        logits.grad = None
        median = statistics.median(seconds[name])
        print(f"{name:36} {median * 1e3:8.1f} {median / ours:8.2f} {megabytes(step):8.0f}")


if __name__ == "__main__":
    main()
