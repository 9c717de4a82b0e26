"""Evaluates the champion on the patients that a new model was evaluated on, and says whether it stays champion."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hounsfield.components.compare_models.config import Config
from hounsfield.data.comparison import CHAMPION, Comparison, write_comparison
from hounsfield.data.evaluation import REPORT, read_metrics
from hounsfield.data.model_store import WEIGHTS, read_card, read_patients
from hounsfield.data.slice_set import SliceSet
from hounsfield.data.splits import TEST
from hounsfield.errors import ArtifactError, InputError
from hounsfield.storage import atomic_directory, sha256_bytes


def run(config: Config, slices: Path, model: Path, evaluation: Path, comparison: Path) -> Comparison:
    """Compare `model`, whose `evaluation` is of the test patients of `slices`, with the champion in MLflow.

    Raises:
        ArtifactError: an input is not complete or of another slice set, or the champion is for other images.
        InputError: a training saw test patients, or MLflow cannot be reached or refuses.
    """
    from hounsfield.registry import champion, tracking

    source = SliceSet(slices)
    card, measured = read_card(model), read_metrics(evaluation)
    weights_hash = sha256_bytes((Path(model) / WEIGHTS).read_bytes())
    expected = {"model_hash": weights_hash, "split": TEST, "slice_set_hash": str(source.manifest["hash"])}
    for name, value in expected.items():
        if measured.get(name) != value:
            raise ArtifactError(
                f"{evaluation} has {name} {measured.get(name)}, expected {value}: evaluate {model} on the test "
                f"patients of {slices}"
            )
    test = {item.patient for item in source.index if item.split == TEST}
    check_unseen(read_patients(model), test, f"the model {model}", source)
    name = config.model_name or card.task
    with atomic_directory(comparison) as directory:
        with tracking.recording(config.tracking_uri), TemporaryDirectory(prefix="hounsfield-champion-") as scratch:
            reigning = champion.champion_of(name)
            old: dict[str, Any] | None = None
            if reigning is not None:
                folder = champion.fetch(reigning, Path(scratch) / "model")
                check_unseen(read_patients(folder), test, f"champion {name} version {reigning.version}", source)
                old = evaluate(source, folder, directory / CHAMPION)
        verdict = champion.verdict(card.task, measured["summary"], old)
        outcome = Comparison(
            task=card.task,
            model_hash=weights_hash,
            slice_set_hash=str(source.manifest["hash"]),
            patients=len(test),
            challenger=measured["summary"],
            champion=old or {},
            champion_version=str(reigning.version) if reigning else "",
            metric=verdict.metric,
            difference=verdict.difference,
            promote=verdict.promote,
            reason=verdict.reason,
        )
        write_comparison(directory, outcome)
    announce(name, outcome, comparison)
    return outcome


def check_unseen(seen: set[str], test: set[str], who: str, source: SliceSet) -> None:
    """Check that a training saw none of the test patients.

    Raises:
        InputError: it saw some.
    """
    if known := seen & test:
        split = source.manifest["split"]
        raise InputError(
            f"{who} was trained on {len(known)} of the {len(test)} test patients: a split never moves a patient, so "
            f"give the split_seed, test_fraction and fixed splits of its training (here seed {split['seed']}, test "
            f"fraction {split['test']:g}), or start a new model_name"
        )


def evaluate(source: SliceSet, model: Path, evaluation: Path) -> dict[str, Any]:
    """Headline figures of `model` on the test patients of `source`; writes the evaluation as well."""
    from hounsfield.components.evaluate_pr_ap.config import Config as Evaluate
    from hounsfield.components.evaluate_pr_ap.run import run as evaluate_pr_ap

    print("the champion on the same patients:", flush=True)
    summary: dict[str, Any] = evaluate_pr_ap(Evaluate.model_validate({}), source.directory, model, evaluation)[
        "summary"
    ]
    return summary


def announce(name: str, outcome: Comparison, out: Path) -> None:
    """Print the difference and the verdict."""
    if not outcome.champion_version:
        print(f"{name}: {outcome.reason}", flush=True)
        return
    print(f"the champion's report: {Path(out) / CHAMPION / REPORT}")
    if outcome.difference is not None:
        print(f"difference_{outcome.metric}={outcome.difference:.4f}")
    what = "takes the place of" if outcome.promote else "does not take the place of"
    print(f"it {what} champion {name} version {outcome.champion_version}: {outcome.reason}", flush=True)
