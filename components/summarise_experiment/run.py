"""Models and evaluations of an experiment to its tables, figures and report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hounsfield.components.summarise_experiment.config import Config
from hounsfield.data.slice_set import SEGMENTATION, SliceSet
from hounsfield.errors import InputError
from hounsfield.evaluation.metrics import window_text
from hounsfield.experiments import Run, pair
from hounsfield.storage import atomic_directory, write_json, write_manifest

KIND, VERSION = "experiment", 1
SUMMARY = "summary.json"


def run(
    config: Config, slices: Path, models: Sequence[Path | str], evaluations: Sequence[Path | str], summary: Path
) -> dict[str, Any]:
    """Write the directory `summary` (summary.json, report.html, figures, tables as CSV) and return its figures.

    Models and evaluations come in any order and are matched by the hash of the weights.

    Raises:
        ArtifactError: a directory is incomplete, or a model and the evaluations do not belong together.
        InputError: no run, or runs that are not of one experiment.
    """
    source = SliceSet(slices)
    runs = pair([Path(path) for path in models], [Path(path) for path in evaluations])
    if not runs:
        raise InputError("no model was given: expected those of an experiment, each with its evaluation")
    with atomic_directory(summary) as directory:
        figures = (ablation if source.task == SEGMENTATION else study)(source, runs, directory, config.data_name)
        write_json(directory / SUMMARY, figures)
        write_manifest(directory, KIND, VERSION, experiment=figures["experiment"], task=source.task, runs=len(runs))
    for claim in figures["claims"]:
        print(f"{claim['claim']}: {verdict(claim['holds'])}")
    print(f"summarised {len(runs)} runs: {Path(summary) / 'report.html'}", flush=True)
    return figures


def ablation(source: SliceSet, runs: Sequence[Run], directory: Path, data: str) -> dict[str, Any]:
    """Report and figures of networks x losses."""
    from hounsfield.experiments.ablation import summarise

    return summarise(source, runs, directory, data)


def study(source: SliceSet, runs: Sequence[Run], directory: Path, data: str) -> dict[str, Any]:
    """Report and figures of arms x folds."""
    from hounsfield.experiments import study
    from hounsfield.experiments.study_page import study_page

    folds = {item.patient: item.fold for item in source.index}
    figures = study.summarise([study.Run.read(run.model, run.evaluation) for run in runs], folds, data)
    page = study_page(directory, figures)
    page.provenance = [
        ("Dataset", source.dataset_hash),
        ("Slice set", str(source.manifest["hash"])),
        ("Window", window_text(source.manifest["window"])),
    ]
    page.write()
    return figures


def verdict(holds: bool | None) -> str:
    """Whether a claim of the paper holds here, in words."""
    return "not to be told from these runs" if holds is None else "holds" if holds else "does not hold"
