"""A comparison on disk: a new model and the champion on the same test patients, and what follows.

manifest.json    kind, version, task
comparison.json  `Comparison`
champion/        evaluation of the champion (`hounsfield.data.evaluation`), when there is one
decision.html    the decision as a page, likewise
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hounsfield.errors import ArtifactError
from hounsfield.storage import read_manifest, write_json, write_manifest

KIND = "comparison"
VERSION = 2
COMPARISON = "comparison.json"
CHAMPION = "champion"
PAGE = "decision.html"


class Comparison(BaseModel):
    """Headline figures of both models on the same patients; `champion_version` is empty without a champion."""

    model_config = ConfigDict(extra="forbid")

    task: str
    model_hash: str
    """SHA-256 of the new model's weights."""
    slice_set_hash: str
    patients: int
    challenger: dict[str, Any]
    champion: dict[str, Any]
    champion_version: str
    metric: str
    difference: float | None
    """Of the metric, challenger minus champion."""
    promote: bool
    reason: str
    """Sentences, as on the page."""
    figures: dict[str, dict[str, float | int | None]]
    """By name: both models' figure, the `difference` with `low` and `high` ends of its 95 % interval, `patients` and
    `resamples`; empty without a champion."""
    subgroups: dict[str, dict[str, Any]]
    """By kind and name: `patients` that carry the figures, whether it is `judged`, and the differences by figure."""
    rules: dict[str, Any]
    """Policy, margins, least numbers of patients, resamples and seed."""


def write_comparison(directory: Path, comparison: Comparison) -> None:
    """Write the comparison and, last, the manifest into an existing directory."""
    write_json(directory / COMPARISON, comparison.model_dump())
    write_manifest(directory, KIND, VERSION, task=comparison.task)


def read_comparison(directory: Path) -> Comparison:
    """The comparison in a directory.

    Raises:
        ArtifactError: the directory holds no complete comparison.
    """
    read_manifest(Path(directory), KIND, VERSION)
    try:
        return Comparison.model_validate_json((Path(directory) / COMPARISON).read_text())
    except (OSError, ValidationError) as error:
        raise ArtifactError(f"{directory}/{COMPARISON} cannot be read: {error}: compare again") from error
