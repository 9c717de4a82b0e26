"""Pictures of a result, for people: sections with outline and diameters, the probability curve, the slice found."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hounsfield import plots
from hounsfield.predict.lesions import Lesion

LUNG_AND_SOFT_TISSUE = (-1000.0, 400.0)
SOFT_TISSUE = (-160.0, 240.0)
_OUTLINE, _DIAMETER, _PERPENDICULAR = "#ff4030", "#ffd23f", "#40d0ff"


@dataclass(frozen=True)
class Section:
    """A slice (row, column) in HU under a title, with the outline of a mask and the diameters of lesions."""

    hu: npt.NDArray[np.int16]
    title: str
    mask: npt.NDArray[np.bool_] | None = None
    lesions: Sequence[Lesion] = ()


def sections(
    shown: Sequence[Section], spacing: Sequence[float], footer: str, display: tuple[float, float] = SOFT_TISSUE
) -> bytes:
    """PNG of axial sections of one series beside each other.

    Args:
        spacing: edges of a pixel in mm (row to row, column to column).
        footer: what made the result.
        display: HU shown as black and white.
    """
    rows, columns = shown[0].hu.shape
    height = 5.2 * rows * spacing[0] / (columns * spacing[1])
    with plots.style():
        figure = Figure(figsize=(5.2 * len(shown), height + 0.8))
        for axes, item in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            _draw(axes, item, spacing, display)
        figure.subplots_adjust(
            left=0.01, right=0.99, bottom=0.45 / (height + 0.8), top=1 - 0.35 / (height + 0.8), wspace=0.02
        )
        figure.text(0.5, 0.012, footer, ha="center", color=plots.MUTED, fontsize=7)
    return plots.png(figure)


def _draw(axes: Axes, item: Section, spacing: Sequence[float], display: tuple[float, float]) -> None:
    axes.imshow(item.hu, cmap="gray", vmin=display[0], vmax=display[1], aspect=spacing[0] / spacing[1])
    if item.mask is not None and item.mask.any():
        outline = np.pad(item.mask, 1).astype(float)
        rows, columns = (np.arange(-1, size + 1) for size in item.mask.shape)
        axes.contour(columns, rows, outline, levels=[0.5], colors=_OUTLINE, linewidths=1.0)
    for lesion in item.lesions:
        for pair, colour in ((lesion.diameters.longest, _DIAMETER), (lesion.diameters.perpendicular, _PERPENDICULAR)):
            axes.plot([point[1] for point in pair], [point[0] for point in pair], color=colour, linewidth=0.9)
    for side, place, align in (("R", 0.01, "left"), ("L", 0.99, "right")):
        axes.text(place, 0.5, side, transform=axes.transAxes, ha=align, va="center", color="white", fontsize=9)
    axes.set_xlim(-0.5, item.hu.shape[1] - 0.5)
    axes.set_ylim(item.hu.shape[0] - 0.5, -0.5)
    axes.set_axis_off()
    axes.set_title(item.title)


def curve(
    probability: npt.NDArray[np.float32], threshold: float, found: int | None, footer: str, others: int = 0
) -> bytes:
    """PNG of the probability of each slice, with the threshold and, where there is one, the slice that was `found`.

    Args:
        probability: (slices,) from inferior to superior.
        found: index of the slice.
        others: how many other places reach the threshold.
    """
    numbers = np.arange(1, len(probability) + 1)
    with plots.style():
        figure = Figure(figsize=(6.4, 3.4))
        axes = figure.add_axes((0.09, 0.25, 0.88, 0.63))
        axes.plot(numbers, probability, color=plots.BLUE, marker=".", markersize=3, linewidth=1.2)
        axes.axhline(threshold, color=plots.MUTED, linestyle="--", linewidth=0.9, label=f"threshold {threshold:g}")
        if found is not None:
            axes.axvline(found + 1, color=plots.ORANGE, linewidth=1.2, label=f"slice {found + 1}")
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("slice, from inferior to superior")
        axes.set_ylabel("probability of L3")
        title = "L3 not found" if found is None else f"L3 at slice {found + 1} of {len(probability)}"
        doubt = f"; {others} other place{'s reach' if others > 1 else ' reaches'} the threshold" if others else ""
        axes.set_title(title + doubt)
        figure.legend(loc="lower left", bbox_to_anchor=(0.07, -0.01), ncols=2)
        figure.text(0.98, 0.015, footer, ha="right", color=plots.MUTED, fontsize=7)
    return plots.png(figure)
