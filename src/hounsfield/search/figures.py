"""The figures of a search: its history, the importance of parameters, and every trial across all parameters."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hounsfield.plots import BLUE, INK, MUTED, ORANGE, STYLE, style
from hounsfield.search.objective import Objective
from hounsfield.search.space import Choice, Log, Parameter, Space, Value
from hounsfield.search.study import Trial

BEST, SEEN = ORANGE, BLUE


def history(trials: Sequence[Trial], objective: Objective) -> Figure:
    """The objective of every trial and the best so far; failed trials are crosses on the floor."""
    with style():
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.subplots()
        done = [trial for trial in trials if trial.score is not None]
        scores = [trial.score for trial in done if trial.score is not None]
        low, high = min(scores), max(scores)
        pad = max(0.08 * (high - low), 0.01)
        running = np.maximum.accumulate(scores)
        numbers = [trial.number for trial in done]
        axes.step(
            [*numbers, len(trials) - 1], [*running, running[-1]], where="post", color=BEST, linewidth=1.5,
            label="best so far",
        )  # fmt: skip
        for taken, marker, label in ((False, SEEN, "trial"), (True, "white", "outcome taken over")):
            part = [trial for trial in done if (trial.same_as >= 0) == taken]
            if part:
                axes.plot(
                    [trial.number for trial in part],
                    [trial.score or 0.0 for trial in part],
                    "o",
                    markersize=5,
                    markerfacecolor=marker,
                    markeredgecolor=SEEN,
                    label=label,
                )
        failed = [trial.number for trial in trials if trial.score is None]
        if failed:
            axes.plot(failed, [low - pad] * len(failed), "x", color=INK, markersize=6, label="failed", clip_on=False)
        axes.set(xlabel="Trial", ylabel=f"{objective.short} on validation")
        axes.set_ylim(low - pad * (1.6 if failed else 1), high + pad)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title("Objective of every trial", pad=24)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, columnspacing=1.2, handletextpad=0.4)
    return figure


def importance(values: Mapping[str, float], objective: Objective) -> Figure:
    """Share of the objective's variation that each parameter explains, largest on top."""
    ranked = sorted(values.items(), key=lambda item: item[1])
    with style():
        figure = Figure(figsize=(5.2, 0.9 + 0.4 * len(ranked)), layout="constrained")
        axes = figure.subplots()
        bars = axes.barh([label(name) for name, _ in ranked], [value for _, value in ranked], color=SEEN, height=0.62)
        axes.bar_label(bars, fmt="%.2f", padding=3, color=INK, fontsize=8.5)
        axes.set(xlim=(0, 1.08 * max(1e-9, *values.values())), title=f"Importance for {objective.short}")
        axes.set_xlabel("Share of the variation explained")
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
    return figure


def parallel_coordinates(trials: Sequence[Trial], space: Space, objective: Objective, best: Trial) -> Figure:
    """A line per complete trial across one axis per parameter, each on its own scale, coloured by the objective.

    A line is dotted across parameters that the trial does not have.
    """
    done = sorted((t for t in trials if t.score is not None and t.same_as < 0), key=lambda trial: trial.score or 0.0)
    scores = [trial.score or 0.0 for trial in done]
    norm = Normalize(min(scores), max(scores) if max(scores) > min(scores) else min(scores) + 1e-3)
    names = space.names
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(max(5.5, 1.55 * len(names) + 1.2), 3.9), layout="constrained")
        axes = figure.subplots()
        colours = mpl.colormaps["viridis_r"]
        shift = _spread_of_choices(done, space)
        for trial in done:
            points = [
                (place, height(space[name], trial.parameters[name]) + shift.get((trial.number, name), 0.0))
                for place, name in enumerate(names)
                if name in trial.parameters
            ]
            is_best = trial.number == best.number
            whole = [pair for pair in pairwise(points) if pair[1][0] - pair[0][0] == 1]
            gaps = [pair for pair in pairwise(points) if pair[1][0] - pair[0][0] > 1]
            colour = BEST if is_best else colours(norm(trial.score or 0.0))
            width, order = (2.6, 4) if is_best else (1.2, 2)
            for pairs, style in ((whole, "-"), (gaps, ":")):
                lines = LineCollection(pairs, colors=[colour], linewidths=width, linestyles=style, zorder=order)
                axes.add_collection(lines)
            axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=5 if is_best else 3, zorder=order)
        for place, name in enumerate(names):
            _axis(axes, place, space[name])
        axes.set(xlim=(-0.25, len(names) - 0.5), ylim=(-0.09, 1.06))
        axes.set_xticks(range(len(names)), [label(name).replace(" ", "\n", 1) for name in names])
        axes.tick_params(axis="x", length=0, labelcolor=INK, pad=6)
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set_visible(False)
        axes.plot([], [], color=BEST, linewidth=2.6, label=f"best: trial {best.number}")
        axes.legend(loc="upper left", bbox_to_anchor=(0.02, 1.12), borderaxespad=0)
        bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, pad=0.02, aspect=30)
        bar.set_label(f"{objective.short} on validation")
        bar.outline.set_visible(False)
    return figure


def greedy_steps(steps: Sequence[tuple[str, str, Sequence[Trial]]], objective: Objective) -> Figure:
    """A panel per step of a greedy search: the objective on its grid, and the winner that the next steps keep."""
    with style():
        figure = Figure(figsize=(3.0 * len(steps), 3.1), layout="constrained")
        panels = figure.subplots(1, len(steps), sharey=True, squeeze=False)[0]
        for axes, (loss, name, part) in zip(panels, steps, strict=True):
            done = sorted((t for t in part if t.score is not None), key=lambda trial: float(trial.parameters[name]))
            axes.plot([t.parameters[name] for t in done], [t.score for t in done], "o-", color=SEEN, linewidth=1.2)
            winner = max(done, key=lambda trial: (trial.score or 0.0, -trial.number))
            axes.plot([winner.parameters[name]], [winner.score], "o", color=BEST, markersize=9, zorder=3)
            kept = ", ".join(f"{label(k)} {v:g}" for k, v in winner.parameters.items() if k not in ("loss", name))
            axes.set(title=f"{loss.upper()}: best {name} {winner.parameters[name]:g}", xlabel=name)
            if kept:
                axes.annotate(
                    f"with {kept}", (0.5, 0.02), xycoords="axes fraction", ha="center", color=MUTED, fontsize=8
                )
            axes.margins(y=0.12)
        panels[0].set_ylabel(f"{objective.short} on validation")
    return figure


def label(name: str) -> str:
    """A parameter's name for people."""
    return "L2" if name == "l2" else name.replace("_", " ")


def height(parameter: Parameter, value: Value) -> float:
    """Place of a value between the low (0) and the high (1) end of its parameter's own scale."""
    if isinstance(parameter, Choice):
        return parameter.values.index(str(value)) / max(1, len(parameter.values) - 1)
    if isinstance(parameter, Log):
        return float(np.log(float(value) / parameter.low) / np.log(parameter.high / parameter.low))
    return (float(value) - parameter.low) / (parameter.high - parameter.low)


def _axis(axes: Axes, place: int, parameter: Parameter) -> None:
    axes.vlines(place, 0, 1, color=MUTED, linewidth=1, zorder=1)
    if isinstance(parameter, Choice):
        ticks: list[tuple[float, str]] = [(height(parameter, value), value) for value in parameter.values]
    elif isinstance(parameter, Log):
        exponents = range(round(np.log10(parameter.low)), round(np.log10(parameter.high)) + 1)
        ticks = [(height(parameter, 10.0**power), f"$10^{{{power}}}$") for power in exponents]
    else:
        few = parameter.steps <= 5
        steps = range(parameter.steps + 1) if few else (0, parameter.steps // 2, parameter.steps)
        values = [parameter.at(step) for step in steps]
        ticks = [(height(parameter, value), f"{value:g}") for value in values]
    for y, text in ticks:
        axes.plot([place - 0.02, place + 0.02], [y, y], color=MUTED, linewidth=1, zorder=1)
        axes.annotate(
            text, (place, y), xytext=(5, 3), textcoords="offset points", fontsize=7.5, color=INK, zorder=5,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        )  # fmt: skip


def _spread_of_choices(trials: Sequence[Trial], space: Space) -> dict[tuple[int, str], float]:
    """Small shifts that keep the lines of one choice apart, by trial number and parameter."""
    shifts: dict[tuple[int, str], float] = {}
    for parameter in space.parameters:
        if isinstance(parameter, Choice):
            for value in parameter.values:
                same = [t.number for t in trials if t.parameters.get(parameter.name) == value]
                for number, shift in zip(same, np.linspace(-0.035, 0.035, len(same)), strict=True):
                    shifts[number, parameter.name] = float(shift) if len(same) > 1 else 0.0
    return shifts
