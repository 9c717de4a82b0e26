"""Holds the figures of both papers' experiments on phantoms against what is promised."""

import json
import sys
from pathlib import Path
from typing import Any

ABLATION, STUDY = "lung-tumour-ablation", "l3-slice-study"
RUNS = 9


def at_least(value: float | None, limit: float) -> bool:
    return value is not None and value >= limit


def shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def checks(summary: dict[str, Any]) -> dict[str, bool]:
    """Each promise as a sentence, and whether it holds."""
    missing = [name for name in (ABLATION, STUDY) if name not in summary]
    if missing:
        return {f"{name} is in the summary": False for name in missing}
    ablation, study = summary[ABLATION], summary[STUDY]
    trained = [row for row in ablation["rows"] if row["by_seed"] and not row["missing_seeds"]]
    found = {f"{ABLATION}: {len(trained)} runs of {RUNS}, each with every seed": len(trained) == RUNS}
    for row in trained:
        limit = 0.85 if row["run"] == "U-Net+CL" else 0.6
        values = [run["average_precision"] for run in row["by_seed"].values()]
        worst = None if None in values else min(values)
        found[f"{ABLATION}: {row['run']} average precision {shown(worst)} >= {limit}"] = at_least(worst, limit)
    proposed = study["arms"]["proposed"]
    errors = [own["slice_error_mean"] for own in proposed["by_seed"].values()]
    for seed, error in zip(proposed["by_seed"], errors, strict=True):
        text = f"{STUDY}: proposed, seed {seed}: mean error {shown(error)} <= 1.0 slices"
        found[text] = error is not None and error <= 1.0
        rate = proposed["by_seed"][seed]["detection_rate"]
        found[f"{STUDY}: proposed, seed {seed}: detection rate {shown(rate)} >= 0.85"] = at_least(rate, 0.85)
    folds = not any(arm["missing"] for arm in study["arms"].values())
    return found | {
        f"{STUDY}: both arms have every fold": folds and bool(errors),
        "no figure is optimistic": not (ablation["optimistic"] or study["optimistic"]),
        "reports exist": all(Path(part["report"]).is_file() for part in (ablation, study)),
    }


if __name__ == "__main__":
    summary = json.loads(Path(sys.argv[1]).read_text())
    results = checks(summary)
    for text, holds in results.items():
        print("ok  " if holds else "FAIL", text)
    took = f"{summary['seconds']['total']:.0f} s for {summary['seeds']} seeds"
    print(f"note papers: {took}; 1800 s a seed are meant to suffice on two cores that do nothing else")
    sys.exit(not all(results.values()))
