"""The figures of the L3 study, numbered as in the paper: training curves, and predicted against true slices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hounsfield.evaluation.figures import PREDICTION, TRUTH
from hounsfield.evaluation.metrics import counted
from hounsfield.experiments.study import ARMS
from hounsfield.plots import INK, MUTED, style

COLOURS = {"control": TRUTH, "proposed": PREDICTION}
NAMES = {"control": "without CDP (control)", "proposed": "with CDP (proposed)"}
LINES = {"control": "--", "proposed": "-"}
QUANTITIES = (("train_accuracy", "Training accuracy"), ("train_loss", "Training loss"))


def draw(summary: dict[str, Any]) -> list[tuple[str, Figure, str]]:
    """Name, figure and caption of every figure that the runs of a summary (of `study.summarise`) allow."""
    drawn = []
    mark = " Optimistic: parameters and epoch were chosen by the patients tested." if summary["optimistic"] else ""
    seeds = counted(len(summary["seeds"]), "seed")
    if any(summary["history"].values()):
        caption = (
            f"Figure 3. Training accuracy and loss by epoch, with and without CDP: mean over "
            f"{counted(len(summary['folds']), 'fold')} and {seeds}, band of one standard deviation.{mark}"
        )
        drawn.append(("figure_3_training", training_curves(summary["history"], summary["optimistic"]), caption))
    if any(summary["points"].values()):
        caption = (
            "Figure 4. Predicted against true L3 slice number, every patient tested by the model that never saw it, "
            f"{seeds}. Ideal: slope 1, intercept 0, R² 1.{mark}"
        )
        drawn.append(("figure_4_slices", slice_scatters(summary), caption))
    return drawn


def training_curves(history: dict[str, list[dict[str, Any]]], optimistic: bool) -> Figure:
    """Accuracy and loss of the training by epoch: mean over the runs with a band of one standard deviation."""
    with style():
        figure = Figure(figsize=(8.6, 3.3), layout="constrained")
        panels = figure.subplots(1, 2)
        epochs = max(int(row["epoch"]) for rows in history.values() for row in rows)
        for panel, (name, label) in zip(panels, QUANTITIES, strict=True):
            for arm in ARMS:
                _curve(panel, history[arm], name, arm)
            panel.set(xlabel="Epoch", ylabel=label, xlim=(0.5, epochs + 0.5))
            _whole_epochs(panel, epochs)
        panels[0].set_ylim(top=min(1.02, panels[0].get_ylim()[1]))
        panels[1].set_ylim(bottom=0, top=1.05 * panels[1].get_ylim()[1])
        panels[0].legend(loc="lower right")
        _title(figure, "Training with and without CDP", optimistic)
    return figure


def slice_scatters(summary: dict[str, Any]) -> Figure:
    """Predicted against true slice number, without and with CDP, each with its regression line and R2."""
    with style():
        figure = Figure(figsize=(8.6, 4.1), layout="constrained")
        panels = figure.subplots(1, 2)
        numbers = [
            point[name]
            for arm in ARMS
            for point in summary["points"][arm]
            for name in ("true_slice", "predicted_slice")
        ]
        margin = max(1.0, 0.06 * (max(numbers) - min(numbers)))
        ends = np.array([min(numbers) - margin, max(numbers) + margin])
        for panel, arm in zip(panels, ARMS, strict=True):
            _scatter(panel, summary["points"][arm], summary["arms"][arm], arm, ends)
        _title(figure, "Predicted against true L3 slice", summary["optimistic"])
    return figure


def _curve(panel: Axes, rows: Sequence[dict[str, Any]], name: str, arm: str) -> None:
    if not rows:
        return
    epochs = [row["epoch"] for row in rows]
    mean = np.array([row[f"{name}_mean"] for row in rows])
    sd = np.array([row[f"{name}_sd"] or 0.0 for row in rows])
    low, high = mean - sd, mean + sd
    if name == "train_accuracy":
        high = np.minimum(high, 1.0)
    panel.fill_between(epochs, low, high, color=COLOURS[arm], alpha=0.15, linewidth=0)
    panel.plot(
        epochs,
        mean,
        color=COLOURS[arm],
        linestyle=LINES[arm],
        linewidth=1.6,
        marker="o",
        markersize=3,
        label=NAMES[arm],
    )


def _whole_epochs(panel: Axes, epochs: int) -> None:
    from matplotlib.ticker import MultipleLocator

    panel.xaxis.set_major_locator(MultipleLocator(-(-epochs // 10)))


def _scatter(
    panel: Axes, points: Sequence[dict[str, Any]], line: dict[str, Any], arm: str, ends: np.ndarray[Any, Any]
) -> None:
    panel.plot(ends, ends, color=MUTED, linestyle=":", linewidth=1, label="identity")
    for detected, face, label in ((True, COLOURS[arm], "one series"), (False, "white", "not detected")):
        chosen = [point for point in points if bool(point["detected"]) is detected]
        if chosen:
            panel.plot(
                [point["true_slice"] for point in chosen],
                [point["predicted_slice"] for point in chosen],
                "o",
                color=COLOURS[arm],
                markerfacecolor=face,
                markersize=5,
                alpha=0.75,
                label=label,
            )
    if line["slope"] is not None:
        sign = "+" if line["intercept"] >= 0 else "−"
        label = f"y = {line['slope']:.3f} x {sign} {abs(line['intercept']):.2f}"
        panel.plot(ends, line["slope"] * ends + line["intercept"], color=INK, linewidth=1.2, label=label)
    r2 = "" if line["r2"] is None else f": R² {line['r2']:.3f}"
    panel.set(xlim=ends, ylim=ends, aspect="equal", xlabel="True slice number", ylabel="Predicted slice number")
    panel.set_title(f"{NAMES[arm]}{r2}")
    panel.legend(loc="best")


def _title(figure: Figure, text: str, optimistic: bool) -> None:
    if optimistic:
        figure.suptitle(f"{text} (optimistic)", fontsize=10)
