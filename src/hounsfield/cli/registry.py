"""`hounsfield models`: versions of registered models, their champion and its history."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hounsfield.errors import InputError
from hounsfield.registry import history, tracking
from hounsfield.registry.history import CHAMPION

FIGURES = {
    "average_precision": "AP",
    "f1": "F1",
    "dice_per_patient_mean": "Dice",
    "detection_rate": "detected",
    "slice_error_mm_mean": "error (mm)",
}
"""Headline figures of a version (its tags), and their columns."""
WIDTH_OF_FILES = 200
PAGE = 100
Row = dict[str, Any]


def list_models(name: str, tracking_uri: str, as_json: bool) -> None:
    """Print the versions of the registered model `name`, or of all, newest first.

    Raises:
        InputError: there is no such model, or MLflow cannot be reached.
    """
    with registry(tracking_uri) as place:
        found = [find(name, place)] if name else everything()
        listed = [describe(model) for model in found]
    if as_json:
        print(json.dumps(listed, indent=2))
        return
    if not listed:
        print(f"no registered models at {place}")
    for model in listed:
        show_versions(model)


def promote(name: str, version: str, reason: str, tracking_uri: str, as_json: bool) -> None:
    """Make `version` (a number or an alias) of `name` champion and record why.

    Raises:
        InputError: no such model or version, it is champion already, the reason is empty, or MLflow cannot be reached.
    """
    why = history.check_reason(reason)
    with registry(tracking_uri) as place:
        model = find(name, place)
        number = resolve(model, version)
        before = str(model.aliases.get(CHAMPION, ""))
        events = history.read_events(model.tags)
        if before == number and history.course(events).champion in ("", number):
            raise InputError(f"version {number} of {name} is the champion already: nothing was changed")
        now = history.move(name, int(number), history.PROMOTE, why)
    announce(name, before, number, now, as_json)


def rollback(name: str, reason: str, tracking_uri: str, as_json: bool) -> None:
    """Make the champion before the present one champion again and record why.

    Raises:
        InputError: no such model, it has no champion or no earlier one, that was deleted, the reason is empty, or
            MLflow cannot be reached.
    """
    why = history.check_reason(reason)
    with registry(tracking_uri) as place:
        model = find(name, place)
        before = str(model.aliases.get(CHAMPION, ""))
        if not before:
            raise InputError(f"{name} has no champion to roll back: promote one of {known(numbers(name))}")
        target = history.champion_before(model)
        if not target:
            raise InputError(
                f"version {before} is the first champion of {name} that its history knows: promote one of "
                f"{known(numbers(name))}"
            )
        if target not in numbers(name):
            raise InputError(
                f"version {target} of {name} was champion before {before}, but is deleted: promote one of "
                f"{known(numbers(name))}"
            )
        now = history.move(name, int(target), history.ROLLBACK, why)
    announce(name, before, target, now, as_json)


def print_history(name: str, tracking_uri: str, as_json: bool) -> None:
    """Print every move of the champion of `name`: when, who, what and why.

    Raises:
        InputError: no such model, or MLflow cannot be reached.
    """
    with registry(tracking_uri) as place:
        model = find(name, place)
    events = history.read_events(model.tags)
    counted = history.course(events).effective
    rows: list[Row] = [
        {
            "event": event.key,
            "time": event.time,
            "who": event.who,
            "action": event.action,
            "from": event.before,
            "to": event.to,
            "reason": event.reason,
            "effective": event.key in counted,
        }
        for event in events
    ]
    if as_json:
        print(json.dumps({"name": name, "champion": str(model.aliases.get(CHAMPION, "")), "events": rows}, indent=2))
        return
    title = f"{name}: champion is version {model.aliases.get(CHAMPION, 'none')}"
    table = new_table(title, ("when (UTC)", "who", "action", "from", "to", "reason"))
    for row in rows:
        reason = row["reason"] if row["effective"] else f"(no effect, another came first) {row['reason']}"
        line = (row["time"][:19].replace("T", " "), row["who"], row["action"], row["from"] or "-", row["to"], reason)
        table.add_row(*map(escape, line))
    console().print(table)
    note(model)


@contextmanager
def registry(tracking_uri: str) -> Iterator[str]:
    """MLflow at `tracking_uri` (empty: MLFLOW_TRACKING_URI, else ./mlflow.db), which must be there; yields its name.

    Raises:
        InputError: it is not, or it refuses.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"{tracking.SQLITE}mlflow.db"
    if uri.startswith(tracking.SQLITE) and not Path(uri.removeprefix(tracking.SQLITE)).is_file():
        raise InputError(
            f"there is no MLflow database {uri.removeprefix(tracking.SQLITE)}: name the file or server of the models "
            "by --tracking-uri or MLFLOW_TRACKING_URI"
        )
    with tracking.recording(uri) as resolved:
        yield tracking.shown(resolved)


def everything() -> list[RegisteredModel]:
    """All registered models, by name."""
    client, token = MlflowClient(), None
    found: list[RegisteredModel] = []
    while token != "":
        page = client.search_registered_models(max_results=PAGE, order_by=["name"], page_token=token)
        found += page
        token = page.token or ""
    return found


def find(name: str, place: str) -> RegisteredModel:
    """The registered model `name`.

    Raises:
        InputError: there is none; the sentence names those that there are.
    """
    try:
        return MlflowClient().get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise InputError(
            f"MLflow at {place} has no registered model {name}: it has {listed(model.name for model in everything())}"
        ) from error


def versions(name: str) -> list[ModelVersion]:
    """All versions of `name`, newest first."""
    client, token = MlflowClient(), None
    found: list[ModelVersion] = []
    while token != "":
        page = client.search_model_versions(f"name='{name}'", max_results=PAGE, page_token=token)
        found += page
        token = page.token or ""
    return sorted(found, key=lambda version: -int(version.version))


def numbers(name: str) -> list[str]:
    """The numbers of all versions of `name`, oldest first."""
    return [str(version.version) for version in reversed(versions(name))]


def resolve(model: RegisteredModel, version: str) -> str:
    """The number of a version that is given as one or as an alias.

    Raises:
        InputError: there is none; the sentence names those that there are.
    """
    number = str(model.aliases.get(version, version))
    if number not in numbers(model.name):
        raise InputError(
            f"{model.name} has no version or alias {version}: it has {known(numbers(model.name))}, aliases "
            f"{listed(sorted(model.aliases))}"
        )
    return number


def describe(model: RegisteredModel) -> Row:
    """A registered model and its versions, for JSON."""
    return {
        "name": model.name,
        "champion": str(model.aliases.get(CHAMPION, "")),
        "note": moved_outside(model),
        "versions": [
            {
                "version": int(version.version),
                "aliases": sorted(
                    name for name, holder in model.aliases.items() if str(holder) == str(version.version)
                ),
                "metrics": {name: float(version.tags[name]) for name in FIGURES if name in version.tags},
                "dataset_hash": version.tags.get("dataset_hash", ""),
                "git_commit": version.tags.get("git_commit") or commit_of_run(version.run_id),
                "verdict": version.tags.get("gate", ""),
                "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
            }
            for version in versions(model.name)
        ],
    }


def commit_of_run(run_id: str | None) -> str:
    """The git commit that a run was tagged with; empty without one, or without the run."""
    try:
        return str(MlflowClient().get_run(run_id).data.tags.get("git_commit", "")) if run_id else ""
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ""


def moved_outside(model: RegisteredModel) -> str:
    """A sentence when alias and history disagree; empty when they do not, or when there is no history."""
    due, now = history.course(history.read_events(model.tags)).champion, str(model.aliases.get(CHAMPION, ""))
    if due in ("", now):
        return ""
    return (
        f"The history of {model.name} makes version {due} champion, the alias is at {now or 'none'}: it was moved in "
        "MLflow, or a move was broken off; `hounsfield models promote` settles it."
    )


def show_versions(model: Row) -> None:
    """Print the versions of a model as a table."""
    figures = [name for name in FIGURES if any(name in row["metrics"] for row in model["versions"])]
    columns = ("version", "alias", *(FIGURES[name] for name in figures), "data", "commit", "created (UTC)", "verdict")
    table = new_table(f"{model['name']}, {len(model['versions'])} versions. Research use only.", columns)
    for row in model["versions"]:
        table.add_row(
            str(row["version"]),
            ", ".join(row["aliases"]),
            *(f"{row['metrics'][name]:.4g}" if name in row["metrics"] else "" for name in figures),
            row["dataset_hash"][:12],
            row["git_commit"][:10],
            row["created"][:16].replace("T", " "),
            escape(row["verdict"]),
        )
    console().print(table)
    if model["note"]:
        print(model["note"])


def note(model: RegisteredModel) -> None:
    """Print where alias and history disagree."""
    if sentence := moved_outside(model):
        print(sentence)


def announce(name: str, before: str, wanted: str, now: int, as_json: bool) -> None:
    """Print what a move came to."""
    if as_json:
        print(json.dumps({"name": name, "from": before, "to": wanted, "champion": str(now)}))
    elif str(now) == wanted:
        print(f"champion of {name} is version {now}, before it was {before or 'none'}")
    else:
        print(
            f"version {now} of {name} was made champion at the same time and stays; version {wanted} is in the history"
        )


def listed(names: Iterator[str] | list[str]) -> str:
    """Names with commas, or `none`."""
    return ", ".join(names) or "none"


def known(found: list[str]) -> str:
    """`versions 1, 2, 3`; of many the last ten."""
    return f"versions {'... ' if len(found) > 10 else ''}{listed(found[-10:])}"


def new_table(title: str, columns: tuple[str, ...]) -> Table:
    """An empty table."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table


def console() -> Console:
    """Of the terminal's width, or wide where output goes to a file."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_FILES)
