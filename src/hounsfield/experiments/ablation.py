"""The ablation in figures: every network with every loss, beside Table 1 of the paper, in all and in both subgroups."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from hounsfield.data.slice_set import SEGMENTATION, SliceSet
from hounsfield.data.tumour_site import SITES
from hounsfield.errors import InputError
from hounsfield.evaluation.metrics import counted
from hounsfield.experiments import Run
from hounsfield.experiments.printed import TABLE_1, SegmentationRow
from hounsfield.metrics.audit import audit
from hounsfield.metrics.counts import Spread

FIGURES = ("f1", "precision", "recall", "average_precision")
SUBGROUP_FIGURES = ("f1", "average_precision", "dice_mean")
NETWORKS = {"segnet": "SegNet", "enet": "E-Net", "unet": "U-Net"}
LOSSES = ("BL", "FL", "CL")
CHEST_WALL = SITES[0]
FEW_SEEDS = 3
Values = dict[tuple[str, str], float | None]
"""A figure of each run by network (`segnet`, `enet`, `unet`) and loss (`BL`, `FL`, `CL`)."""


def summarise(slices: SliceSet, runs: Sequence[Run], directory: Path, data: str = "your data") -> dict[str, Any]:
    """Write report.html, figures and tables into `directory`, and return every figure; undefined ones are None.

    Args:
        runs: trainings in any order. Rows of Table 1 without a run are said to be missing.
        data: what the images are, for the tables ("phantoms").

    Raises:
        InputError: no run, a run of another task or none of the paper's, or two of one row and seed.
    """
    from hounsfield.experiments.ablation_report import write_report

    check(runs)
    summary = figures(runs, data)
    write_report(directory, summary, slices, runs)
    return summary


def check(runs: Sequence[Run]) -> None:
    """The runs must be rows of Table 1, each seed once.

    Raises:
        InputError: they are not.
    """
    if not runs:
        raise InputError("the ablation has no run: expected a model and its evaluation for rows of Table 1")
    names, seen = [row.run for row in TABLE_1], set()
    for run in runs:
        if run.card.task != SEGMENTATION or run.name not in names:
            raise InputError(
                f"model {run.model} is of task {run.card.task} and run_name {run.name!r}: the ablation takes "
                f"{SEGMENTATION} models named {', '.join(names)}"
            )
        if (run.name, run.seed) in seen:
            raise InputError(f"two runs of {run.name} with seed {run.seed}: expected one of each")
        seen.add((run.name, run.seed))


def figures(runs: Sequence[Run], data: str = "your data") -> dict[str, Any]:
    """The JSON of summary.json."""
    seeds = sorted({run.seed for run in runs})
    rows = [row_figures(printed, [run for run in runs if run.name == printed.run], seeds) for printed in TABLE_1]
    first = runs[0]
    summary: dict[str, Any] = {
        "experiment": "lung-tumour-ablation",
        "data": data,
        "patients": first.metrics["patients"],
        "training_patients": first.card.training_patients,
        "slices": first.metrics["slices"],
        "image_size": first.metrics["image_size"],
        "dataset_hash": first.card.dataset_hash,
        "slice_set_hash": first.card.slice_set_hash,
        "seeds": seeds,
        "runs": len(runs),
        "optimistic": any(run.card.parameters.get("validation") == "test" for run in runs),
        "rows": rows,
        "claims": claims(rows, seeds),
    }
    summary["notes"] = notes(summary)
    return summary


def row_figures(printed: SegmentationRow, runs: Sequence[Run], seeds: Sequence[int]) -> dict[str, Any]:
    """One row of Table 1: the paper's figures with their audit, and ours by seed and over the seeds."""
    by_seed = {str(run.seed): run_figures(run) for run in sorted(runs, key=lambda run: run.seed)}
    each = list(by_seed.values())
    checked = audit(printed.precision, printed.recall, printed.f1, whole=100)
    return {
        "run": printed.run,
        "architecture": printed.architecture,
        "loss": printed.loss,
        "paper": {
            "parameters": {
                name: float(text) for name in ("alpha", "gamma", "beta") if (text := getattr(printed, name))
            },
            "f1": float(Decimal(printed.f1).scaleb(-2)),
            "precision": float(Decimal(printed.precision).scaleb(-2)),
            "recall": float(Decimal(printed.recall).scaleb(-2)),
            "average_precision": float(printed.ap),
            "audit": {"verdict": checked.verdict, "f1_recomputed": as_fraction(checked.f1_recomputed)},
        },
        "by_seed": by_seed,
        "missing_seeds": [seed for seed in seeds if str(seed) not in by_seed],
        **{name: spread(run[name] for run in each) for name in FIGURES},
        "dice": spread(run["dice_mean"] for run in each),
        "subgroups": {
            site: {"patients": each[0]["subgroups"][site]["patients"] if each else None}
            | {name: spread(run["subgroups"][site][name] for run in each) for name in SUBGROUP_FIGURES}
            for site in SITES
        },
    }


def as_fraction(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def spread(values: Any) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) over the seeds in which a figure is defined."""
    own = Spread.of(values)
    return {"mean": own.mean, "sd": own.sd, "n": own.n}


def run_figures(run: Run) -> dict[str, Any]:
    """Figures of one training on the unseen patients, and what it was trained with."""
    parameters = run.card.parameters
    own = run.metrics
    return {
        **{name: own["pooled"][name] for name in FIGURES},
        "dice_mean": own["per_patient"]["dice_mean"],
        "dice_sd": own["per_patient"]["dice_sd"],
        "subgroups": {
            site: {name: own["subgroups"][site][name] for name in ("patients", *SUBGROUP_FIGURES)} for site in SITES
        },
        "audit": own["audit"],
        "parameters": {name: parameters[name] for name in used(str(parameters["loss"]))},
        "learning_rate": parameters["learning_rate"],
        "epochs": parameters["epochs"],
        "kept_epoch": run.card.best_epoch,
        "parameter_count": run.card.parameter_count,
        "model_hash": own["model_hash"],
    }


def used(loss: str) -> tuple[str, ...]:
    """Parameters that a loss has."""
    return {"bl": ("alpha",), "fl": ("alpha", "gamma")}.get(loss, ("alpha", "gamma", "beta"))


def claims(rows: Sequence[dict[str, Any]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """What the paper concludes from Table 1, with whether it holds here: in the mean over seeds, and in each seed.

    None where a run that the claim is about is missing or its figure undefined.
    """
    made = []
    for name, title in (("average_precision", "AP"), ("f1", "F1")):
        for architecture, label in NETWORKS.items():
            text = f"CL > FL > BL in {title} ({label})"
            made.append(judge(text, rows, seeds, whole(name), partial(ordered, architecture=architecture)))
    for name, title in (("average_precision", "AP"), ("f1", "F1")):
        made.append(
            judge(f"U-Net is the best network under every loss in {title}", rows, seeds, whole(name), unet_best)
        )
    for name, title in (("average_precision", "AP"), ("dice_mean", "mean Dice")):
        for architecture, label in NETWORKS.items():
            text = f"CL is the best loss at the chest wall in {title} ({label})"
            made.append(judge(text, rows, seeds, at_chest_wall(name), partial(cl_best, architecture=architecture)))
    return made


Reader = tuple[Callable[[dict[str, Any]], float | None], Callable[[dict[str, Any]], float | None]]
"""How a figure is read from a row (its mean over the seeds) and from one of its seeds."""


def whole(name: str) -> Reader:
    """A figure of all patients."""
    return lambda row: row[name]["mean"], lambda run: run[name]


def at_chest_wall(name: str) -> Reader:
    """A figure of the patients whose tumour is attached to the chest wall."""
    return (
        lambda row: row["subgroups"][CHEST_WALL][name]["mean"],
        lambda run: run["subgroups"][CHEST_WALL][name],
    )


def judge(
    text: str,
    rows: Sequence[dict[str, Any]],
    seeds: Sequence[int],
    read: Reader,
    rule: Callable[[Values], bool | None],
) -> dict[str, Any]:
    """A claim with its verdict by the mean over seeds and in each of them."""
    of_row, of_run = read
    key = [(row["architecture"], row["loss"]) for row in rows]
    by_seed = {}
    for seed in map(str, seeds):
        own = [of_run(row["by_seed"][seed]) if seed in row["by_seed"] else None for row in rows]
        by_seed[seed] = rule(dict(zip(key, own, strict=True)))
    return {
        "claim": text,
        "holds": rule(dict(zip(key, map(of_row, rows), strict=True))),
        "by_seed": by_seed,
        "seeds_holding": sum(verdict is True for verdict in by_seed.values()),
        "seeds_judged": sum(verdict is not None for verdict in by_seed.values()),
    }


def ordered(values: Values, architecture: str) -> bool | None:
    """CL > FL > BL."""
    bl, fl, cl = (values[architecture, loss] for loss in LOSSES)
    return None if bl is None or fl is None or cl is None else cl > fl > bl


def unet_best(values: Values) -> bool | None:
    """U-Net above the other networks with the same loss, for every loss that all three have."""
    verdicts = []
    for loss in LOSSES:
        unet, others = values["unet", loss], [values[name, loss] for name in NETWORKS if name != "unet"]
        if unet is not None and None not in others:
            verdicts.append(all(unet > other for other in others if other is not None))
    return all(verdicts) if verdicts else None


def cl_best(values: Values, architecture: str) -> bool | None:
    """CL above FL and BL."""
    bl, fl, cl = (values[architecture, loss] for loss in LOSSES)
    return None if bl is None or fl is None or cl is None else cl > max(fl, bl)


def notes(summary: dict[str, Any]) -> list[str]:
    """Sentences on what limits the figures."""
    found = []
    if summary["optimistic"]:
        found.append("Optimistic: the patients tested chose epoch or parameters; on new patients expect worse.")
    missing = [row["run"] for row in summary["rows"] if not row["by_seed"]]
    if missing:
        found.append(f"Not run: {', '.join(missing)}. Claims about them are left open.")
    for row in summary["rows"]:
        if row["by_seed"] and row["missing_seeds"]:
            seeds = ", ".join(map(str, row["missing_seeds"]))
            found.append(f"{row['run']} lacks seed {seeds}: its mean is over {counted(len(row['by_seed']), 'seed')}.")
    if len(summary["seeds"]) < FEW_SEEDS:
        found.append(
            f"{counted(len(summary['seeds']), 'seed')}: a difference between two rows may be the chance of one "
            f"training; judge an order by at least {FEW_SEEDS} seeds."
        )
    wrong = [row["run"] for row in summary["rows"] if row["paper"]["audit"]["verdict"] == "impossible"]
    if wrong:
        found.append(
            f"The paper's rows {' and '.join(wrong)} are impossible: no average of any images has that F1 with that "
            "precision and recall."
        )
    return found
