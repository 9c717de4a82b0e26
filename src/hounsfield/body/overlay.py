"""A picture of a slice's tissues, to check a body composition by eye."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from hounsfield import plots
from hounsfield.body.composition import Composition

COLOURS = {"subcutaneous": plots.BLUE, "visceral": "#f2c811", "intermuscular": "#3aa655", "muscle": "#d62f2f"}
RESEARCH = "Research use only."
_WINDOW = (-160, 240)


def overlay(
    hu: npt.NDArray[np.integer[Any]], spacing: tuple[float, float], result: Composition, footer: str = RESEARCH
) -> bytes:
    """The slice `hu` (rows, columns) around the body and the same with the masks of `result` over it, as PNG.

    `spacing` in mm (row, column). Figures that are withheld are named so in the legend; the doubts stand below, and
    under them the `footer`.
    """
    shown_part = _around(result.masks["body"], spacing)
    colours = np.zeros((*hu.shape, 4))
    for name, colour in COLOURS.items():
        colours[result.masks[name] > 0] = to_rgba(colour, 0.42)
    with plots.style():
        figure = Figure(figsize=(11, 5.6))
        for axes, shown in zip(figure.subplots(1, 2), (False, True), strict=True):
            axes.imshow(hu[shown_part], cmap="gray", vmin=_WINDOW[0], vmax=_WINDOW[1], aspect=spacing[0] / spacing[1])
            if shown:
                axes.imshow(colours[shown_part], interpolation="nearest", aspect=spacing[0] / spacing[1])
            axes.set_axis_off()
        patches = [Patch(color=colour, label=_label(name, result)) for name, colour in COLOURS.items()]
        figure.legend(handles=patches, loc="upper center", ncols=4)
        sentences = [*result.doubts, *footer.splitlines()]
        figure.text(0.02, 0.01, "\n".join(sentences), va="bottom", fontsize=7.5)
        figure.subplots_adjust(left=0.01, right=0.99, top=0.92, bottom=0.04 + 0.026 * len(sentences), wspace=0.02)
        return plots.png(figure)


def _around(body: npt.NDArray[np.uint8], spacing: tuple[float, float]) -> tuple[slice, slice]:
    """Rows and columns of the body and 15 mm around it; all where there is none."""
    rows, columns = (
        slice(max(0, found[0] - room), found[-1] + room + 1) if (found := np.flatnonzero(body.any(axis=1 - axis))).size
        else slice(None)
        for axis, room in enumerate(round(15 / edge) for edge in spacing)
    )  # fmt: skip
    return rows, columns


def _label(name: str, result: Composition) -> str:
    if name not in result.measures:
        return f"{name} fat"
    measure = result.measures[name]
    figure = "withheld" if measure is None else f"{measure.area:.1f} cm²"
    return f"{name if name == 'muscle' else name + ' fat'}: {figure}"
