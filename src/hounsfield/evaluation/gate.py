"""Whether a challenger takes the champion's place, from both models' figures on the same frozen test patients.

Better: the 95 % interval of the headline figure's gain lies above 0. Not worse: it lies above minus the margin, which
is the usual test of non-inferiority. A group of patients is worse when its own gain is below minus the margin, whatever
the interval: groups are small, and their intervals wide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hounsfield.evaluation.bootstrap import Difference, Figure, paired_difference

Policy = Literal["better", "simpler", "newer"]
HEADLINE = {"lung-tumour": "average_precision", "l3-slice": "slice_error_mm"}
"""The figure that decides, by task."""
KINDS = ("tumour site", "slice thickness", "manufacturer")


@dataclass(frozen=True)
class Measure:
    """A figure of which the margin speaks; `headline` decides, the others only forbid."""

    name: str
    title: str
    figure: Figure
    margin: float
    higher_is_better: bool
    unit: str = ""
    digits: int = 4

    def gain(self, change: float) -> float:
        """A difference of challenger and champion, positive where the challenger is better."""
        return change if self.higher_is_better else -change

    def shown(self, value: float) -> str:
        """With sign and unit."""
        return f"{value:+.{self.digits}f}{' ' + self.unit if self.unit else ''}"


@dataclass(frozen=True)
class Rules:
    """What the user sets; see the configuration of the step compare_models."""

    policy: Policy
    min_patients: int
    min_subgroup_patients: int
    resamples: int
    seed: int


@dataclass(frozen=True)
class Group:
    """Patients that have something in common, and the figures' differences among them by name."""

    kind: str
    name: str
    patients: int
    differences: dict[str, Difference]
    judged: bool
    """Whether it has enough patients to forbid a promotion."""


@dataclass(frozen=True)
class Decision:
    """The verdict; `measures` and `differences` begin with the headline figure."""

    promote: bool
    reasons: list[str]
    measures: list[Measure]
    differences: dict[str, Difference]
    groups: list[Group]
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
        groups: of each patient, the name of its group by kind (`KINDS`); an empty name is none.
        parameters: number of parameters of the challenger and of the champion.
    """
    differences = {item.name: paired_difference(item.figure, rules.resamples, rules.seed) for item in measures}
    found = grouped(measures, carrying, groups, rules)
    enough = sum(carrying)
    refusals = []
    if enough < rules.min_patients:
        refusals.append(
            f"Too few patients carry the verdict: {enough} of the {len(carrying)} test patients have what the "
            f"{measures[0].title} rests on, at least {rules.min_patients} are asked for."
        )
    headline = differences[measures[0].name]
    if headline.difference is None or headline.low is None or headline.high is None:
        refusals.append(f"The {measures[0].title} is undefined on these patients.")
        return Decision(False, refusals, list(measures), differences, found, enough)
    merit, for_it = judged_headline(
        measures[0], (headline.difference, headline.low, headline.high), parameters, rules.policy
    )
    if not for_it:
        refusals.append(merit)
    refusals += [
        sentence
        for item in measures[1:]
        if (sentence := worse(item, differences[item.name], f"{item.title[0].upper()}{item.title[1:]} falls behind"))
    ]
    for group in found:
        for item in measures if group.judged else ():
            begin = f"Among the {group.patients} patients of {group.kind} {group.name} the {item.title} falls behind"
            if sentence := worse(item, group.differences[item.name], begin):
                refusals.append(sentence)
    if refusals:
        if for_it:
            refusals.append(f"Without that it would have become champion: {merit[0].lower()}{merit[1:]}")
        return Decision(False, refusals, list(measures), differences, found, enough)
    judged = sum(group.judged for group in found)
    watched = (
        f"No other figure and none of the {judged} subgroups with enough patients is worse beyond its margin."
        if judged
        else "No other figure is worse beyond its margin; no subgroup has enough patients to be judged."
    )
    return Decision(True, [merit, watched], list(measures), differences, found, enough)


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


def worse(measure: Measure, found: Difference, begin: str) -> str:
    """A sentence when the challenger is worse by more than the margin, else an empty text."""
    if found.difference is None or measure.gain(found.difference) >= -measure.margin:
        return ""
    return f"{begin} by more than the margin of {measure.shown(measure.margin)[1:]}: {measure.shown(found.difference)}."


def grouped(
    measures: Sequence[Measure], carrying: Sequence[bool], groups: Sequence[Mapping[str, str]], rules: Rules
) -> list[Group]:
    """The groups in the order of `KINDS` and of their names; patients that carry nothing are counted in none."""
    found = []
    for kind in KINDS:
        names = np.array([group.get(kind, "") for group in groups], dtype=object)
        for name in sorted(set(names) - {""}):
            chosen = np.asarray(names == name, dtype=bool)
            own = {
                item.name: paired_difference(item.figure.among(chosen), rules.resamples, rules.seed)
                for item in measures
            }
            count = int(np.count_nonzero(chosen & np.asarray(carrying, dtype=bool)))
            found.append(Group(kind, str(name), count, own, count >= rules.min_subgroup_patients))
    return found
