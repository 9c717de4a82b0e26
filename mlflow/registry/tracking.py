"""Where runs are recorded: the SQLite file or server of a tracking URI, and the run that a step logs into."""

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from requests.exceptions import ConnectionError as RequestsConnectionError
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from hounsfield.errors import InputError

SQLITE = "sqlite:///"
SQLITE_HEADER = b"SQLite format 3\0"
ARTIFACTS = "/mlflow-artifacts/"
SERVER_ERROR = re.compile(r"\b5\d\d Server Error|too many 5\d\d error responses")
PROBE = "/api/2.0/mlflow/registered-models/search"
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
DATABASE = re.compile(rf"({'|'.join(PORTS)})(\+\w+)?://")
PROBE_SECONDS = 6
"""To connect, and as much again to answer."""
S3_REFUSAL = re.compile(r"An error occurred \((\w+)\)")
INJECTED = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")
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

    The run and experiment that KFP's MLflow plugin injected belong to the server of MLFLOW_TRACKING_URI: at another one
    they do not count. Yields the resolved URI.

    Raises:
        InputError: nothing answers or can be written there, or MLflow refused what the block asked for.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    before = os.environ.get("MLFLOW_TRACKING_URI")
    uri = resolve(tracking_uri or before or f"{SQLITE}mlflow.db")
    elsewhere = before is not None and before.startswith("http") and before.rstrip("/") != uri.rstrip("/")
    injected = {name: os.environ[name] for name in INJECTED if name in os.environ}
    for name in injected if elsewhere else ():
        del os.environ[name]
    mlflow.set_tracking_uri(uri)
    try:
        if uri.startswith(SQLITE):
            _make_tables(Path(uri.removeprefix(SQLITE)))
        yield uri
    except (MlflowException, OSError, SQLAlchemyError, Boto3Error, BotoCoreError, ClientError) as error:
        raise InputError(explain(error, shown(uri))) from error
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
        os.environ.update(injected)  # MLflow takes MLFLOW_RUN_ID away when a run ends


def explain(error: Exception, place: str) -> str:
    """One sentence about what MLflow at `place` answered, with the setting to change where its cause is known."""
    text = str(error)
    if "Invalid Host header" in text:
        return (
            f"the MLflow server at {place} refuses that host name: add it to MLFLOW_SERVER_ALLOWED_HOSTS of the server"
        )
    if SERVER_ERROR.search(text) and ARTIFACTS in text:
        return (
            f"the MLflow server at {place} cannot read or write its artifacts: see its log, and check its "
            "MLFLOW_ARTIFACTS_DESTINATION, AWS_ENDPOINT_URL and AWS credentials"
        )
    refused = S3_REFUSAL.search(text)
    if refused or isinstance(error, Boto3Error | BotoCoreError | ClientError):
        answer = refused[1] if refused else type(error).__name__
        return (
            f"the S3 storage of MLflow at {place} refused: {answer}: check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY of this step"
        )
    if isinstance(error, RequestsConnectionError) or "Max retries exceeded" in text:
        return f"the MLflow server at {place} stopped answering: repeat the step when it is back, it goes on from there"
    return f"MLflow at {place} refused: {next(iter(text.splitlines()), type(error).__name__)}"


def resolve(uri: str) -> str:
    """Make a SQLite URI absolute and its folder present; check that a server answers.

    Raises:
        InputError: the file or its folder cannot be written, the server does not answer or is no MLflow.
    """
    if uri.startswith(SQLITE):
        database = Path(uri.removeprefix(SQLITE)).absolute()
        _check_database(database)
        return f"{SQLITE}{database}"
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    elif DATABASE.match(uri):
        _check_port(uri)
    return uri


def _check_server(uri: str) -> None:
    """By a request that needs its database as well: /health answers without it."""
    try:
        answer = http_request(  # type: ignore[no-untyped-call]
            get_default_host_creds(uri),  # type: ignore[no-untyped-call]
            PROBE,
            "GET",
            params={"max_results": 1},
            timeout=PROBE_SECONDS,
            max_retries=0,
            raise_on_status=False,
        )
    except MlflowException as error:
        raise InputError(f"no MLflow server answers at {shown(uri)}: start it or change MLFLOW_TRACKING_URI") from error
    if answer.status_code >= 500:
        raise InputError(f"the MLflow server at {shown(uri)} answers with HTTP {answer.status_code}: see its log")
    if "Invalid Host header" in answer.text:
        raise InputError(explain(MlflowException(answer.text), shown(uri)))
    if answer.status_code in (401, 403):
        raise InputError(
            f"the MLflow server at {shown(uri)} refuses access (HTTP {answer.status_code}): set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    try:
        answer.json()
    except ValueError as error:
        raise InputError(
            f"what answers at {shown(uri)} is no MLflow server (HTTP {answer.status_code}, no JSON): change "
            "MLFLOW_TRACKING_URI"
        ) from error


def _check_port(uri: str) -> None:
    """MLflow tries again for minutes where nothing listens."""
    url = make_url(uri)
    place = url.host or "localhost", url.port or PORTS[url.get_backend_name()]
    try:
        socket.create_connection(place, PROBE_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"no database answers at {place[0]}:{place[1]} ({error.strerror or error}): start it or change "
            "MLFLOW_TRACKING_URI"
        ) from error


def shown(uri: str) -> str:
    """`uri` without user name and password."""
    return re.sub(r"//[^/@]*@", "//", uri)


def experiment_id(name: str, fallback: str, uri: str) -> str:
    """Experiment `name`, else the injected MLFLOW_EXPERIMENT_ID, else experiment `fallback`.

    A named one is made when absent; beside a SQLite file its artifacts go to `mlartifacts/NAME`.

    Raises:
        InputError: the experiment was deleted.
    """
    client = MlflowClient()
    if not name and (injected := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        return str(client.get_experiment(injected).experiment_id)
    name = name or fallback
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
def open_run(experiment: str, fallback: str, uri: str, name: str, tags: dict[str, str], same: str) -> Iterator[str]:
    """The run that a step logs into; yields its id.

    An injected run is adopted, and its status left to its owner. Otherwise the newest run of the experiment that fits
    the filter `same` is gone on with, or a new one called `name` is opened; it ends with the block. `experiment` and
    `fallback` are those of `experiment_id`.

    Raises:
        InputError: MLFLOW_RUN_ID names a run that is not there.
    """
    client = MlflowClient()
    if injected := os.environ.get("MLFLOW_RUN_ID"):
        try:
            status = client.get_run(injected).info.status
        except MlflowException as error:
            raise InputError(f"MLFLOW_RUN_ID {injected} is no run of MLflow at {shown(uri)}: unset it") from error
        mlflow.start_run(run_id=injected, nested=True, tags=tags)
        try:
            yield injected
        finally:
            mlflow.end_run(status)
        return
    place = experiment_id(experiment, fallback, uri)
    started = client.search_runs([place], same, run_view_type=ViewType.ACTIVE_ONLY, max_results=1)
    opening = {"run_id": started[0].info.run_id} if started else {"experiment_id": place, "run_name": name}
    with mlflow.start_run(**opening, nested=True, tags=tags) as run:
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
