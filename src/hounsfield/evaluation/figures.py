"""The figures of a report. Truth is blue, prediction orange (told apart by colour-blind readers, and by line style)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hounsfield.evaluation.decision import Regression
from hounsfield.metrics.histogram import AveragePrecision, Curve
from hounsfield.plots import BLUE, INK, MUTED, ORANGE, style

TRUTH, PREDICTION = BLUE, ORANGE
OVERLAY_TRUTH, OVERLAY_PREDICTION = "#4cc9ff", "#ff9f1c"
Image = npt.NDArray[Any]


def precision_recall(
    curve: Curve,
    average: AveragePrecision,
    point: tuple[float | None, float | None],
    threshold: float,
    prevalence: float,
) -> Figure:
    """The precision-recall curve with the operating `point` (recall, precision) and the prevalence as its floor."""
    with style():
        figure = Figure(figsize=(4.4, 3.6), layout="constrained")
        axes = figure.subplots()
        recall = np.concatenate([[0.0], curve.recall])
        precision = np.concatenate([curve.precision[:1], curve.precision])
        axes.fill_between(recall, precision, step="pre", color=PREDICTION, alpha=0.12, linewidth=0)
        axes.step(recall, precision, where="pre", color=PREDICTION, linewidth=1.6, label=f"AP {average.value:.3f}")
        axes.axhline(prevalence, color=MUTED, linestyle=":", linewidth=1, label=f"prevalence {prevalence:.2%}")
        if point[0] is not None and point[1] is not None:
            label = f"threshold {threshold:g}"
            axes.plot([point[0]], [point[1]], "o", color=INK, markersize=6, label=label, clip_on=False, zorder=3)
        axes.set(
            xlim=(0, 1), ylim=(0, 1.02), xlabel="Recall", ylabel="Precision", title="Precision-recall curve, pooled"
        )
        axes.legend(loc="lower left")
    return figure


def dice_by_patient(dice: Sequence[float], pooled_f1: float | None, mean: float) -> Figure:
    """Dice of each patient, lowest first, with the mean and the pooled F1 as lines."""
    with style():
        figure = Figure(figsize=(4.4, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.vlines(range(1, len(dice) + 1), 0, dice, color=PREDICTION, linewidth=1, alpha=0.5)
        axes.plot(
            range(1, len(dice) + 1), dice, "o", color=PREDICTION, markersize=5, label="one patient", clip_on=False
        )
        axes.axhline(mean, color=INK, linewidth=1.2, label=f"mean Dice {mean:.3f}")
        if pooled_f1 is not None:
            axes.axhline(pooled_f1, color=TRUTH, linestyle="--", linewidth=1.2, label=f"pooled F1 {pooled_f1:.3f}")
        axes.set(
            ylim=(0, 1.02),
            xlim=(0.5, len(dice) + 0.5),
            ylabel="Dice",
            xlabel="Patients, worst first",
            title="Dice per patient",
        )
        _whole_numbers(axes, len(dice))
        axes.legend(loc="lower right")
    return figure


def error_by_series(error_mm: Sequence[float], detected: Sequence[bool], vertebra_mm: float, mean: float) -> Figure:
    """Slice error of each series in mm, largest first; hollow where no slice was positive."""
    with style():
        figure = Figure(figsize=(4.4, 3.6), layout="constrained")
        axes = figure.subplots()
        places = np.arange(1, len(error_mm) + 1)
        found = np.asarray(detected, dtype=bool)
        errors = np.asarray(error_mm)
        axes.vlines(places, 0, errors, color=PREDICTION, linewidth=1, alpha=0.5)
        axes.plot(places[found], errors[found], "o", color=PREDICTION, markersize=5, label="one series", clip_on=False)
        if not found.all():
            axes.plot(
                places[~found], errors[~found], "o", color=PREDICTION, markerfacecolor="white", label="not detected"
            )
        axes.axhline(mean, color=INK, linewidth=1.2, label=f"mean {mean:.1f} mm")
        axes.axhline(vertebra_mm, color=MUTED, linestyle=":", linewidth=1, label=f"one vertebra, {vertebra_mm:g} mm")
        axes.set(ylim=(0, max(*error_mm, vertebra_mm) * 1.1), xlim=(0.5, len(error_mm) + 0.5), ylabel="Slice error, mm")
        axes.set(xlabel="Series, worst first", title="Slice error per series")
        _whole_numbers(axes, len(error_mm))
        axes.legend(loc="upper right")
    return figure


def slice_scatter(true: Sequence[float], predicted: Sequence[float], line: Regression) -> Figure:
    """Predicted against true slice number with the regression line and the identity."""
    with style():
        figure = Figure(figsize=(4.4, 3.6), layout="constrained")
        axes = figure.subplots()
        low, high = min(*true, *predicted), max(*true, *predicted)
        margin = max(1.0, 0.08 * (high - low))
        ends = np.array([low - margin, high + margin])
        axes.plot(ends, ends, color=MUTED, linestyle=":", linewidth=1, label="identity")
        if line.slope is not None and line.intercept is not None:
            sign = "+" if line.intercept >= 0 else "−"
            label = f"y = {line.slope:.3f} x {sign} {abs(line.intercept):.2f}"
            label += f", R² {line.r2:.3f}" if line.r2 is not None else ""
            axes.plot(ends, line.slope * ends + line.intercept, color=INK, linewidth=1.2, label=label)
        axes.plot(true, predicted, "o", color=PREDICTION, markersize=5, alpha=0.85, label="one series")
        axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel="True slice number", ylabel="Predicted slice number")
        axes.set_title("Predicted against true slice")
        axes.legend(loc="best")
    return figure


def tumour_overlay(image: Image, truth: Image, predicted: Image, spacing: tuple[float, float]) -> Figure:
    """A slice, and its part around the tumour twice: as it is, and with both outlines. `spacing` row, column in mm."""
    rows, columns = _around(truth | predicted)
    with style():
        height, width = image.shape[0] * spacing[0], image.shape[1] * spacing[1]
        figure = Figure(figsize=(9.0, 3.05), layout="constrained", facecolor="black")
        axes = figure.subplots(1, 3, gridspec_kw={"width_ratios": [min(1.6, width / height), 1, 1]})
        for place, panel in enumerate(axes):
            _show(panel, image, spacing)
            if place != 1:
                _outline(panel, truth, OVERLAY_TRUTH, "solid")
                _outline(panel, predicted, OVERLAY_PREDICTION, (0, (2.5, 1.5)))
            if place:
                panel.set(xlim=(columns[0] - 0.5, columns[1] + 0.5), ylim=(rows[1] + 0.5, rows[0] - 0.5))
        box = (
            [columns[0], columns[1], columns[1], columns[0], columns[0]],
            [rows[0], rows[0], rows[1], rows[1], rows[0]],
        )
        axes[0].plot(*box, color="white", linewidth=0.6, alpha=0.7)
        _sides(axes[0])
        _scale_bar(axes[0], 50, spacing, image.shape[1])
        _scale_bar(axes[2], 10, spacing, columns[1] - columns[0], columns[0], rows[1])
    return figure


def slice_pair(
    predicted: Image,
    true: Image,
    spacing: tuple[float, float],
    numbers: Sequence[int],
    probability: npt.NDArray[np.float32],
    labelled: Sequence[int],
    centres: tuple[float, float],
    threshold: float,
) -> Figure:
    """Predicted slice, true slice, and the probability by slice number. `centres` are predicted and true numbers."""
    with style():
        figure = Figure(figsize=(9.0, 2.5), layout="constrained")
        axes = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1, 1, 1.25]})
        for panel, image, name, colour in (
            (axes[0], predicted, f"Predicted: slice {centres[0]:g}", PREDICTION),
            (axes[1], true, f"True: slice {centres[1]:g}", TRUTH),
        ):
            _show(panel, image, spacing)
            _sides(panel)
            panel.set_title(name, color=colour)
        panel = axes[2]
        panel.axvspan(
            min(labelled) - 0.5, max(labelled) + 0.5, color=TRUTH, alpha=0.18, linewidth=0, label="labelled L3"
        )
        panel.plot(numbers, probability, color=PREDICTION, linewidth=1.3, label="probability")
        panel.axvline(centres[1], color=TRUTH, linewidth=1.2, label="true centre")
        panel.axvline(centres[0], color=PREDICTION, linestyle="--", linewidth=1.2, label="predicted")
        panel.axhline(threshold, color=MUTED, linestyle=":", linewidth=1)
        panel.set(ylim=(-0.02, 1.05), xlabel="Slice number, inferior to superior", ylabel="Probability of L3")
        panel.legend(loc="best")
    return figure


def _whole_numbers(axes: Axes, count: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=min(count, 10), integer=True))
    axes.grid(axis="x", visible=False)


def _show(axes: Axes, image: Image, spacing: tuple[float, float]) -> None:
    white = 255 if image.dtype == np.uint8 else max(float(np.percentile(image, 99)), 1e-6)
    axes.imshow(image, cmap="gray", vmin=0, vmax=white, aspect=spacing[0] / spacing[1], interpolation="bilinear")
    axes.set_axis_off()


def _sides(axes: Axes) -> None:
    """The patient's right is on the left of the picture."""
    for x, side in ((0.02, "R"), (0.98, "L")):
        axes.text(x, 0.5, side, transform=axes.transAxes, color="white", ha="left" if x < 0.5 else "right", va="center")


def _outline(axes: Axes, mask: Image, colour: str, style: Any) -> None:
    if mask.any():
        axes.contour(
            np.pad(mask, 1),
            levels=[0.5],
            colors=[colour],
            linestyles=[style],
            linewidths=1.2,
            extent=(-1, mask.shape[1], -1, mask.shape[0]),
        )


def _scale_bar(
    axes: Axes,
    length_mm: float,
    spacing: tuple[float, float],
    width: float,
    left: float = 0,
    bottom: float | None = None,
) -> None:
    bottom = axes.get_ylim()[0] if bottom is None else bottom
    x, y = left + 0.05 * width, bottom - 0.06 * width
    axes.plot([x, x + length_mm / spacing[1]], [y, y], color="white", linewidth=2, solid_capstyle="butt")
    axes.text(x, y - 0.02 * width, f"{length_mm:g} mm", color="white", fontsize=7.5, va="bottom")


def _around(mask: Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last row and column of a square around the mask, at least a quarter of the image, inside it."""
    if not mask.any():
        return (0, mask.shape[0] - 1), (0, mask.shape[1] - 1)
    spans = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    side = max(*(int(span[-1] - span[0]) + 1 for span in spans), max(mask.shape) // 8) * 3 // 2
    limits = []
    for span, size in zip(spans, mask.shape, strict=True):
        extent = min(side, size)
        first = int(np.clip((int(span[0]) + int(span[-1]) + 1 - extent) // 2, 0, size - extent))
        limits.append((first, first + extent - 1))
    return limits[0], limits[1]
