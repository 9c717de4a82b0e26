"""The page of a gate's decision: verdict, reasons, figures with intervals, patients and subgroups."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hounsfield.evaluation.bootstrap import Difference, Floats
from hounsfield.evaluation.gate import Decision, Group, Limit, Measure, Rules
from hounsfield.evaluation.report import UNDEFINED
from hounsfield.pages import render
from hounsfield.plots import BLUE, INK, MUTED, ORANGE, style, svg


def gate_page(
    title: str,
    decision: Decision,
    rules: Rules,
    pairs: Mapping[str, Floats],
    resolution: float,
    provenance: Sequence[tuple[str, str]],
) -> str:
    """Self-contained HTML.

    Args:
        pairs: by title, challenger and champion of each patient (2, patients); plotted against each other.
        resolution: error of the average precision that the histograms' bins bring, 0 where there are none.
        provenance: name and value of what was compared.
    """
    by_name = {item.name: item for item in decision.measures}
    method = [
        "Difference: challenger minus champion. Interval: 95 %, percentile bootstrap over patients, paired: "
        f"{rules.resamples:,} resamples with seed {rules.seed}, each with both models on the same drawn patients."
    ]
    if resolution:
        method.append(
            "The average precision comes from each patient's histogram of scores, whose bins move it by up to "
            f"{resolution:.2g} from the exact one of the evaluations."
        )
    margins = ", ".join(f"{item.title} {_value(item, item.margin)}" for item in decision.measures)
    return render(
        Path(__file__).with_name("gate.html.j2"),
        title=title,
        subtitle=f"{decision.carrying} patients carry the verdict; policy {rules.policy}",
        tiles=[
            {"name": "verdict", "value": "new champion" if decision.promote else "champion stays"},
            *(
                {"name": f"{item.title}, difference", "value": _judged(item, decision.differences[item.name])}
                for item in decision.measures
            ),
        ],
        reasons=decision.reasons,
        overall={
            "columns": ["figure", "challenger", "champion", "difference", "95 % interval", "margin"],
            "rows": [_row(by_name[name], found, decision.limits[name]) for name, found in decision.differences.items()],
        },
        method=method,
        plots=[{"svg": svg(scatter(name, both)), "caption": _counted(name, both)} for name, both in pairs.items()],
        forest={
            "svg": svg(intervals(decision)),
            "caption": "Gain over the champion in units of the loss that is put up with, with its 95 % interval. Of "
            f"all patients that is the margin (of a rate one case at least), of a subgroup {_limits(rules)}. Left of "
            f"-1 lies beyond it: the end of the interval counts for the {decision.measures[0].title} of all patients, "
            "the point for the others. A limit of 0 is drawn as 1.",
        },
        subgroups={
            "columns": ["subgroup", "patients", *(f"{item.title}, difference" for item in decision.measures), "judged"],
            "marked": [place for place, group in enumerate(decision.groups) if group.worse(decision.measures)],
            "rows": [
                [
                    f"{group.kind}: {group.name}",
                    group.patients,
                    *(_with_interval(item, group.differences[item.name]) for item in decision.measures),
                    _outcome(decision, group),
                ]
                for group in decision.groups
            ],
            "note": f"A judged subgroup forbids the promotion when its difference is worse than {_limits(rules)}, "
            "whatever its interval.",
        },
        unknown=[
            f"{kind} unknown: {_patients(count, decision.carrying)}, in no group"
            for kind, count in decision.unknown.items()
        ],
        provenance=[
            *provenance,
            ("Policy", rules.policy),
            ("Margins", margins),
            ("A subgroup may lose", _limits(rules)),
            ("Patients needed", f"{rules.min_patients}, in a subgroup {rules.min_subgroup_patients}"),
        ],
    )


def scatter(name: str, both: Floats) -> Figure:
    """Challenger against champion of each patient, with the line on which they are equal."""
    with style():
        figure = Figure(figsize=(4.4, 3.8), layout="constrained")
        axes = figure.subplots()
        shown = both[:, np.isfinite(both).all(axis=0)]
        low, high = (float(shown.min()), float(shown.max())) if shown.size else (0.0, 1.0)
        room = 0.05 * (high - low) or 0.05
        ends = (low - room, high + room)
        axes.plot(ends, ends, color=MUTED, linestyle=":", linewidth=1, label="no difference")
        axes.plot(shown[1], shown[0], "o", color=ORANGE, markersize=5, alpha=0.8, label="one patient")
        axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel="Champion", ylabel="Challenger", title=name)
        axes.legend(loc="best")
    return figure


def intervals(decision: Decision) -> Figure:
    """The gain in each figure, in units of its limit, of all patients and of the judged subgroups."""
    lines: list[tuple[str, float, float, float, str]] = []
    for item, colour in zip(decision.measures, (BLUE, ORANGE), strict=True):
        own = [("all patients", decision.differences[item.name], decision.limits[item.name])]
        own += [
            (f"{group.kind} {group.name}", group.differences[item.name], group.limits[item.name])
            for group in decision.groups
            if group.judged
        ]
        for name, found, limit in own:
            if found.difference is not None and found.low is not None and found.high is not None:
                scale = limit.loss or 1.0
                low, high = sorted((item.gain(found.low) / scale, item.gain(found.high) / scale))
                lines.append((f"{name}: {item.title}", item.gain(found.difference) / scale, low, high, colour))
    with style():
        figure = Figure(figsize=(9.6, 1.0 + 0.24 * len(lines)), layout="constrained")
        axes = figure.subplots()
        for place, (_, gain, low, high, colour) in enumerate(lines):
            axes.hlines(place, low, high, color=colour, linewidth=1.6)
            axes.plot([gain], [place], "o", color=colour, markersize=5)
        axes.axvline(0, color=INK, linewidth=1)
        axes.axvline(-1, color=MUTED, linestyle="--", linewidth=1)
        axes.set_yticks(range(len(lines)), [line[0] for line in lines])
        axes.set(xlabel="Gain / loss that is put up with", ylim=(len(lines) - 0.5, -0.5), title="Differences")
    return figure


def _value(item: Measure, value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.{item.digits}f}{' ' + item.unit if item.unit else ''}"


def _change(item: Measure, found: Difference) -> str:
    return UNDEFINED if found.difference is None else item.shown(found.difference)


def _judged(item: Measure, found: Difference) -> str:
    if found.difference is None:
        return UNDEFINED
    gain = item.gain(found.difference)
    return f"{item.shown(found.difference)}, {'better' if gain > 0 else 'worse' if gain < 0 else 'equal'}"


def _limits(rules: Rules) -> str:
    if rules.subgroup_margin == 1:
        return "one margin, of a rate the weight of one case at least"
    return f"{rules.subgroup_margin:g} margins, of a rate the weight of {rules.subgroup_margin:g} cases at least"


def _outcome(decision: Decision, group: Group) -> str:
    if not group.judged:
        return "no, too few"
    return "yes: worse" if group.worse(decision.measures) else "yes: passes"


def _patients(count: int, of: int) -> str:
    return f"all {of} patients" if count == of else f"{count} patient{'s' if count > 1 else ''}"


def _interval(item: Measure, found: Difference) -> str:
    if found.low is None or found.high is None:
        return UNDEFINED
    return f"{found.low:+.{item.digits}f} to {found.high:+.{item.digits}f}"


def _with_interval(item: Measure, found: Difference) -> str:
    return UNDEFINED if found.difference is None else f"{_change(item, found)}\n({_interval(item, found)})"


def _row(item: Measure, found: Difference, limit: Limit) -> list[Any]:
    better = "higher is better" if item.higher_is_better else "lower is better"
    margin = _value(item, limit.loss) + (" (one case)" if limit.loss > item.margin else "")
    figures = [_value(item, found.challenger), _value(item, found.champion), _change(item, found)]
    return [f"{item.title} ({better})", *figures, _interval(item, found), margin]


def _counted(name: str, both: Floats) -> str:
    known = int(np.isfinite(both).all(axis=0).sum())
    above, below = int((both[0] > both[1]).sum()), int((both[0] < both[1]).sum())
    return (
        f"{name} of {known} patients: {above} higher with the challenger, {below} lower, {known - above - below} equal."
    )
