"""Where runs are recorded: the SQLite file or server of a tracking URI, and the run that a step logs into."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy.exc import SQLAlchemyError

from hounsfield.errors import InputError

SQLITE = "sqlite:///"
SQLITE_HEADER = b"SQLite format 3\0"
PROBE_SECONDS = 6
"""To connect, and as much again to answer."""
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


@contextmanager
def recording(tracking_uri: str) -> Iterator[str]:
    """Send what the block logs to `tracking_uri` (empty: MLFLOW_TRACKING_URI, else ./mlflow.db), without chatter.

    Yields the resolved URI.

    Raises:
        InputError: nothing answers or can be written there, or MLflow refused what the block asked for.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    before = os.environ.get("MLFLOW_TRACKING_URI")
    uri = resolve(tracking_uri or before or f"{SQLITE}mlflow.db")
    mlflow.set_tracking_uri(uri)
    try:
        if uri.startswith(SQLITE):
            _make_tables(Path(uri.removeprefix(SQLITE)))
        yield uri
    except (MlflowException, OSError, SQLAlchemyError, Boto3Error, BotoCoreError, ClientError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"MLflow at {shown(uri)} refused: {reason}") from error
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]


def resolve(uri: str) -> str:
    """Make a SQLite URI absolute and its folder present; check that a server answers.

    Raises:
        InputError: the file or its folder cannot be written, or the server does not answer.
    """
    if uri.startswith(SQLITE):
        database = Path(uri.removeprefix(SQLITE)).absolute()
        _check_database(database)
        return f"{SQLITE}{database}"
    if uri.startswith(("http://", "https://")):
        try:
            answer = http_request(  # type: ignore[no-untyped-call]
                get_default_host_creds(uri),  # type: ignore[no-untyped-call]
                "/health",
                "GET",
                timeout=PROBE_SECONDS,
                max_retries=0,
                raise_on_status=False,
            )
        except MlflowException as error:
            raise InputError(
                f"no MLflow server answers at {shown(uri)}: start it or change MLFLOW_TRACKING_URI"
            ) from error
        if answer.status_code >= 500:
            raise InputError(f"the MLflow server at {shown(uri)} answers with HTTP {answer.status_code}: see its log")
    return uri


def shown(uri: str) -> str:
    """`uri` without user name and password."""
    return re.sub(r"//[^/@]*@", "//", uri)


def experiment_id(name: str, uri: str) -> str:
    """Experiment `name`, made when absent; beside a SQLite file its artifacts go to `mlartifacts/NAME`.

    An empty `name` stands for the injected MLFLOW_EXPERIMENT_ID.

    Raises:
        InputError: the experiment was deleted.
    """
    client = MlflowClient()
    if not name:
        return str(client.get_experiment(os.environ["MLFLOW_EXPERIMENT_ID"]).experiment_id)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = None
        if uri.startswith(SQLITE):
            location = (Path(uri.removeprefix(SQLITE)).parent / "mlartifacts" / name).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            experiment = client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        raise InputError(f"experiment {name} is deleted in MLflow: restore it there or choose another --experiment")
    return str(experiment.experiment_id)


@contextmanager
def open_run(experiment: str, uri: str, name: str, tags: dict[str, str]) -> Iterator[str]:
    """The injected run of MLFLOW_RUN_ID, whose status is left to its owner, or a new run called `name`.

    `experiment` only matters for a new run; empty, it is the injected MLFLOW_EXPERIMENT_ID. Yields the run's id.

    Raises:
        InputError: MLFLOW_RUN_ID names a run that is not there.
    """
    injected = os.environ.get("MLFLOW_RUN_ID")
    if injected:
        try:
            status = MlflowClient().get_run(injected).info.status
        except MlflowException as error:
            raise InputError(f"MLFLOW_RUN_ID {injected} is no run of MLflow at {shown(uri)}: unset it") from error
        mlflow.start_run(run_id=injected, nested=True, tags=tags)
        try:
            yield injected
        finally:
            mlflow.end_run(status)
    else:
        with mlflow.start_run(
            experiment_id=experiment_id(experiment, uri), run_name=name, nested=True, tags=tags
        ) as run:
            yield run.info.run_id


def _check_database(database: Path) -> None:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with database.open("ab+") as file:
            file.seek(0)
            header = file.read(len(SQLITE_HEADER))
        if not header:
            database.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write the MLflow database {database}: {error.strerror}: change MLFLOW_TRACKING_URI"
        ) from error
    if header not in (b"", SQLITE_HEADER):
        raise InputError(f"{database} is not a SQLite database: change MLFLOW_TRACKING_URI")


def _make_tables(database: Path) -> None:
    """Let MLflow make its tables, which it does not do safely in two processes at once."""
    with FileLock(database.with_name(f".{database.name}.lock")):
        MlflowClient().search_registered_models(max_results=1)
