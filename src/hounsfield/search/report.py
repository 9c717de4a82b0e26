"""The self-contained HTML report of a search, and its figures as files."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hounsfield.pages import render
from hounsfield.search.result import FIGURES, REPORT, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hounsfield.search.space import Value
    from hounsfield.search.study import Trial

UNDEFINED = "–"
FEWEST_FOR_IMPORTANCE = 8
"""Below this many different trials a share of variation would be noise."""
SPLITS = {False: "validation patients of the training patients", True: "TEST patients (optimistic)"}


STRATEGIES = {
    "bayesian": "Bayesian optimisation",
    "greedy": "greedy, one parameter after the other",
    "tpe": "tree-structured Parzen estimators",
    "random": "random search",
}


def write_report(directory: Path, result: Result, given: Mapping[str, "Value"], provenance: Mapping[str, str]) -> None:
    """Write report.html and figures/*.png and *.svg; `given` is the configuration that the search started from."""
    (directory / FIGURES).mkdir()
    plots: list[dict[str, Any]] = []
    notes: list[str] = []
    if result.best is not None:
        for name, figure, caption, wide in draw(result, notes):
            from hounsfield.plots import png, svg

            image = svg(figure)
            (directory / FIGURES / f"{name}.svg").write_text(image, encoding="utf-8")
            (directory / FIGURES / f"{name}.png").write_bytes(png(figure, dpi=150))
            plots.append({"svg": image, "caption": caption, "wide": wide})
    page = {
        "title": f"{result.space.task}: search of parameters",
        "subtitle": subtitle(result),
        "caveats": caveats(result),
        "tiles": tiles(result),
        "meaning": meaning(result) + notes,
        "best": best_table(result, given),
        "command": " ".join(settings(result)),
        "repeats": repeats_table(result),
        "steps": steps_table(result),
        "plots": plots,
        "trials": trials_table(result),
        "given": {"columns": ["parameter", "value"], "rows": [[name, text(value)] for name, value in given.items()]},
        "provenance": [
            ("Study", provenance["identity"]),
            ("Slice set", provenance["slice_set_hash"]),
            ("Dataset", provenance["dataset_hash"]),
            ("Code", f"hounsfield {provenance['code_version']}"),
        ],
    }
    html = render(Path(__file__).with_name("report.html.j2"), **page)
    (directory / REPORT).write_text(html, encoding="utf-8")


def draw(result: Result, notes: list[str]) -> list[tuple[str, "Figure", str, bool]]:
    """Name, figure, caption and whether it takes the page's width; what cannot be drawn is said in `notes`."""
    from hounsfield.search import figures, greedy

    assert result.best is not None
    objective = result.objective
    drawn: list[tuple[str, Figure, str, bool]] = [
        (
            "history",
            figures.history(result.trials, objective),
            "Each trial in its order, and the best objective until then.",
            False,
        )
    ]
    if result.strategy == "greedy":
        steps = greedy.steps(result.grids, result.trials)
        caption = "Each step varies one parameter on its grid and keeps the winners of the steps before."
        drawn.append(("steps", figures.greedy_steps(steps, objective), caption, True))
    else:
        shares, why_not = importance(result)
        if shares:
            caption = "Share of the objective's variation that a parameter explains over the whole space (fANOVA)."
            drawn.append(("importance", figures.importance(shares, objective), caption, False))
        else:
            notes.append(why_not)
    caption = "One line per trial; a dotted line crosses parameters that the trial's loss does not have."
    lines = figures.parallel_coordinates(result.trials, result.space, objective, result.best)
    drawn.append(("parallel_coordinates", lines, caption, True))
    return drawn


def importance(result: Result) -> tuple[dict[str, float], str]:
    """Importance of the parameters by functional ANOVA (Hutter et al. 2014), or none and why.

    Failed trials and outcomes that were taken over do not count.
    """
    import optuna

    from hounsfield.search.proposals import in_memory

    counted = [trial for trial in result.trials if trial.score is not None and trial.same_as < 0]
    if len(counted) < FEWEST_FOR_IMPORTANCE:
        return {}, (
            f"The importance of the parameters needs {FEWEST_FOR_IMPORTANCE} different trials that ended well; "
            f"there are {len(counted)}."
        )
    if len({trial.score for trial in counted}) == 1:
        return {}, "Every trial has the same objective, so no parameter is more important than another."
    study = in_memory(result.space, counted)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator)), ""


def subtitle(result: Result) -> str:
    """What was searched, how, and on which patients."""
    strategy = STRATEGIES[result.strategy]
    fold = f", fold {result.fold} held out" if result.fold >= 0 else ""
    return f"space {result.space.name}; {strategy}; {result.objective.formula} on {SPLITS[result.optimistic]}{fold}"


def caveats(result: Result) -> list[str]:
    """What a reader must know before using the figures."""
    texts = []
    if result.optimistic:
        texts.append(
            "Optimistic: parameters and epochs were chosen on the test patients, who are therefore no longer unseen. "
            "Figures on them afterwards are too good."
        )
    return texts


def meaning(result: Result) -> list[str]:
    """How to read the objective."""
    if result.best is None:
        return ["No search: with 0 trials the given parameters stay as they are."]
    texts = [
        f"{result.objective.short} is pooled over all pixels or slices of the patients on which the search measures. "
        "The best of many trials is partly luck: a figure to publish comes from patients that the search has not seen."
    ]
    if result.objective.name == "f1":
        texts.append("Recorded as the paper's objective 1 / max(F1, 0.01); the search maximises F1 itself.")
    return texts


def tiles(result: Result) -> list[dict[str, str]]:
    """The headline figures."""
    if result.best is None:
        return []
    spread, failed = result.spread, sum(trial.state == "failed" for trial in result.trials)
    shown = [
        {"name": f"best {result.objective.short}, trial {result.best.number}", "value": score(result.best)},
        {"name": "trials", "value": str(len(result.trials))},
        {"name": "failed", "value": str(failed)},
        {"name": "seconds of training", "value": f"{sum(t.seconds for t in (*result.trials, *result.repeats)):.0f}"},
    ]
    if spread.sd is not None:
        value = f"{spread.mean:.3f} ± {spread.sd:.3f}"
        shown.insert(1, {"name": f"winner over {spread.n} seeds, mean ± SD", "value": value})
    return shown


def settings(result: Result) -> list[str]:
    """The best parameters as settings of `hounsfield run`."""
    return [f"--set {name}={text(value)}" for name, value in result.parameters.items()]


def best_table(result: Result, given: Mapping[str, "Value"]) -> dict[str, Any] | None:
    if result.best is None:
        return None
    rows = []
    for name, value in result.parameters.items():
        note = "fixed" if name in result.space.fixed else scale(result, name)
        rows.append([name, text(value), text(given[name]), note])
    return {"columns": ["parameter", "best", "given", "searched over"], "rows": rows}


def scale(result: Result, name: str) -> str:
    """Range and scale of a searched parameter."""
    from hounsfield.search.space import Choice, Log

    if name in result.grids:
        return ", ".join(f"{value:g}" for value in result.grids[name])
    parameter = result.space[name]
    if isinstance(parameter, Choice):
        return ", ".join(parameter.values)
    if isinstance(parameter, Log):
        return f"{parameter.low:g} to {parameter.high:g}, logarithmic"
    return f"{parameter.low:g} to {parameter.high:g} in steps of {parameter.step:g}"


def repeats_table(result: Result) -> dict[str, Any] | None:
    if len(result.repeats) < 2:
        return None
    spread = result.spread
    told = f"mean {number(spread.mean)}, SD {number(spread.sd)}, {number(spread.minimum)} to {number(spread.maximum)}"
    return {
        "text": f"The best parameters trained with {len(result.repeats)} seeds: {told}.",
        "columns": ["seed", result.objective.short],
        "rows": [[str(trial.parameters["seed"]), trial.cause or score(trial)] for trial in result.repeats],
    }


def steps_table(result: Result) -> dict[str, Any] | None:
    if not result.steps:
        return None
    names = ("alpha", "gamma", "beta")
    rows = [
        [loss.upper(), *(text(trial.parameters.get(name, UNDEFINED)) for name in names), score(trial)]
        for loss, trial in result.steps.items()
    ]
    return {"columns": ["loss", *names, result.objective.short], "rows": rows}


def trials_table(result: Result) -> dict[str, Any] | None:
    if result.best is None:
        return None
    names = result.space.names
    rows = [
        {
            "best": trial.number == result.best.number,
            "cells": [
                str(trial.number),
                score(trial),
                *(text(trial.parameters.get(name, UNDEFINED)) for name in names),
                f"{trial.seconds:.1f}",
                remark(trial),
            ],
        }
        for trial in result.trials
    ]
    return {
        "columns": ["trial", result.objective.short, *(name.replace("_", " ") for name in names), "seconds", "state"],
        "rows": rows,
    }


def remark(trial: "Trial") -> str:
    """State and cause of a trial."""
    taken = f", as trial {trial.same_as}" if trial.same_as >= 0 else ""
    killed = f", killed {trial.interruptions - 1} times before" if trial.interruptions > 1 and not trial.cause else ""
    return f"{trial.state}{taken}{killed}{': ' + trial.cause if trial.cause else ''}"


def score(trial: "Trial") -> str:
    return number(trial.score)


def number(value: float | None) -> str:
    """A figure for people; a dash when it is undefined."""
    return UNDEFINED if value is None else f"{value:.4f}"


def text(value: Any) -> str:
    """A parameter's value, with at most four digits when it is not an integer."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
