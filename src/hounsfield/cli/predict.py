"""`hounsfield predict`: a registered model or a model folder on new scans."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from hounsfield.dicom.sources import input_files
from hounsfield.predict.model import USE, Predictor, load_predictor
from hounsfield.predict.run import DONE, PREDICTED, RESULTS, Outcome, predict_files
from hounsfield.registry.pull import MODELS, pulled


def run_predict(
    task: str,
    source: str,
    model: str,
    out: Path,
    tracking_uri: str,
    min_slices: int,
    batch_size: int,
    any_region: bool = False,
    fp32: bool = False,
) -> None:
    """Predict every series of `source` and print a line for each.

    Raises:
        ArtifactError: `model` is not a complete model of `task`.
        InputError: nothing to read, no such model or server, or no series was predicted.
    """
    with opened(task, model, tracking_uri, "fp32" if fp32 else "auto") as predictor:
        print(f"model: {predictor.name} version {predictor.version}; {USE}", flush=True)
        with input_files([source], exclude=out) as files:
            outcomes = predict_files(task, files, predictor, out, min_slices, batch_size, any_region)
    print("\n".join([*lines(outcomes), *unused(json.loads((out / RESULTS).read_text())["files_not_used"])]))
    print(f"{summary(outcomes)}; table: {out / RESULTS}")


@contextmanager
def opened(
    task: str, model: str, tracking_uri: str, precision: Literal["auto", "fp32"] = "auto"
) -> Iterator[Predictor]:
    """The predictor of a models:/ address or a model folder."""
    if model.startswith(MODELS):
        with pulled(model, tracking_uri) as version:
            yield load_predictor(task, version.directory, version.name, version.version, precision)
    else:
        yield load_predictor(task, Path(model), precision=precision)


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for every series: key, status, and its figures or the reason."""
    told = []
    for item in outcomes:
        figures = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in item.figures.items()
        )
        told.append(f"{item.series}  {item.status}  {figures or f'{item.reason}: {item.sentence}'}")
    return told


def unused(reasons: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for every reason for which files belong to no series."""
    return [f"not used: {item['files']} files, {name}: {item['sentence']}" for name, item in sorted(reasons.items())]


def summary(outcomes: Sequence[Outcome]) -> str:
    """How many series were predicted, had been before, or were not, with the reasons."""
    states = Counter(item.status for item in outcomes)
    reasons = Counter(item.reason for item in outcomes if item.reason)
    why = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    text = f"{states[PREDICTED]} series predicted, {states[DONE]} done before, {sum(reasons.values())} not predicted"
    return f"{text}{f' ({why})' if why else ''}"
