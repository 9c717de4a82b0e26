"""Figures 3 and 4 of the lung-tumour paper, of our runs. Colours are those of Okabe and Ito, with a line style each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from hounsfield.evaluation.figures import OVERLAY_PREDICTION, OVERLAY_TRUTH
from hounsfield.metrics.counts import Counts
from hounsfield.plots import MUTED, style

LINES: dict[str, tuple[str, Any]] = {
    "BL": ("#0072b2", (0, (1.2, 1.2))),
    "FL": ("#009e73", (0, (5, 1.8))),
    "CL": ("#d55e00", "solid"),
}
SMALLEST_VIEW_MM = 70.0
"""Side of the square around a tumour that is shown at least."""
Image = npt.NDArray[Any]
Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Recall and precision, highest threshold first."""


@dataclass(frozen=True)
class Case:
    """One slice of a patient with its truth, and the mask that the run of each loss predicts; all (rows, columns)."""

    title: str
    image: Image
    truth: npt.NDArray[np.bool_]
    predicted: Mapping[str, npt.NDArray[np.bool_]]
    spacing: tuple[float, float]
    """Row and column distance in mm."""


def precision_recall(panels: Mapping[str, Mapping[str, tuple[str, Sequence[Curve]]]], prevalence: float) -> Figure:
    """A panel per network, in it the curves of each loss: a legend entry, and one line a seed."""
    with style():
        figure = Figure(figsize=(3.55 * len(panels) + 0.35, 3.7), layout="constrained")
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (network, losses) in zip(row, panels.items(), strict=True):
            for loss, (entry, curves) in losses.items():
                colour, dashes = LINES[loss]
                for place, (recall, precision) in enumerate(curves):
                    axes.step(
                        np.concatenate([[0.0], recall]),
                        np.concatenate([precision[:1], precision]),
                        where="pre",
                        color=colour,
                        linestyle=dashes,
                        linewidth=1.7 if len(curves) == 1 else 1.1,
                        label=entry if place == 0 else None,
                    )
            axes.axhline(prevalence, color=MUTED, linestyle=":", linewidth=0.9)
            axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="Recall", title=network)
            axes.legend(loc="best", handlelength=2.6)
        row[0].set_ylabel("Precision")
    return figure


def masks(cases: Sequence[Case], losses: Sequence[str]) -> Figure:
    """A row per case: the slice, the truth, and the mask of each loss with the outline of the truth."""
    columns = ["original", "truth", *losses]
    with style():
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
        figure = Figure(figsize=(2.0 * len(columns), 2.0 * len(cases) + 0.3), layout=layout)
        grid = figure.subplots(len(cases), len(columns), squeeze=False)
        for row, case in zip(grid, cases, strict=True):
            limits = view(case.truth, case.spacing)
            for axes, column in zip(row, columns, strict=True):
                show(axes, case, limits)
                if column == "truth":
                    fill(axes, case.truth, OVERLAY_TRUTH)
                    outline(axes, case.truth, OVERLAY_TRUTH, "solid")
                elif column != "original":
                    predicted = case.predicted.get(column)
                    if predicted is None:
                        axes.text(0.5, 0.5, "not run", transform=axes.transAxes, color="white", ha="center")
                        continue
                    fill(axes, predicted, OVERLAY_PREDICTION)
                    outline(axes, predicted, OVERLAY_PREDICTION, "solid")
                    outline(axes, case.truth, OVERLAY_TRUTH, (0, (3, 2)))
                    dice = Counts.of(predicted, case.truth).dice
                    corner(axes, f"Dice {dice:.2f}" if dice is not None else "no truth")
            row[0].set_ylabel(case.title, fontsize=8.5)
        for axes, column in zip(grid[0], columns, strict=True):
            axes.set_title(column)
    return figure


def view(mask: npt.NDArray[np.bool_], spacing: tuple[float, float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """First and last row and column of a square in mm around the mask: twice its extent, and not outside the image."""
    if not mask.any():
        return (-0.5, mask.shape[0] - 0.5), (-0.5, mask.shape[1] - 0.5)
    spans = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    extents = [(span[-1] - span[0] + 1) * length for span, length in zip(spans, spacing, strict=True)]
    side = max(2.0 * max(extents), SMALLEST_VIEW_MM)
    limits = []
    for span, length, size in zip(spans, spacing, mask.shape, strict=True):
        pixels = min(side / length, size)
        first = float(np.clip((span[0] + span[-1] + 1 - pixels) / 2, 0, size - pixels))
        limits.append((first - 0.5, first + pixels - 0.5))
    return limits[0], limits[1]


def show(axes: Axes, case: Case, limits: tuple[tuple[float, float], tuple[float, float]]) -> None:
    """The windowed slice, grey over the whole window, without ticks."""
    white = 255 if case.image.dtype == np.uint8 else 1
    aspect = case.spacing[0] / case.spacing[1]
    axes.imshow(case.image, cmap="gray", vmin=0, vmax=white, aspect=aspect, interpolation="bilinear")
    rows, columns = limits
    axes.set(xlim=columns, ylim=(rows[1], rows[0]), xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def fill(axes: Axes, mask: npt.NDArray[np.bool_], colour: str) -> None:
    """The mask as a veil of one colour."""
    axes.contourf(mask.astype(float), levels=[0.5, 1.5], colors=[colour], alpha=0.35)


def outline(axes: Axes, mask: npt.NDArray[np.bool_], colour: str, dashes: Any) -> None:
    """The edge of the mask."""
    if mask.any():
        axes.contour(mask.astype(float), levels=[0.5], colors=[colour], linestyles=[dashes], linewidths=1.2)


def corner(axes: Axes, text: str) -> None:
    """Text in the lower left corner, readable on any grey."""
    box = {"facecolor": "black", "alpha": 0.6, "pad": 1.5, "linewidth": 0}
    axes.text(0.03, 0.04, text, transform=axes.transAxes, color="white", fontsize=8, bbox=box)
