"""The tables of the L3 study as title, columns, rows of text and a note."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hounsfield.evaluation.metrics import counted
from hounsfield.experiments.page import UNDEFINED, mean_sd, number
from hounsfield.experiments.printed import TABLE_2
from hounsfield.experiments.study import ARMS, DESIGN_VARIABLES

DESIGN_TITLES = ("L2", "learning rate", "batch", "clipped at", "method", "over-sampling", "class weight")


@dataclass(frozen=True)
class Table:
    """`name` is that of its CSV file."""

    name: str
    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str


def tables(summary: dict[str, Any]) -> list[Table]:
    """Every table of a summary of `study.summarise`."""
    return [table_2(summary), errors(summary), comparison(summary), parameters(summary)]


def table_2(summary: dict[str, Any]) -> Table:
    """Table 2 of the paper with our two rows below its own."""
    rows, columns = summary["image_size"]
    printed = [[row.method, row.images, f"{row.mean} ± {row.sd}", "printed in the paper"] for row in TABLE_2]
    ours = [
        [
            f"{summary['architecture'] or 'network'} ({arm}), ours{mark(summary['arms'][arm])}",
            "axial",
            spread(summary["arms"][arm], "slice_error"),
            f"{summary['data']}, {rows}x{columns} pixels, {summary['arms'][arm]['patients']} patients",
        ]
        for arm in ARMS
    ]
    return Table(
        "table_2",
        "Table 2: slice error, the paper's values and ours",
        ["method", "images", "slice error, mean ± SD", "source"],
        printed + ours,
        f"Ours: {len(summary['folds'])}-fold cross-validation by patient, {counted(len(summary['seeds']), 'seed')}, "
        "standard deviation over the series tested. The paper's images are of other patients: the two kinds of row are "
        "not measured on the same data.",
    )


def errors(summary: dict[str, Any]) -> Table:
    """Errors, rates and regression of both arms, over all seeds and for each."""
    rows = []
    for arm in ARMS:
        own = summary["arms"][arm]
        rows.append(_error_row(arm, "all", own))
        if len(summary["seeds"]) > 1:
            rows += [_error_row(arm, seed, figures) for seed, figures in own["by_seed"].items()]
    length = next((own["vertebra_mm"] for own in summary["arms"].values() if own["vertebra_mm"] is not None), None)
    return Table(
        "errors",
        f"Errors of the out-of-fold predictions{mark(summary)}",
        [
            "arm",
            "seed",
            "patients",
            "error, slices",
            "median",
            "error, mm",
            "median, mm",
            "detected",
            f"≥ {number(length, 'g')} mm",
            "R²",
            "slope",
            "intercept",
        ],
        rows,
        "Errors are mean ± SD over the series tested, detected or not. Detected: share of the series with at least one "
        f"positive slice. Errors of {number(length, 'g')} mm or more miss by a vertebra. Regression of the predicted "
        "on the true slice number: ideal R² 1, slope 1, intercept 0.",
    )


def comparison(summary: dict[str, Any]) -> Table:
    """Proposed minus control on the same patients, over the seeds and in each."""
    own = summary["comparison"]
    optimistic = mark(summary)
    rows = [_pair_row(f"all{optimistic}", own, own["r2_difference"])]
    if len(own["by_seed"]) > 1:
        rows += [
            _pair_row(f"{seed}{optimistic}", pair, own["r2_difference_by_seed"].get(seed))
            for seed, pair in own["by_seed"].items()
        ]
    return Table(
        "comparison",
        "Proposed against control, patient by patient",
        [
            "seed",
            "patients",
            "mean difference, slices",
            "95 % interval",
            "Wilcoxon p",
            "better",
            "equal",
            "worse",
            "difference of R²",
        ],
        rows,
        "Proposed minus control: below 0, CDP lowers the error. Interval: bootstrap over patients. Printed in the "
        "paper: 1.68 to 0.68 slices, and an R² about 0.02 higher.",
    )


def parameters(summary: dict[str, Any]) -> Table:
    """The design variables that the search of every fold ended with."""
    optimistic = mark(summary)
    names = ("arm", "seed", "fold", *DESIGN_VARIABLES, "epoch", "validation_f1", "slice_error_mean")
    return Table(
        "best_parameters",
        f"Parameters by fold{optimistic}",
        ["arm", "seed", "fold", *DESIGN_TITLES, "kept epoch", "validation F1", "mean error, slices"],
        [[_cell(row[name]) for name in names] for row in summary["best_parameters"]],
        "The validation F1 is that of the inner split (of the tested patients where the table is marked optimistic), "
        "a dash where the final training kept no patient back; the error is that of the held-out fold.",
    )


def as_text(table: Table) -> Iterable[str]:
    """Lines of the table in columns of equal width, for a terminal."""
    widths = [max(map(len, column)) for column in zip(table.columns, *table.rows, strict=True)]
    for row in (table.columns, ["-" * width for width in widths], *table.rows):
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def mark(figures: dict[str, Any]) -> str:
    """What follows a name whose figures flatter."""
    return " (optimistic)" if figures["optimistic"] else ""


def spread(figures: dict[str, Any], name: str, form: str = ".2f") -> str:
    """Mean ± SD of `name`."""
    return mean_sd(figures[f"{name}_mean"], figures[f"{name}_sd"], form)


def _error_row(arm: str, seed: str, figures: dict[str, Any]) -> list[str]:
    return [
        arm,
        seed,
        str(figures["patients"]),
        spread(figures, "slice_error"),
        number(figures["slice_error_median"], ".2f"),
        spread(figures, "slice_error_mm", ".1f"),
        number(figures["slice_error_mm_median"], ".1f"),
        number(figures["detection_rate"], ".1%"),
        number(figures["vertebra_error_rate"], ".1%"),
        number(figures["r2"], ".4f"),
        number(figures["slope"]),
        number(figures["intercept"], ".2f"),
    ]


def _pair_row(seed: str, pair: dict[str, Any], r2_difference: float | None) -> list[str]:
    interval = pair["interval"]
    return [
        seed,
        str(pair["patients"]),
        number(pair["mean_difference"], "+.2f"),
        UNDEFINED if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}",
        number(pair["wilcoxon_p"], ".2g"),
        str(pair["better"]),
        str(pair["equal"]),
        str(pair["worse"]),
        number(r2_difference, "+.4f"),
    ]


def _cell(value: Any) -> str:
    if value is None:
        return UNDEFINED
    return f"{value:.4g}" if isinstance(value, float) else str(value)
