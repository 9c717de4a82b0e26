"""`hounsfield submit` against a server built from the published description of the KFP API."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kfp_server
import pytest
from kfp_server import DATA, Failure, KfpServer, call, details, finish

from hounsfield.cli import submit
from hounsfield.errors import InputError
from hounsfield.pipelines.catalog import PIPELINES
from hounsfield.pipelines.placement import Cluster

api = kfp_server.api


def submitted(api: KfpServer, *arguments: str) -> tuple[int, str]:
    return call("submit", "lung-tumour", "--host", api.url, *DATA, *arguments)


def steps(run: dict[str, Any], asked: int) -> None:
    """A run that trains in its second poll and ends in its third."""
    if asked == 1:
        run["state"] = "RUNNING"
        details(run, dicom_ingest="SKIPPED", window_convert="RUNNING")
    elif asked == 2:
        details(run, dicom_ingest="SKIPPED", window_convert="SUCCEEDED", train_unet="RUNNING")
    else:
        details(run, dicom_ingest="SKIPPED", window_convert="SUCCEEDED", train_unet="SUCCEEDED")
        finish(run)


def test_a_run_is_submitted_followed_and_succeeds(api: KfpServer) -> None:
    api.run_states = steps
    code, output = submitted(api, "--set", "epochs=3", "--set", "learning-rate=0.001", "--set", "augment=true")
    assert code == 0, output
    (run,) = api.runs.values()
    assert f"{api.url}/#/runs/details/{run['run_id']}" in output
    assert [line.split()[:2] for line in output.splitlines() if line.startswith("  ")][1:-1] == [
        ["-", "dicom-ingest"], ["...", "window-convert"], ["ok", "window-convert"], ["...", "train-unet"],
        ["ok", "train-unet"],
    ]  # fmt: skip
    assert "root" not in output
    assert "driver" not in output
    given = run["runtime_config"]["parameters"]
    assert given == {"data": "s3://hospital/ct", "epochs": 3, "learning_rate": 0.001, "augment": True}
    assert run["service_account"] == "hounsfield-pipelines"
    (experiment,) = api.experiments.values()
    assert (experiment["display_name"], run["experiment_id"]) == ("hounsfield", experiment["experiment_id"])
    (version,) = api.versions.values()
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert version["name"].startswith("0.1.0-")
    tasks = version["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert "train-unet" in tasks


def test_an_unchanged_pipeline_is_not_uploaded_again_and_another_pool_is_another_version(api: KfpServer) -> None:
    first, second = submitted(api), submitted(api, "--no-wait")
    assert first[0] == second[0] == 0
    assert ("new version 0.1.0-" in first[1], "new version" in second[1]) == (True, False)
    assert api.log.count("UploadPipelineVersion") == api.log.count("CreatePipeline") == 1
    assert api.log.count("CreateExperiment") == 1
    assert submitted(api, "--pool", "gke")[0] == 0
    assert len(api.versions) == 2
    assert len(api.pipelines) == 1
    assert len(api.runs) == 3


def test_without_waiting_the_run_is_not_asked_for(api: KfpServer) -> None:
    code, output = submitted(api, "--no-wait")
    assert (code, api.asked) == (0, {})
    assert "/#/runs/details/" in output


def test_a_failed_task_is_named_with_its_error(api: KfpServer) -> None:
    def states(run: dict[str, Any], asked: int) -> None:
        details(run, dicom_ingest="SUCCEEDED", train_unet=("FAILED", "This step is in Failed state: exit status 4"))
        finish(run, "FAILED")

    api.run_states = states
    code, output = submitted(api)
    assert code == 1
    assert "lung-tumour: train-unet failed: This step is in Failed state: exit status 4" in output
    assert "kubectl logs lung-tumour-abcde-train-unet" in output


def test_the_inner_task_of_a_loop_is_blamed_not_the_loop(api: KfpServer) -> None:
    def states(run: dict[str, Any], asked: int) -> None:
        run["state"] = "FAILED"
        details(run, for_loop_1=("FAILED", "child failed"), train_unet=("FAILED", "out of memory"))
        loop, inner = (
            next(item for item in run["run_details"]["task_details"] if item["display_name"] == name)
            for name in ("for-loop-1", "train-unet")
        )
        inner["parent_task_id"] = loop["task_id"]

    api.run_states = states
    code, output = call("submit", "lung-tumour-ablation", "--host", api.url, *DATA)
    assert code == 1
    assert "train-unet failed: out of memory" in output


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("pods is forbidden: exceeded quota: gpu, requested: 1, used: 8, limited: 8", "ResourceQuota of the namespace"),
        (
            "ImagePullBackOff: Back-off pulling image hounsfield-python:0.1.0",
            "check --registry, --tag and --pull-secret",
        ),
        ("Unschedulable: 0/5 nodes are available: 5 Insufficient nvidia.com/gpu", "check --pool"),
    ],
)
def test_common_causes_name_the_setting(api: KfpServer, message: str, hint: str) -> None:
    def states(run: dict[str, Any], asked: int) -> None:
        details(run, train_unet=("FAILED", message))
        finish(run, "FAILED")

    api.run_states = states
    code, output = submitted(api)
    assert code == 1
    assert hint in output


def test_a_helper_that_fails_before_any_task_is_named(api: KfpServer) -> None:
    def states(run: dict[str, Any], asked: int) -> None:
        run["run_details"] = {
            "task_details": [kfp_server.task(run, "dicom-ingest-driver", "FAILED", "no such account")]
        }
        finish(run, "FAILED")

    api.run_states = states
    code, output = submitted(api)
    assert (code, "dicom-ingest-driver failed: no such account" in output) == (1, True)


@pytest.mark.parametrize(("state", "text"), [("CANCELED", "was cancelled"), ("FAILED", "deadline exceeded")])
def test_a_run_that_ends_without_tasks_says_why(api: KfpServer, state: str, text: str) -> None:
    def states(run: dict[str, Any], asked: int) -> None:
        run["error"] = {"code": 4, "message": "deadline exceeded"}
        finish(run, state)

    api.run_states = states
    code, output = submitted(api)
    assert (code, text in output) == (1, True)


def test_waiting_ends_after_the_timeout_and_the_run_goes_on(api: KfpServer) -> None:
    api.run_states = lambda run, asked: run.update(state="RUNNING")
    code, output = submitted(api, "--timeout", "0.002")
    assert code == 1
    assert "not done after 0.002 minutes; the run goes on: http" in output


def test_waiting_survives_a_server_that_restarts(api: KfpServer) -> None:
    outages = iter([Failure(503, "no healthy upstream"), Failure(500, "database is locked")])

    def before(operation: str) -> None:
        if operation.endswith("GetRun") and (error := next(outages, None)):
            raise error

    api.before, api.run_states = before, steps
    code, output = submitted(api)
    assert code == 0, output


def test_a_session_that_ends_while_waiting_is_renewed_once_else_told(
    api: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    api.header = ("Authorization", "Bearer first")

    def states(run: dict[str, Any], asked: int) -> None:
        run["state"] = "RUNNING"
        api.header = ("Authorization", "Bearer second")

    api.run_states = states
    code, output = submitted(api)
    assert code == 2
    assert "does not accept the credentials" in output
    assert "the run goes on: http" in output


def test_a_renewed_service_account_token_is_read_again(
    api: KfpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    api.header = ("Authorization", "Bearer first")

    def states(run: dict[str, Any], asked: int) -> None:
        token.write_text("second")
        api.header = ("Authorization", "Bearer second")
        steps(run, asked)

    api.run_states = states
    assert submitted(api)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing to run on: give --data s3://BUCKET/PREFIX"),
        (["--data", "/data/ct"], "/data/ct: the cluster does not see folders of this machine: copy it to a bucket"),
        (["--cases", "cases.csv"], "cases.csv: the cluster does not see folders"),
        ([*DATA, "--cases", "s3://b/cases.csv"], "--data and --cases exclude each other"),
        ([*DATA, "--set", "data=/mnt/ct"], "--data and --set data=... exclude each other"),
        ([*DATA, "--set", "epoch=3"], "did you mean epochs?"),
        ([*DATA, "--set", "epochs=many"], "expected a value of type int"),
        ([*DATA, "--pool", "tpu"], "tpu"),
    ],
)
def test_bad_input_is_refused_before_any_request(api: KfpServer, arguments: list[str], sentence: str) -> None:
    code, output = call("submit", "lung-tumour", "--host", api.url, *arguments)
    assert code == 2
    assert sentence in output
    assert api.log == []


def test_a_mounted_folder_can_be_set(api: KfpServer) -> None:
    assert call("submit", "l3-slice", "--host", api.url, "--set", "data=/mnt/ct", "--no-wait")[0] == 0
    (run,) = api.runs.values()
    assert run["runtime_config"]["parameters"]["data"] == "/mnt/ct"


# Nothing half-created


def test_a_failed_upload_leaves_no_empty_pipeline(api: KfpServer) -> None:
    def before(operation: str) -> None:
        if operation == "UploadPipelineVersion":
            raise Failure(500, "cannot write to the object store")

    api.before = before
    code, output = submitted(api)
    assert (code, "cannot write to the object store" in output) == (2, True)
    assert api.pipelines == api.versions == api.runs == {}


def test_a_version_uploaded_by_another_at_the_same_time_is_used(api: KfpServer) -> None:
    assert submitted(api, "--no-wait")[0] == 0
    known, hidden = api.versions, [True]

    def before(operation: str) -> None:
        if operation == "UploadPipelineVersion":
            hidden[0] = False
        api.versions = {} if hidden[0] and operation.endswith("ListPipelineVersions") else known

    api.before = before
    code, output = submitted(api, "--no-wait")
    assert code == 0, output
    assert len(api.versions) == 1


def test_a_used_up_quota_is_named(api: KfpServer) -> None:
    def before(operation: str) -> None:
        if operation.endswith("CreateRun"):
            raise Failure(500, "workflows.argoproj.io is forbidden: exceeded quota: runs, requested: 1, limited: 20")

    api.before = before
    code, output = submitted(api)
    assert (code, "free or raise its ResourceQuota" in output) == (2, True)


SCRIPT = """
import signal
from hounsfield.cli import submit
from hounsfield.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
submit.POLL_SECONDS = 0.1
main()
"""


def test_interrupted_waiting_leaves_the_run(api: KfpServer) -> None:
    api.run_states = lambda run, asked: run.update(state="RUNNING")
    command = [sys.executable, "-c", SCRIPT, "submit", "lung-tumour", "--host", api.url, *DATA]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        deadline = time.monotonic() + 60
        while not api.asked and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=30)
    assert child.returncode == 130, output
    (run,) = api.runs.values()
    assert f"the run goes on: {api.url}/#/runs/details/{run['run_id']}" in output
    assert "Traceback" not in output
    assert run["state"] == "RUNNING"


def test_the_compiled_pipelines_of_all_tasks_are_accepted(api: KfpServer) -> None:
    for task in PIPELINES:
        version = submit.upload(task, Cluster(pool="eks"), submit.Target(api.url))[1]
        assert version.tasks
    assert len(api.versions) == len(PIPELINES)


def test_the_server_refuses_what_the_description_does_not_know(api: KfpServer) -> None:
    connection = submit.Server(api.url)
    with pytest.raises(InputError, match="not as described: query"):
        connection.client._experiment_api.api_client.call_api(
            "/apis/v2beta1/experiments", "GET", query_params=[("pagesize", 1)], auth_settings=["Bearer"]
        )
    with pytest.raises(InputError, match=r"not as described.*colour"):
        connection.client._experiment_api.api_client.call_api(
            "/apis/v2beta1/experiments", "POST", body={"colour": "red"}, auth_settings=["Bearer"]
        )
