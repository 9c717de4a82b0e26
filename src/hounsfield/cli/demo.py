"""`hounsfield demo`: synthetic CT, both pipelines, one summary."""

import os
import time
from pathlib import Path
from typing import Any

from hounsfield.cli.run import run_task
from hounsfield.storage import write_json

PSEUDONYM_KEY = "synthetic patients have nothing to hide"
SIZE = 256
REDUCED = "smaller networks and images than the papers', so that the demo fits into minutes on two cores"
COHORTS: dict[str, dict[str, Any]] = {
    "chest": {"patients": 36, "seed": 1, "size": SIZE, "slice_thickness": 6.0},
    "abdomen": {"patients": 40, "seed": 2, "size": SIZE, "slice_thickness": 5.0},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "lung-tumour": {
        "size": 128,
        "split_seed": 7,
        "test_fraction": 0.25,
        "val_fraction": 0.1,
        "base_channels": 16,
        "depth": 4,
        "batch_norm": True,
        "batch_size": 8,
        "epochs": 16,
        "learning_rate": 2e-3,
        "learning_rate_schedule": "one-cycle",
        "negatives_per_positive": 1.0,
        "augment": True,
        "keep": "last",
    },
    "l3-slice": {
        "size": 112,
        "split_seed": 2,
        "test_fraction": 0.25,
        "val_fraction": 0.1,
        "architecture": "resnet18",
        "epochs": 10,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "learning_rate_schedule": "one-cycle",
        "oversampling_rate": 0.1,
        "augment": True,
        "keep": "last",
    },
}
LUNG_FIGURES = ("f1", "precision", "recall", "average_precision")


def run_demo(out: Path) -> None:
    """Write `OUT/summary.json` with the figures of unseen test patients and the seconds of every step."""
    os.environ["HOUNSFIELD_PSEUDONYM_KEY"] = PSEUDONYM_KEY
    from hounsfield.phantom import write_cohort

    out = out.resolve()
    seconds: dict[str, float] = {}
    summary: dict[str, Any] = {"seconds": seconds}
    started = time.monotonic()
    for task, region in (("lung-tumour", "chest"), ("l3-slice", "abdomen")):
        cohort = COHORTS[region]
        cases = out / "data" / region / "cases.csv"
        begin = time.monotonic()
        print(f"{region}: {cohort['patients']} synthetic patients", flush=True)
        if not cases.is_file():
            cases = write_cohort(region, out / "data" / region, **cohort)  # type: ignore[arg-type]
        seconds[f"{region} phantoms"] = round(time.monotonic() - begin, 1)
        settings = [f"{key}={value}" for key, value in SETTINGS[task].items()]
        settings.append(f"tracking_uri={os.environ.get('MLFLOW_TRACKING_URI') or f'sqlite:///{out}/mlflow.db'}")
        run, metrics = run_task(task, [], cases, out / task, settings)
        seconds |= {f"{task} {step}": value for step, value in run.seconds.items()}
        figures = lung_figures(metrics) if task == "lung-tumour" else l3_figures(metrics)
        summary[task] = figures | {
            "patients": metrics["patients"],
            "model_uri": run.outputs["model_uri"],
            "tracking_uri": run.outputs["tracking_uri"],
            "report": run.outputs["report"],
            "settings": SETTINGS[task],
            "note": REDUCED,
        }
    seconds["total"] = round(time.monotonic() - started, 1)
    write_json(out / "summary.json", summary)
    print_summary(summary, out / "summary.json")


def lung_figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """Pooled pixels and per patient."""
    pooled = {name: metrics["pooled"][name] for name in LUNG_FIGURES}
    return pooled | {"dice_per_patient_mean": metrics["per_patient"]["dice_mean"]}


def l3_figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """Slice errors per series and the classification of slices."""
    names = ("slice_error_mean", "slice_error_sd", "slice_error_mm_mean", "detection_rate")
    return {name: metrics["per_patient"][name] for name in names} | {
        name: metrics["pooled"][name] for name in ("f1", "average_precision")
    }


def print_summary(summary: dict[str, Any], path: Path) -> None:
    """The figures, for people."""
    lung, l3 = summary["lung-tumour"], summary["l3-slice"]
    print(
        f"\nlung-tumour  {lung['patients']} unseen patients: F1 {lung['f1']:.3f}, precision {lung['precision']:.3f}, "
        f"recall {lung['recall']:.3f}, AP {lung['average_precision']:.3f}, "
        f"Dice per patient {lung['dice_per_patient_mean']:.3f}"
    )
    print(
        f"l3-slice     {l3['patients']} unseen patients: slice error {l3['slice_error_mean']:.2f} "
        f"+- {l3['slice_error_sd']:.2f} ({l3['slice_error_mm_mean']:.1f} mm), detected {l3['detection_rate']:.0%}, "
        f"AP {l3['average_precision']:.3f}"
    )
    print(f"{REDUCED}\n{summary['seconds']['total']:.0f} s; summary: {path}")
