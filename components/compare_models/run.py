"""Evaluates the champion on the patients that a new model was evaluated on, and decides which of them is champion."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hounsfield.components.compare_models.config import Config
from hounsfield.data.comparison import CHAMPION, PAGE, Comparison, write_comparison
from hounsfield.data.evaluation import REPORT, read_metrics
from hounsfield.data.model_store import WEIGHTS, ModelCard, read_card, read_patients
from hounsfield.data.slice_set import SliceSet
from hounsfield.data.splits import TEST
from hounsfield.errors import ArtifactError
from hounsfield.evaluation.gate import HEADLINE, Decision, Rules, decide
from hounsfield.evaluation.metrics import window_text
from hounsfield.storage import atomic_directory, sha256_bytes


class IncomparableError(Exception):
    """Champion and new model have no unseen patients in common; the message says why and what to change."""


def run(
    config: Config, slices: Path, model: Path, evaluation: Path, comparison: Path, store: Path | None = None
) -> Comparison:
    """Compare `model`, whose `evaluation` is of the test patients of `slices`, with the champion in MLflow.

    `store`, the series store that the slices are from, gives the slice thickness and the manufacturer of the subgroups.
    Where the two cannot be compared, the champion stays and the reason says why: it is for other images, was registered
    without what a comparison needs, or a training saw test patients.

    Raises:
        ArtifactError: an input is not complete or of another slice set.
        InputError: MLflow cannot be reached or refuses.
    """
    from hounsfield.registry import champion, policy, tracking

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
    name = config.model_name or card.task
    with atomic_directory(comparison) as directory:
        with tracking.recording(config.tracking_uri), TemporaryDirectory(prefix="hounsfield-champion-") as scratch:
            reigning = champion.champion_of(name)
            old: dict[str, Any] = {}
            decision: Decision | None = None
            reason = "There is no champion to compare with."
            if reigning is not None and reigning.tags.get(policy.MODEL_HASH) == weights_hash:
                reason = "It is the champion itself: the weights are the same."
            elif reigning is not None:
                who = f"champion {name} version {reigning.version}"
                try:
                    folder = champion.fetch(reigning, Path(scratch) / "model")
                    check_images(read_card(folder), source, who)
                    check_unseen(read_patients(model), test, "the new model", source)
                    check_unseen(read_patients(folder), test, who, source)
                except (ArtifactError, IncomparableError) as error:
                    reason = f"It cannot be compared: {error}."
                else:
                    old = evaluate(source, folder, directory / CHAMPION)
                    sides = [(model, evaluation), (folder, directory / CHAMPION)]
                    decision = judge(config, source, store, sides, directory / PAGE, who)
                    reason = decision.reason
        rules = config.model_dump(exclude={"model_name", "tracking_uri"})
        outcome = Comparison(
            task=card.task,
            model_hash=weights_hash,
            slice_set_hash=str(source.manifest["hash"]),
            patients=len(test),
            challenger=measured["summary"],
            champion=old,
            champion_version=str(reigning.version) if reigning else "",
            metric=HEADLINE[card.task],
            difference=decision.differences[HEADLINE[card.task]].difference if decision else None,
            promote=decision.promote if decision else False,
            reason=reason,
            figures={key: asdict(item) for key, item in decision.differences.items()} if decision else {},
            subgroups=subgroups_of(decision) if decision else {},
            rules=rules,
        )
        write_comparison(directory, outcome)
    announce(name, outcome, comparison)
    return outcome


def judge(
    config: Config, source: SliceSet, store: Path | None, sides: Sequence[tuple[Path, Path]], page: Path, reigning: str
) -> Decision:
    """The gate's decision on challenger and champion, each a model and its evaluation; writes the page as well."""
    from hounsfield.components.compare_models.measures import trial
    from hounsfield.evaluation.gate_page import gate_page

    models, evaluations = [side[0] for side in sides], [side[1] for side in sides]
    tried = trial(config, source, store, evaluations)
    cards = [read_card(path) for path in models]
    rules = Rules(
        config.policy, config.min_patients, config.subgroup_margin, config.min_subgroup_patients, config.resamples,
        config.bootstrap_seed,
    )  # fmt: skip
    parameters = cards[0].parameter_count, cards[1].parameter_count
    decision = decide(tried.measures, tried.carrying, tried.groups, parameters, rules)
    provenance = [
        ("Challenger", described(cards[0], models[0])),
        ("Champion", f"{reigning.removeprefix('champion ')}: {described(cards[1], models[1])}"),
        ("Test patients", f"{len(tried.carrying)} of slice set {source.manifest['hash']}"),
        ("Dataset", source.dataset_hash),
    ]
    title = f"{cards[0].task}: challenger against champion"
    html = gate_page(title, decision, rules, tried.pairs, tried.resolution, provenance)
    page.write_text(html, encoding="utf-8")
    return decision


def described(card: ModelCard, model: Path) -> str:
    """A model in a line."""
    weights = sha256_bytes((Path(model) / WEIGHTS).read_bytes())
    return (
        f"{card.architecture}, {card.parameter_count:,} parameters, trained on {card.training_patients} patients of "
        f"dataset {card.dataset_hash[:16]}, weights {weights[:16]}"
    )


def subgroups_of(decision: Decision) -> dict[str, dict[str, Any]]:
    """The subgroups as the comparison keeps them."""
    return {
        f"{group.kind}: {group.name}": {
            "patients": group.patients,
            "judged": group.judged,
            **{name: item.difference for name, item in group.differences.items()},
        }
        for group in decision.groups
    }


def check_images(card: ModelCard, source: SliceSet, who: str) -> None:
    """Check that the champion is for the images of the slice set, as both models are measured on the same ones.

    Raises:
        IncomparableError: it is for another task, size or window.
    """
    own, given = (
        f"{task} on images of {size[0]} x {size[1]} pixels, {window_text(window)}"
        for task, size, window in (
            (card.task, card.image_size, card.window),
            (source.task, source.shape, source.window.to_dict()),
        )
    )
    if own != given:
        raise IncomparableError(
            f"{who} is for {own}, the new model for {given}: they cannot be measured on the same images, so give the "
            "champion's task, size, width and level, or start a new model_name"
        )


def check_unseen(seen: set[str], test: set[str], who: str, source: SliceSet) -> None:
    """Check that a training saw none of the test patients, neither to fit the network nor to choose its epoch.

    Raises:
        IncomparableError: it saw some.
    """
    if known := seen & test:
        split = source.manifest["split"]
        raise IncomparableError(
            f"the training of {who} saw {len(known)} of the {len(test)} test patients: a split never moves a patient, "
            f"so give the split_seed, test_fraction and fixed splits of its training (here seed {split['seed']}, test "
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
    if not outcome.figures:
        print(f"{name}: {outcome.reason}", flush=True)
        return
    print(f"the champion's report: {Path(out) / CHAMPION / REPORT}")
    print(f"the decision: {Path(out) / PAGE}")
    if outcome.difference is not None:
        print(f"difference_{outcome.metric}={outcome.difference:.4f}")
    what = "takes the place of" if outcome.promote else "does not take the place of"
    print(f"it {what} champion {name} version {outcome.champion_version}: {outcome.reason}", flush=True)
