"""`hounsfield papers`: both papers' experiments at a reduced size on synthetic CT, and their tables in one summary."""

import csv
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hounsfield.cli.demo import PSEUDONYM_KEY
from hounsfield.cli.run import run_task
from hounsfield.errors import InputError
from hounsfield.storage import write_json

REDUCED = "smaller networks, images and searches than the papers', so that all of it fits into 30 minutes on two cores"
COHORTS: dict[str, dict[str, Any]] = {
    "chest": {"patients": 40, "seed": 1, "size": 256, "slice_thickness": 6.0},
    "abdomen": {"patients": 40, "seed": 2, "size": 256, "slice_thickness": 5.0},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "lung-tumour-ablation": {
        "size": 128,
        "split_seed": 7,
        "test_fraction": 0.25,
        "val_fraction": 0.1,
        "base_channels_segnet": 16,
        "base_channels_enet": 16,
        "base_channels_unet": 16,
        "depth": 4,
        "batch_norm": True,
        "batch_size": 8,
        "epochs": 8,
        "learning_rate": 3e-3,
        "adam_beta2": 0.98,
        "learning_rate_schedule": "one-cycle",
        "negatives_per_positive": 1.0,
        "augment": True,
        "keep": "last",
        "data_name": "phantoms",
    },
    "l3-slice-study": {
        "size": 64,
        "split_seed": 2,
        "val_fraction": 0.25,
        "folds": 5,
        "architecture": "resnet18",
        "base_channels": 32,
        "epochs": 6,
        "trials": 4,
        "learning_rate": 1e-3,
        "learning_rate_schedule": "one-cycle",
        "oversampling_rate": 0.1,
        "augment": True,
        "keep": "last",
        "data_name": "phantoms",
    },
}


@dataclass(frozen=True)
class Experiment:
    """A paper's experiment: its pipeline, the region of its phantoms, and the tables to print (CSV files)."""

    pipeline: str
    region: str
    tables: tuple[str, ...]


EXPERIMENTS = {
    "lung": Experiment("lung-tumour-ablation", "chest", ("table_1", "subgroups")),
    "l3": Experiment("l3-slice-study", "abdomen", ("table_2", "errors", "comparison", "best_parameters")),
}


def run_papers(out: Path, seeds: int = 1, only: str = "") -> None:
    """Write `OUT/summary.json` with every figure of both tables, subgroups, claims, settings and seconds.

    Args:
        seeds: trainings of each kind, seeds 0 to `seeds` - 1.
        only: `lung` or `l3` for one of the experiments.

    Raises:
        InputError: `only` names no experiment.
        HounsfieldError: a step failed.
    """
    if only and only not in EXPERIMENTS:
        raise InputError(f"--only {only}: expected {' or '.join(EXPERIMENTS)}")
    os.environ["HOUNSFIELD_PSEUDONYM_KEY"] = PSEUDONYM_KEY
    out = out.resolve()
    seconds: dict[str, float] = {}
    summary: dict[str, Any] = {"note": REDUCED, "seeds": seeds, "seconds": seconds}
    started = time.monotonic()
    for name, experiment in EXPERIMENTS.items():
        if only in ("", name):
            summary[experiment.pipeline] = run_experiment(experiment, out, seeds, seconds)
    seconds["total"] = round(time.monotonic() - started, 1)
    write_json(out / "summary.json", summary)
    for line in lines(summary):
        print(line)
    print(f"\n{REDUCED}\n{seconds['total']:.0f} s; summary: {out / 'summary.json'}", flush=True)


def run_experiment(experiment: Experiment, out: Path, seeds: int, seconds: dict[str, float]) -> dict[str, Any]:
    """Figures of an experiment on its phantoms; adds the seconds of its steps to `seconds`."""
    from hounsfield.inference import best_device, has_bf16

    pipeline, precision = experiment.pipeline, "bf16" if has_bf16(best_device()) else "fp32"
    settings = {**SETTINGS[pipeline], "seeds": seeds, "precision": precision}
    begin = time.monotonic()
    cases = phantoms(experiment.region, out / "data")
    seconds[f"{experiment.region} phantoms"] = round(time.monotonic() - begin, 1)
    begin = time.monotonic()
    given = [f"{key}={value}" for key, value in settings.items()]
    run, figures = run_task(pipeline, [], cases, out / pipeline, given)
    seconds |= {f"{pipeline} {step}": value for step, value in run.seconds.items()}
    return figures | {
        "report": run.outputs["report"],
        "artifact": run.outputs["summary"],
        "cohort": COHORTS[experiment.region],
        "settings": settings,
        "seconds": round(time.monotonic() - begin, 1),
    }


def phantoms(region: str, folder: Path) -> Path:
    """Cases file of the cohort of a region, made unless an earlier call with the same numbers made it."""
    from hounsfield.phantom import write_cohort

    cohort = COHORTS[region]
    name = "-".join([region, *(f"{value:g}" for value in cohort.values())])
    cases = folder / name / "cases.csv"
    print(f"{region}: {cohort['patients']} synthetic patients", flush=True)
    if not cases.is_file():
        cases = write_cohort(region, folder / name, **cohort)  # type: ignore[arg-type]
    return cases


def lines(summary: dict[str, Any]) -> Iterator[str]:
    """Tables, claims and notes of a summary of `run_papers`, for people."""
    for experiment in EXPERIMENTS.values():
        figures = summary.get(experiment.pipeline)
        if figures is None:
            continue
        yield f"\n{experiment.pipeline}  ({figures['report']})"
        for table in experiment.tables:
            yield ""
            yield from table_lines(Path(figures["artifact"]) / f"{table}.csv")
        yield "\nclaims of the paper, by the mean over seeds (seeds in which each holds)"
        for claim in figures["claims"]:
            holding = f"{claim['seeds_holding']} of {claim['seeds_judged']}"
            detail = f"  {claim['detail']}" if "detail" in claim else ""
            yield f"  {VERDICTS[claim['holds']]:<14}  {claim['claim']}  ({holding}){detail}"
        for note in figures["notes"]:
            yield f"note: {note}"


VERDICTS = {True: "holds", False: "does not hold", None: "undecided"}


def table_lines(path: Path) -> Iterator[str]:
    """Lines of a CSV file in columns of equal width."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in [rows[0], ["-" * width for width in widths], *rows[1:]]:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
