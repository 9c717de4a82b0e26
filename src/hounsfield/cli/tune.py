"""`hounsfield tune`: a search on this machine."""

import difflib
import json
from pathlib import Path
from typing import Any

from hounsfield.cli.run import check_present
from hounsfield.components.data_version.run import version_of
from hounsfield.components.dicom_ingest.config import Config as Ingest
from hounsfield.components.train_l3.config import Config as TrainL3
from hounsfield.components.train_unet.config import Config as TrainUNet
from hounsfield.components.tune.config import Config as Tune
from hounsfield.components.window_convert.config import Config as Window
from hounsfield.errors import InputError
from hounsfield.pipelines.local import code_version
from hounsfield.remote import fetch
from hounsfield.step import StepConfig, parse
from hounsfield.storage import is_artifact, write_json

TRAINING: dict[str, type[StepConfig]] = {"lung-tumour": TrainUNet, "l3-slice": TrainL3}
INPUTS = "inputs.json"


def run_tune(
    search: dict[str, Any],
    slices: str | None,
    data: list[str],
    cases: str | None,
    out: Path,
    settings: list[str],
) -> dict[str, Any]:
    """Search with the fields `search` of tune's configuration; returns the best parameters and prints how to use them.

    Ctrl-C or a kill may come at any time: the same call goes on from there.

    Raises:
        InputError: not exactly one of `slices`, `data` and `cases`, or a setting that no step has.
        TrainingError: every trial failed.
    """
    from hounsfield.components.tune.run import run

    config = parse(Tune, search)
    if sum([slices is not None, bool(data), cases is not None]) != 1:
        raise InputError("give one of --slices (a slice set), --data (folders) or --cases (a CSV file)")
    steps: dict[str, type[StepConfig]] = {"training": TRAINING[config.task]}
    if slices is None:
        steps |= {"ingest": Ingest, "window": Window}
    values = split_settings(steps, settings)
    training = parse(TRAINING[config.task], values["training"])
    out = out.resolve()
    origin = f"--slices {slices}"
    if slices is not None:
        prepared = fetch(slices)
    else:
        ingest = parse(Ingest, values["ingest"])
        window = parse(Window, values["window"] | {"task": config.task})
        prepared = prepare(ingest, window, data, cases, out)
        origin = f"--cases {cases}" if cases else " ".join(f"--data {folder}" for folder in data)
    best: dict[str, Any] = json.loads(
        run(config, prepared, training.model_dump_json(), out / "tuning", out / "checkpoints")
    )
    given = [f"--set {setting}" for setting in settings if setting.partition("=")[0].replace("-", "_") not in best]
    chosen = [f"--set {name}={value}" for name, value in best.items()]
    print(f"  report  {out / 'tuning' / 'report.html'}")
    if best:
        print("  train with the best parameters:")
        if origin.startswith("--slices"):
            origin = "--data FOLDER"
        print(f"  hounsfield run {config.task} {origin} {' '.join(given + chosen)}", flush=True)
    return best


def split_settings(steps: dict[str, type[StepConfig]], settings: list[str]) -> dict[str, dict[str, str]]:
    """The `key=value` texts by the step that has the key.

    Raises:
        InputError: not of that form, or a key that no step has (the nearest known one is named).
    """
    values: dict[str, dict[str, str]] = {name: {} for name in steps}
    known = [key for step in steps.values() for key in step.model_fields]
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise InputError(f"--set {setting}: expected key=value")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise InputError(f"--set {setting}: no step of this search has {key}; {hint}")
        for name, step in steps.items():
            if key in step.model_fields:
                values[name][key] = text
    return values


def prepare(ingest: Ingest, window: Window, data: list[str], cases: str | None, out: Path) -> Path:
    """Series store and slice set under `out`, made again only when data, settings or code changed."""
    from hounsfield.components.dicom_ingest.run import run as run_ingest
    from hounsfield.components.window_convert.run import run as run_window

    check_present(data, cases)
    store, slices = out / "store", out / "slices"
    described = {
        "data": version_of(data, cases or ""),
        "code": code_version(),
        "ingest": ingest.model_dump(exclude={"workers"}),
        "window": window.model_dump(),
    }
    same_store = same_slices = False
    try:
        before = json.loads((out / INPUTS).read_text())
        same_store = is_artifact(store) and all(before[key] == described[key] for key in ("data", "code", "ingest"))
        same_slices = same_store and is_artifact(slices) and before["window"] == described["window"]
    except (OSError, ValueError, KeyError):
        pass
    if not same_store:
        run_ingest(ingest, data, cases, store)
    if not same_slices:
        run_window(window, store, slices)
        write_json(out / INPUTS, described)
    return slices
