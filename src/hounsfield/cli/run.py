"""`hounsfield run`: one pipeline on this machine."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hounsfield.components.data_version.run import version_of
from hounsfield.components.describe import COMMON
from hounsfield.data.evaluation import read_metrics
from hounsfield.errors import InputError
from hounsfield.pipelines.catalog import PIPELINES
from hounsfield.pipelines.inputs import parse_settings, signature
from hounsfield.pipelines.local import PipelineRun, code_version, run_pipeline
from hounsfield.remote import Location, is_remote
from hounsfield.storage import write_json


def run_task(
    task: str,
    data: list[str],
    cases: Location | None,
    out: Path,
    settings: list[str],
    cache: bool = True,
    runner: str = "subprocess",
    registry: str = "",
) -> tuple[PipelineRun, dict[str, Any]]:
    """Run `task` and print where report, model and registry are; returns the run and its figures.

    The figures are those of metrics.json of the evaluation, for an experiment those of its summary.json. `runner` is
    "subprocess" or "docker", which takes its images from `registry` (empty: this machine).

    Raises:
        InputError: no data, or both `data` and `cases`, or a setting that the pipeline does not have.
        HounsfieldError: a step failed.
    """
    inputs = parse_settings(PIPELINES[task], settings)
    if not data and cases is None:
        raise InputError("nothing to run on: give --data FOLDER (or s3://bucket/prefix) or --cases FILE")
    if data and cases is not None:
        raise InputError("--data and --cases exclude each other: name the folders in the cases file")
    check_present(data, cases)
    out = out.resolve()
    inputs |= {
        "data": ",".join(absolute(folder) for folder in data),
        "cases": absolute(cases) if cases else "",
        "code_version": code_version(),
    }
    known = signature(PIPELINES[task]).parameters
    if "data_version" in known:
        inputs["data_version"] = version_of([absolute(folder) for folder in data], absolute(cases) if cases else "")
    for name, value in (
        ("dataset", str(out / "dataset")),
        ("checkpoints", str(out / "checkpoints")),
        ("tracking_uri", os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out / 'mlflow.db'}"),
    ):
        if name in known:
            inputs.setdefault(name, value)
    print(f"{task}: running in {out}", flush=True)
    finished = run_pipeline(task, inputs, out, cache=cache, runner=runner, registry=registry)
    figures = collect(finished, out)
    if "tracking_uri" in inputs:
        finished.outputs["tracking_uri"] = inputs["tracking_uri"]
    write_json(out / "result.json", {"task": task, **finished.outputs, "seconds": finished.seconds})
    announce(finished)
    return finished, figures


def absolute(location: Location) -> str:
    """The same place seen from any folder."""
    return str(location) if is_remote(location) else str(Path(location).resolve())


def check_present(data: list[str], cases: Location | None) -> None:
    """Check that local folders and a local cases file are there.

    Raises:
        InputError: names the one that is not.
    """
    for folder in data:
        if not is_remote(folder) and not Path(folder).exists():
            raise InputError(f"--data {folder}: no such folder")
    if cases is not None and not is_remote(cases) and not Path(cases).is_file():
        raise InputError(f"--cases {cases}: no such file")


def collect(finished: PipelineRun, out: Path) -> dict[str, Any]:
    """Copy the report of the evaluation or the experiment to `out`, and return its figures; none of a retraining."""
    summary = finished.outputs.get("summary")
    if "decision" in finished.outputs:
        return {}
    source = Path(summary or finished.outputs["evaluation"])
    report = out / "report.html"
    shutil.copyfile(source / "report.html", report)
    finished.outputs["report"] = str(report)
    figures: dict[str, Any] = json.loads((source / "summary.json").read_text()) if summary else read_metrics(source)
    return figures


def announce(finished: PipelineRun) -> None:
    """Print where everything is."""
    outputs = finished.outputs
    if "decision" in outputs:
        what = "a model was trained and registered" if outputs["decision"] == "retrain" else "nothing to train"
        print(f"  dataset   version {outputs['version']}: {what}", flush=True)
        return
    print(f"  report    {outputs['report']}")
    if "summary" in outputs:
        print(f"  summary   {Path(outputs['summary']) / 'summary.json'}  (figures and tables beside it)", flush=True)
    if "model_uri" in outputs:
        print(f"  model     {outputs['model_uri']}  (files: {outputs['model']})")
        uri = outputs["tracking_uri"]
        local = uri.startswith("sqlite:")
        print(f"  registry  {f'mlflow ui --backend-store-uri {uri}' if local else uri}", flush=True)


def print_inputs(task: str) -> None:
    """A table of the pipeline's inputs: name, type, default, description."""
    pipeline = PIPELINES[task]
    described = {name: item.description for name, item in pipeline.component_spec.inputs.items()}  # type: ignore[attr-defined]
    table = Table("input", "type", "default", "description", title=f"inputs of {task}")
    for name, item in signature(pipeline).parameters.items():
        text = described.get(name) or COMMON.get(name, "")
        table.add_row(name, item.annotation.__name__, str(item.default), text)
    Console().print(table)
