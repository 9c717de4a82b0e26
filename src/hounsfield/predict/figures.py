"""Pictures of a result, for people: the largest section with its outline, the probability curve, the slice found."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from hounsfield import plots
from hounsfield.predict.lesions import Lesion
from hounsfield.predict.model import USE

LUNG_AND_SOFT_TISSUE = (-1000.0, 400.0)
SOFT_TISSUE = (-160.0, 240.0)
_OUTLINE, _DIAMETER, _PERPENDICULAR = "#ff4030", "#ffd23f", "#40d0ff"


def section(
    hu: npt.NDArray[np.int16],
    spacing: Sequence[float],
    title: str,
    display: tuple[float, float],
    mask: npt.NDArray[np.bool_] | None = None,
    lesions: Sequence[Lesion] = (),
) -> bytes:
    """PNG of a slice (row, column) in HU with the outline of a mask and the diameters of `lesions` measured on it.

    Args:
        spacing: edges of a pixel in mm (row to row, column to column).
        display: HU shown as black and white.
    """
    with plots.style():
        figure = Figure(figsize=(5.2, 5.2 * hu.shape[0] * spacing[0] / (hu.shape[1] * spacing[1]) + 0.6))
        axes = figure.add_axes((0.02, 0.06, 0.96, 0.86))
        axes.imshow(hu, cmap="gray", vmin=display[0], vmax=display[1], aspect=spacing[0] / spacing[1])
        if mask is not None and mask.any():
            outline = np.pad(mask, 1).astype(float)
            rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
            axes.contour(columns, rows, outline, levels=[0.5], colors=_OUTLINE, linewidths=1.0)
        for lesion in lesions:
            for pair, colour in (
                (lesion.diameters.longest, _DIAMETER),
                (lesion.diameters.perpendicular, _PERPENDICULAR),
            ):
                axes.plot([point[1] for point in pair], [point[0] for point in pair], color=colour, linewidth=0.9)
        axes.set_xlim(-0.5, hu.shape[1] - 0.5)
        axes.set_ylim(hu.shape[0] - 0.5, -0.5)
        axes.set_axis_off()
        axes.set_title(title)
        figure.text(0.5, 0.015, USE, ha="center", color=plots.MUTED, fontsize=8)
    return plots.png(figure)


def curve(probability: npt.NDArray[np.float32], threshold: float, found: int | None) -> bytes:
    """PNG of the probability of each slice, with the threshold and, where there is one, the slice that was `found`.

    Args:
        probability: (slices,) from inferior to superior.
        found: index of the slice.
    """
    numbers = np.arange(1, len(probability) + 1)
    with plots.style():
        figure = Figure(figsize=(6.4, 3.2))
        axes = figure.add_axes((0.09, 0.19, 0.88, 0.68))
        axes.plot(numbers, probability, color=plots.BLUE, marker=".", markersize=3, linewidth=1.2)
        axes.axhline(threshold, color=plots.MUTED, linestyle="--", linewidth=0.9, label=f"threshold {threshold:g}")
        if found is not None:
            axes.axvline(found + 1, color=plots.ORANGE, linewidth=1.2, label=f"slice {found + 1}")
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("slice, from inferior to superior")
        axes.set_ylabel("probability of L3")
        axes.set_title("L3 not found" if found is None else f"L3 at slice {found + 1} of {len(probability)}")
        axes.legend(loc="upper right")
        figure.text(0.98, 0.02, USE, ha="right", color=plots.MUTED, fontsize=8)
    return plots.png(figure)
