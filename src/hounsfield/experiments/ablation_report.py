"""The report of the ablation: Table 1, Figures 3 and 4, the subgroups, the claims and the audit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch

from hounsfield.data.evaluation import CURVE, PATIENTS
from hounsfield.data.slice_set import SliceSet
from hounsfield.data.tumour_site import SITES
from hounsfield.evaluation.metrics import counted
from hounsfield.experiments import Run, ablation_figures
from hounsfield.experiments.ablation import FIGURES, LOSSES, NETWORKS, SUBGROUP_FIGURES
from hounsfield.experiments.page import UNDEFINED, Page, mean_sd, number
from hounsfield.inference import load_network
from hounsfield.windowing import unstored

TITLES = {"f1": "F1", "precision": "precision", "recall": "recall", "average_precision": "AP", "dice_mean": "mean Dice"}
SITE_NAMES = dict(zip(SITES, ("chest wall", "intrapulmonary"), strict=True))
GREEK = {"alpha": "α", "gamma": "γ", "beta": "β"}
CASES_PER_SITE = 2
Mask = npt.NDArray[np.bool_]


def write_report(directory: Path, summary: dict[str, Any], slices: SliceSet, runs: Sequence[Run]) -> None:
    """Write report.html, figures/*.png and *.svg and the tables as CSV."""
    rows, columns = summary["image_size"]
    page = Page(
        directory,
        "Lung-tumour ablation: networks and losses",
        f"{summary['data']}: {counted(summary['patients'], 'unseen patient')}, "
        f"{counted(summary['slices'], 'slice')} of {rows} x {columns} pixels; "
        f"{counted(summary['runs'], 'training')}, seeds {', '.join(map(str, summary['seeds']))}",
    )
    page.meaning.append(
        "Each row of the paper's Table 1, trained and tested on the same patients. BL is balanced cross entropy, FL "
        "focal loss, CL the paper's sum of focal loss and Dice. F1, precision and recall count every pixel of all "
        "patients together at the threshold; average precision (AP) is the area under the precision-recall curve."
    )
    page.caveats = summary["notes"]
    ours = [row for row in summary["rows"] if row["by_seed"]]
    best = max(ours, key=lambda row: row["average_precision"]["mean"] or 0.0)
    page.tile("highest AP", f"{number(best['average_precision']['mean'])}  {best['run']}")
    lowest = min(ours, key=lambda row: row["average_precision"]["mean"] or 0.0)
    page.tile("lowest AP", f"{number(lowest['average_precision']['mean'])}  {lowest['run']}")
    holding = sum(claim["holds"] is True for claim in summary["claims"])
    judged = sum(claim["holds"] is not None for claim in summary["claims"])
    page.tile("claims of the paper that hold here", f"{holding} of {judged}")
    table_1(page, summary)
    figure_4(page, summary, runs)
    figure_3(page, slices, runs)
    subgroups(page, summary)
    claims(page, summary)
    audits(page, summary)
    trainings(page, summary)
    first = runs[0]
    page.provenance = [
        ("Trained on", f"{counted(summary['training_patients'], 'patient')} of dataset {summary['dataset_hash']}"),
        ("Slice set", summary["slice_set_hash"]),
        ("Decision", f"positive from a probability of {first.metrics['threshold']:g}"),
    ]
    page.write()


def table_1(page: Page, summary: dict[str, Any]) -> None:
    """Ours beside the paper's."""
    seeds = len(summary["seeds"])
    page.section("Table 1: ours beside the paper's")
    columns = ["run"] + [f"{TITLES[name]}, {where}" for name in FIGURES for where in ("paper", "here")]
    rows = [
        [row["run"]] + [text for name in FIGURES for text in (number(row["paper"][name]), over_seeds(row, row[name]))]
        for row in summary["rows"]
    ]
    note = "The paper's figures are of its own patients, ours of other images: compare orders, not values."
    if seeds > 1:
        note += f" Ours are mean ± SD over {seeds} seeds; (1 of {seeds}): undefined in the others."
    page.table("table_1", columns, rows, note)


def over_seeds(row: dict[str, Any], spread: dict[str, Any]) -> str:
    """Mean ± SD of a figure, with the number of seeds where it is defined if that is not all of the row's."""
    text, defined = mean_sd(spread["mean"], spread["sd"]), spread["n"]
    return f"{text} ({defined} of {len(row['by_seed'])})" if 0 < defined < len(row["by_seed"]) else text


def figure_4(page: Page, summary: dict[str, Any], runs: Sequence[Run]) -> None:
    """A precision-recall panel per network, a curve per loss and seed."""
    panels: dict[str, dict[str, tuple[str, list[ablation_figures.Curve]]]] = {}
    for row in summary["rows"]:
        curves = [curve(run.evaluation) for run in runs if run.name == row["run"]]
        if curves:
            average = row["average_precision"]
            entry = f"{row['loss']}, AP {mean_sd(average['mean'], average['sd'])}"
            panels.setdefault(NETWORKS[row["architecture"]], {})[row["loss"]] = (entry, curves)
    prevalence = runs[0].metrics["pooled"]["prevalence"]
    page.section("Figure 4: precision-recall curves")
    page.figure(
        "figure_4",
        ablation_figures.precision_recall(panels, prevalence),
        "Pooled over the pixels of all unseen patients, one line a training. Dotted along the bottom: a useless "
        f"model, whose precision is the share of tumour pixels, {prevalence:.2%}.",
        wide=len(panels) > 1,
    )


def curve(evaluation: Path) -> ablation_figures.Curve:
    """Recall and precision of an evaluation."""
    table = pq.read_table(evaluation / CURVE, columns=["recall", "precision"])
    return table["recall"].to_numpy(), table["precision"].to_numpy()


def figure_3(page: Page, slices: SliceSet, runs: Sequence[Run]) -> None:
    """A figure per network: cases of both subgroups with the masks of its losses, all of the lowest seed they share."""
    chosen = chosen_rows(runs[0].evaluation)
    page.section(
        "Figure 3: masks",
        "Blue: truth. Orange: prediction, with the truth dashed. All panels of a row show the same part of the slice "
        "in the same window; Dice is that of the whole slice. The cases are chosen by the volume of the tumour alone, "
        "the median and the largest of each subgroup, on the slice where it is largest.",
    )
    for architecture, label in NETWORKS.items():
        own = [run for run in runs if run.card.parameters["architecture"] == architecture]
        if not own or not chosen:
            continue
        seed = shared_seed(own)
        predictors = {str(run.card.parameters["loss"]).upper(): run for run in own if run.seed == seed}
        masks = {loss: predict(run, slices, [row for _, row in chosen]) for loss, run in predictors.items()}
        cases = [
            ablation_figures.Case(
                title=site,
                image=np.asarray(slices.image(row)),
                truth=np.asarray(slices.mask(row)) > 0,
                predicted={loss: own_masks[place] for loss, own_masks in masks.items()},
                spacing=(slices.index[row].spacing_row, slices.index[row].spacing_column),
            )
            for place, (site, row) in enumerate(chosen)
        ]
        caption = f"{label}, seed {seed}."
        page.figure(f"figure_3_{architecture}", ablation_figures.masks(cases, LOSSES), caption, pixels=True)


def shared_seed(runs: Sequence[Run]) -> int:
    """The seed that most losses have; of several the lowest."""
    seeds = [run.seed for run in runs]
    return min(set(seeds), key=lambda seed: (-seeds.count(seed), seed))


def chosen_rows(evaluation: Path) -> list[tuple[str, int]]:
    """Name of the subgroup and row of the slice set of each case."""
    patients = pq.read_table(evaluation / PATIENTS).to_pylist()
    chosen = []
    for site in SITES:
        own = sorted((p for p in patients if p["subgroup"] == site and p["truth_ml"] > 0), key=lambda p: p["truth_ml"])
        places = sorted({len(own) // 2, len(own) - 1}) if own else []
        chosen += [(SITE_NAMES[site], int(own[place]["shown_row"])) for place in places[:CASES_PER_SITE]]
    if not chosen:
        with_tumour = [p for p in patients if p["truth_ml"] > 0][:CASES_PER_SITE]
        chosen = [("site unknown", int(p["shown_row"])) for p in with_tumour]
    return chosen


def predict(run: Run, slices: SliceSet, rows: Sequence[int]) -> list[Mask]:
    """Masks (rows, columns) of the model at its threshold."""
    network = load_network(run.model)
    threshold = float(run.metrics["threshold"])
    cut = float(np.log(threshold) - np.log1p(-threshold))
    images = unstored(torch.from_numpy(slices.gather("image", rows)))
    return [np.asarray(network.foreground_logits(image[None])[0].numpy() >= cut) for image in images]


def subgroups(page: Page, summary: dict[str, Any]) -> None:
    """Figures of both subgroups, beside each other."""
    counts = {site: next(r["subgroups"][site]["patients"] for r in summary["rows"] if r["by_seed"]) for site in SITES}
    page.section(
        "Tumours at the chest wall and inside the lung",
        f"{counted(counts[SITES[0]], 'unseen patient')} with a tumour attached to the chest wall, "
        f"{counts[SITES[1]]} with one inside the lung; found from mask and lung field.",
    )
    columns = ["run"] + [f"{SITE_NAMES[site]}: {TITLES[name]}" for site in SITES for name in SUBGROUP_FIGURES]
    rows = [
        [row["run"]] + [over_seeds(row, row["subgroups"][site][name]) for site in SITES for name in SUBGROUP_FIGURES]
        for row in summary["rows"]
        if row["by_seed"]
    ]
    page.table("subgroups", columns, rows, "F1 and AP are pooled over the pixels of the subgroup, Dice is per patient.")


def claims(page: Page, summary: dict[str, Any]) -> None:
    """What the paper concludes, and whether it holds here."""
    page.section("The paper's claims")
    words = {True: "holds", False: "does not hold", None: "open"}
    rows = [
        [
            claim["claim"],
            words[claim["holds"]],
            f"{claim['seeds_holding']} of {claim['seeds_judged']}" if claim["seeds_judged"] else UNDEFINED,
        ]
        for claim in summary["claims"]
    ]
    note = "By the mean over the seeds, and the number of seeds in which it holds by itself. Open: a run is missing."
    page.table("claims", ["claim", "here", "seeds"], rows, note, text=True)


def audits(page: Page, summary: dict[str, Any]) -> None:
    """The paper's rows, recomputed; and ours."""
    page.section(
        "Audit",
        "F1 recomputed from precision and recall as 2PR/(P+R). Figures counted over all pixels at once must agree with "
        "it; means over images may lie below it; above it, nothing can.",
    )
    rows, marked = [], []
    for place, row in enumerate(summary["rows"]):
        own, each = row["paper"], list(row["by_seed"].values())
        if own["audit"]["verdict"] == "impossible":
            marked.append(place)
        verdicts = sorted({run["audit"]["verdict"] for run in each})
        agree = [run["audit"]["pooled_and_mean_agree"] for run in each]
        rows.append(
            [
                row["run"],
                number(own["f1"], ".4f"),
                number(own["audit"]["f1_recomputed"], ".4f"),
                own["audit"]["verdict"],
                ", ".join(verdicts) or UNDEFINED,
                f"{sum(value is True for value in agree)} of {len(agree)}" if agree else UNDEFINED,
            ]
        )
    columns = ["run", "paper's F1", "its 2PR/(P+R)", "paper's row", "here", "pooled F1 = mean Dice here"]
    note = "The last column counts the trainings whose pooled F1 and mean Dice per patient are within 0.02."
    page.table("audit", columns, rows, note, marked)


def trainings(page: Page, summary: dict[str, Any]) -> None:
    """Every training with its parameters."""
    page.section("Trainings")
    columns = [
        "run",
        "seed",
        "paper's α, γ, β",
        "α, γ, β here",
        "epochs",
        "kept",
        "parameters",
        "F1",
        "AP",
        "mean Dice",
    ]
    rows = [
        [
            row["run"],
            seed,
            greek(row["paper"]["parameters"]),
            greek(run["parameters"]),
            str(run["epochs"]),
            str(run["kept_epoch"]),
            f"{run['parameter_count']:,}",
            number(run["f1"]),
            number(run["average_precision"]),
            number(run["dice_mean"]),
        ]
        for row in summary["rows"]
        for seed, run in row["by_seed"].items()
    ]
    page.table("trainings", columns, rows)


def greek(parameters: dict[str, float]) -> str:
    """`α 0.25, γ 4`."""
    return ", ".join(f"{GREEK[name]} {parameters[name]:g}" for name in GREEK if name in parameters)
