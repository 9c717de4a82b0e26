"""Log-odds of the slices of a volume: bf16 screens them where that is faster, float32 decides.

bfloat16 keeps 8 binary digits of a number, so its log-odds are off by some hundredths to tenths. A slice whose bf16
log-odds all lie more than `MARGIN` below the threshold has no foreground, and keeps them. Every other slice, and the
`CHECKED` highest ones in any case, are computed again in float32, and their masks are those of float32. On these slices
both are at hand, and the shortfall is measured: by how much bf16 falls short of float32 up to the threshold. Where that
is more than half the margin, the whole series is computed in float32. So a mask differs from float32's at most in
pixels that bf16 puts lower by more than `MARGIN`, in a series where it does not do half of that on any checked slice.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from hounsfield.data.slice_set import SEGMENTATION
from hounsfield.evaluation.prediction import log_odds
from hounsfield.inference import Network, Precision, batches
from hounsfield.windowing import Window

MARGIN = 2.0
"""Log-odds."""
CHECKED = 8
"""Slices that are computed in both precisions at least."""

Floats = npt.NDArray[np.float32]
Computed = Literal["fp32", "bf16, decided in fp32", "fp32 after bf16 was not exact enough"]


@dataclass(frozen=True)
class Scores:
    """Log-odds of the foreground, float32, (slices,) for l3-slice, else (slice, row, column), and how they came."""

    log_odds: Floats
    computed: Computed


class Scorer:
    """Applies a network with its window to the slices of one volume (slice, row, column) int16, `batch_size` at a time.

    The slices go through the window and size that the network was trained with; log-odds come back to the original
    matrix by bilinear interpolation.
    """

    def __init__(
        self, network: Network, hu: npt.NDArray[np.int16], batch_size: int, advance: Callable[[int], None]
    ) -> None:
        self.network, self.hu, self.batch_size, self.advance = network, hu, batch_size, advance
        self.window = Window(**network.card.window)
        self.cut = log_odds(network.card.threshold)
        self.segmentation = network.card.task == SEGMENTATION
        self.out: Floats = np.empty(hu.shape if self.segmentation else hu.shape[:1], np.float32)

    def fp32(self) -> Scores:
        """All slices in float32."""
        for block, odds in self._batches(range(len(self.hu)), "fp32"):
            self._keep(block, odds)
            self.advance(len(block))
        return Scores(self.out, "fp32")

    def screened(self) -> Scores:
        """All slices in bf16, those that decide in float32."""
        highest = np.empty(len(self.hu), np.float32)
        for block, odds in self._batches(range(len(self.hu)), "bf16"):
            self._keep(block, odds)
            highest[block] = odds.reshape(len(block), -1).amax(dim=1).numpy()
            self.advance(sum(value <= self.cut - MARGIN for value in highest[block]))
        decide = sorted({*np.flatnonzero(~(highest <= self.cut - MARGIN)), *np.argsort(highest)[-CHECKED:]})
        for block, odds in self._batches(decide, "fp32"):
            short = self.shortfall(block, odds)
            self._keep(block, odds)
            self.advance(sum(value > self.cut - MARGIN for value in highest[block]))
            if not short <= MARGIN / 2:
                rest = [k for k in range(len(self.hu)) if k > block[-1] or k not in decide]
                for again, exact in self._batches(rest, "fp32"):
                    self._keep(again, exact)
                return Scores(self.out, "fp32 after bf16 was not exact enough")
        return Scores(self.out, "bf16, decided in fp32")

    def shortfall(self, block: Sequence[int], odds: torch.Tensor) -> float:
        """By how much the log-odds that are kept fall short of `odds`, which count up to the threshold only."""
        exact = self._on_grid(odds).numpy()
        return float((np.minimum(exact, self.cut) - self.out[block]).max())

    def _batches(self, slices: Sequence[int], precision: Precision) -> Iterator[tuple[list[int], torch.Tensor]]:
        for block in batches(list(slices), self.batch_size):
            images = self.window(torch.from_numpy(self.hu[block]))
            yield block, self.network.foreground_logits(images, precision)

    def _keep(self, block: Sequence[int], odds: torch.Tensor) -> None:
        self.out[block] = self._on_grid(odds).numpy()

    def _on_grid(self, odds: torch.Tensor) -> torch.Tensor:
        if not self.segmentation or odds.shape[1:] == self.hu.shape[1:]:
            return odds
        return torch.nn.functional.interpolate(
            odds[:, None], size=self.hu.shape[1:], mode="bilinear", align_corners=False, antialias=True
        )[:, 0]
