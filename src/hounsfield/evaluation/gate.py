"""Whether a challenger takes the champion's place, from both models' figures on the same frozen test patients.

Better: the 95 % interval of the headline figure's gain lies above 0. Not worse: it lies above minus the margin, which
is the usual test of non-inferiority. A group of patients is worse when its own loss is more than so many margins,
whatever the interval: groups are small, and their intervals wide. Of a rate the margin is one case at least, as a
smaller loss does not exist.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hounsfield.evaluation.bootstrap import Difference, Figure, MeanFigure, paired_difference

Policy = Literal["better", "simpler", "newer"]
HEADLINE = {"lung-tumour": "average_precision", "l3-slice": "slice_error_mm"}
"""The figure that decides, by task."""
KINDS = ("tumour site", "slice thickness", "manufacturer")


@dataclass(frozen=True)
class Limit:
    """The loss that is put up with, and in words."""

    loss: float
    text: str


@dataclass(frozen=True)
class Measure:
    """A figure of which the margin speaks. A `rate` is a mean over cases that count 0 or 1."""

    name: str
    title: str
    figure: Figure
    margin: float
    higher_is_better: bool
    unit: str = ""
    digits: int = 4
    rate: bool = False

    def gain(self, change: float) -> float:
        """A difference of challenger and champion, positive where the challenger is better."""
        return change if self.higher_is_better else -change

    def shown(self, value: float) -> str:
        """With sign and unit."""
        return f"{value:+.{self.digits}f}{' ' + self.unit if self.unit else ''}"

    def limit(self, figure: Figure, margins: float = 1.0) -> Limit:
        """Of some patients, whose `figure` it is: so many margins, of a rate the weight of so many cases at least."""
        margin = self.shown(self.margin)[1:]
        cases = float(figure.cases.sum()) if self.rate and isinstance(figure, MeanFigure) else 0.0
        if cases and 1 / cases > self.margin:
            loss = margins / cases
            weight = f"the weight of {margins:g} of {cases:g} cases ({self.shown(loss)[1:]}"
            return Limit(loss, f"{weight}, one case being more than the margin of {margin})")
        return Limit(
            margins * self.margin, f"the margin of {margin}" if margins == 1 else f"{margins:g} margins of {margin}"
        )

    def falls_behind(self, found: Difference, limit: Limit) -> bool:
        """Whether the loss is more than the limit, whatever its interval."""
        if found.difference is None:
            return False
        loss = -self.gain(found.difference)
        return loss > limit.loss and not math.isclose(loss, limit.loss)


@dataclass(frozen=True)
class Rules:
    """What the user sets; see the configuration of the step compare_models."""

    policy: Policy
    min_patients: int
    subgroup_margin: float
    """How many margins a subgroup may lose."""
    min_subgroup_patients: int
    resamples: int
    seed: int


@dataclass(frozen=True)
class Group:
    """Patients that have something in common, and the figures' differences and limits among them by name."""

    kind: str
    name: str
    patients: int
    differences: dict[str, Difference]
    limits: dict[str, Limit]
    judged: bool
    """Whether it has enough patients to forbid a promotion."""

    def worse(self, measures: Sequence[Measure]) -> list[Measure]:
        """The figures by which it forbids a promotion."""
        return [
            item
            for item in measures
            if self.judged and item.falls_behind(self.differences[item.name], self.limits[item.name])
        ]


@dataclass(frozen=True)
class Decision:
    """The verdict; `measures`, `differences` and `limits` begin with the headline figure."""

    promote: bool
    reasons: list[str]
    measures: list[Measure]
    differences: dict[str, Difference]
    limits: dict[str, Limit]
    groups: list[Group]
    unknown: dict[str, int]
    """By kind, how many of the patients that carry the verdict are in none of its groups."""
    carrying: int
    """Patients on whom the headline figure rests."""

    @property
    def reason(self) -> str:
        return " ".join(self.reasons)


def decide(
    measures: Sequence[Measure],
    carrying: Sequence[bool],
    groups: Sequence[Mapping[str, str]],
    parameters: tuple[int, int],
    rules: Rules,
) -> Decision:
    """Whether the challenger takes the champion's place.

    Args:
        measures: the headline figure first; each over the same patients in the same order.
        carrying: whether each patient has what the headline figure rests on, such as a tumour.
        groups: of each patient, the name of its group by kind (`KINDS`); an empty name is unknown.
        parameters: number of parameters of the challenger and of the champion.
    """
    differences = {item.name: paired_difference(item.figure, rules.resamples, rules.seed) for item in measures}
    limits = {item.name: item.limit(item.figure) for item in measures}
    found = grouped(measures, carrying, groups, rules)
    enough = sum(carrying)
    unknown = {
        kind: count
        for kind in KINDS
        if (count := sum(group.get(kind) == "" for group, own in zip(groups, carrying, strict=True) if own))
    }

    def decision(promote: bool, reasons: list[str]) -> Decision:
        return Decision(promote, reasons, list(measures), differences, limits, found, unknown, enough)

    refusals = []
    if enough < rules.min_patients:
        refusals.append(
            f"Too few patients carry the verdict: {enough} of the {len(carrying)} test patients have what the "
            f"{measures[0].title} rests on, at least {rules.min_patients} are asked for."
        )
    headline = differences[measures[0].name]
    if headline.difference is None or headline.low is None or headline.high is None:
        refusals.append(f"The {measures[0].title} is undefined on these patients.")
        return decision(False, refusals)
    merit, for_it = judged_headline(
        measures[0], (headline.difference, headline.low, headline.high), parameters, rules.policy
    )
    if not for_it:
        refusals.append(merit)
    for item in measures[1:]:
        own, limit = differences[item.name], limits[item.name]
        if item.falls_behind(own, limit):
            refusals.append(f"{item.title[0].upper()}{item.title[1:]} {behind(item, own, limit)}")
    for group in found:
        for item in group.worse(measures):
            refusals.append(
                f"Among the {group.patients} patients of {group.kind} {group.name} the {item.title} "
                f"{behind(item, group.differences[item.name], group.limits[item.name])}"
            )
    if refusals:
        if for_it:
            refusals.append(f"Without that it would have become champion: {merit[0].lower()}{merit[1:]}")
        return decision(False, refusals)
    judged = sum(group.judged for group in found)
    watched = (
        f"No other figure and none of the {judged} subgroups with enough patients is worse beyond its limit."
        if judged
        else "No other figure is worse beyond its margin; no subgroup has enough patients to be judged."
    )
    within = [
        f"The {item.title} loses no more than {limits[item.name].text}: {item.shown(own.difference)}."
        for item in measures[1:]
        if (own := differences[item.name]).difference is not None and item.gain(own.difference) < -item.margin
    ]
    return decision(True, [merit, watched, *within])


def judged_headline(
    measure: Measure, interval: tuple[float, float, float], parameters: tuple[int, int], policy: Policy
) -> tuple[str, bool]:
    """A sentence on the headline figure, and whether it speaks for the challenger under the policy.

    `interval` is the difference with the lower and the upper end of its 95 % interval.
    """
    difference, low, high = interval
    gains = measure.gain(low), measure.gain(high)
    least, most = min(gains), max(gains)
    what = (
        f"the {measure.title} differs by {measure.shown(difference)} "
        f"(95 % interval {measure.shown(low)} to {measure.shown(high)})"
    )
    margin = measure.shown(measure.margin)[1:]
    if least > 0:
        return f"It is better: {what}.", True
    if least < -measure.margin:
        how = "It is worse" if most < 0 else "It is not shown to be as good"
        return f"{how}: {what}, and a loss of more than the margin of {margin} is not excluded.", False
    not_worse = f"not worse within the margin of {margin}"
    new, old = parameters
    if policy == "better":
        return f"It is {not_worse}, but not better, which the policy asks for: {what}.", False
    if policy == "newer":
        return f"It is {not_worse} and newer: {what}.", True
    if new < old:
        return f"It is {not_worse} and simpler, with {new:,} parameters instead of {old:,}: {what}.", True
    return (
        f"It is {not_worse}, but not simpler, which the policy asks for: it has {new:,} parameters, the champion "
        f"{old:,}; {what}."
    ), False


def behind(measure: Measure, found: Difference, limit: Limit) -> str:
    """The end of a sentence on a loss beyond its limit."""
    return f"falls behind by more than {limit.text}: {measure.shown(found.difference or 0.0)}."


def grouped(
    measures: Sequence[Measure], carrying: Sequence[bool], groups: Sequence[Mapping[str, str]], rules: Rules
) -> list[Group]:
    """The groups in the order of `KINDS` and of their names; patients that carry nothing are counted in none."""
    found = []
    for kind in KINDS:
        names = np.array([group.get(kind, "") for group in groups], dtype=object)
        for name in sorted(set(names) - {""}):
            chosen = np.asarray(names == name, dtype=bool)
            figures = {item.name: item.figure.among(chosen) for item in measures}
            count = int(np.count_nonzero(chosen & np.asarray(carrying, dtype=bool)))
            group = Group(
                kind=kind,
                name=str(name),
                patients=count,
                differences={
                    key: paired_difference(figure, rules.resamples, rules.seed) for key, figure in figures.items()
                },
                limits={item.name: item.limit(figures[item.name], rules.subgroup_margin) for item in measures},
                judged=count >= rules.min_subgroup_patients,
            )
            found.append(group)
    return found
