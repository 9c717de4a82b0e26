"""`hounsfield models`: lists, promotions, rollbacks and history as a user meets them, and what is refused."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from hounsfield.cli.main import app
from hounsfield.cli.registry import known
from hounsfield.errors import InputError
from hounsfield.registry import history, policy, tracking

FIGURES = {"average_precision": "0.81", "f1": "0.75", "patients": "9"}


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """MLflow with lung-tumour in three versions, the first champion, the newest promoted by the gate, and l3-slice."""
    monkeypatch.setenv(history.USER, "anna")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    address = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with tracking.recording(address):
        client = MlflowClient()
        tagged = client.create_run(client.create_experiment("runs"), tags={"git_commit": "c0ffee" * 6})
        for number in (1, 2, 3):
            tags = FIGURES | {"dataset_hash": f"{number}" * 64, "gate": "champion" if number == 1 else "not compared"}
            tags |= {"git_commit": "beef" * 10} if number == 3 else {}
            policy.register("lung-tumour", "file:///nowhere", None, tagged.info.run_id, tags, "")
        policy.assign_aliases("lung-tumour", 3)
        policy.register("l3-slice", "file:///nowhere", None, None, {"detection_rate": "0.9"}, "")
        policy.assign_aliases("l3-slice", 1)
    return address


def call(*arguments: str) -> str:
    """Output of a command that ends well."""
    done = CliRunner().invoke(app, ["models", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*arguments: str) -> str:
    """Message of a command that is refused."""
    with pytest.raises(InputError) as error:
        CliRunner().invoke(app, ["models", *arguments], catch_exceptions=False)
    assert "\n" not in str(error.value)
    return str(error.value)


def answer(*arguments: str) -> Any:
    return json.loads(call(*arguments, "--json"))


def champion(name: str = "lung-tumour") -> str:
    found: str = answer(name)[0]["champion"]
    return found


def test_versions_as_json(uri: str) -> None:
    assert [model["name"] for model in answer()] == ["l3-slice", "lung-tumour"]
    (model,) = answer("lung-tumour")
    assert (model["champion"], model["note"]) == ("1", "")
    newest, _, first = model["versions"]
    assert newest.pop("created").endswith("+00:00")
    assert newest == {
        "version": 3,
        "aliases": ["challenger"],
        "metrics": {"average_precision": 0.81, "f1": 0.75},
        "dataset_hash": "3" * 64,
        "git_commit": "beef" * 10,
        "verdict": "not compared",
    }
    assert (first["aliases"], first["verdict"], first["git_commit"]) == (["champion"], "champion", "c0ffee" * 6)


def test_versions_as_a_table(uri: str) -> None:
    assert call() == call("list")
    lines = call("lung-tumour").splitlines()
    assert lines[0].strip() == "lung-tumour, 3 versions. Research use only."
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert [row[:2] for row in rows] == [["3", "challenger"], ["2", ""], ["1", "champion"]]
    assert rows[0][2:6] == ["0.81", "0.75", "3" * 12, "beefbeefbe"]


def test_promotion_rollback_and_their_history(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("promote", "lung-tumour", "2", "--reason", "sharper") == (
        "champion of lung-tumour is version 2, before it was 1\n"
    )
    monkeypatch.setenv(history.USER, "berta")
    promoted = answer("promote", "lung-tumour", "challenger", "--reason", "newest")
    assert promoted == {"name": "lung-tumour", "from": "2", "to": "3", "champion": "3"}
    assert champion() == "3"
    assert answer("rollback", "lung-tumour", "--reason", "misses small ones")["champion"] == "2"
    assert answer("rollback", "lung-tumour", "--reason", "this one too")["champion"] == "1"
    told = answer("history", "lung-tumour")
    assert told["champion"] == "1"
    assert [(row["who"], row["action"], row["from"], row["to"], row["reason"]) for row in told["events"]] == [
        ("anna", "first", "", "1", "the first version of its name"),
        ("anna", "promote", "1", "2", "sharper"),
        ("berta", "promote", "2", "3", "newest"),
        ("berta", "rollback", "3", "2", "misses small ones"),
        ("berta", "rollback", "2", "1", "this one too"),
    ]
    times = [row["time"] for row in told["events"]]
    assert times == sorted(times)
    table = call("history", "lung-tumour")
    assert table.splitlines()[0].strip() == "lung-tumour: champion is version 1"
    assert "misses small ones" in table
    assert "version 1 is the first champion of lung-tumour" in refused("rollback", "lung-tumour", "--reason", "again")


def test_event_without_effect_is_marked(uri: str) -> None:
    with tracking.recording(uri):
        event = {"time": "2026-01-01", "who": "gate", "action": "gate", "from": "1", "to": "3", "reason": "better"}
        MlflowClient().set_registered_model_tag(
            "lung-tumour", "event.000001.ab", json.dumps(event | {"after": "event.000000.other"})
        )
    assert [row["effective"] for row in answer("history", "lung-tumour")["events"]] == [True, False]
    assert "(no effect, another came first) better" in call("history", "lung-tumour")
    assert champion() == "1"


def test_alias_moved_outside_is_said_and_settled_by_a_promotion(uri: str) -> None:
    with tracking.recording(uri):
        MlflowClient().set_registered_model_alias("lung-tumour", "champion", "3")
    for command in ([], ["history"]):
        assert "makes version 1 champion, the alias is at 3" in call(*command, "lung-tumour")
    call("promote", "lung-tumour", "3", "--reason", "reviewed")
    assert answer("lung-tumour")[0]["note"] == ""


def test_reading_changes_nothing(uri: str) -> None:
    with tracking.recording(uri):
        MlflowClient().set_registered_model_alias("lung-tumour", "champion", "3")
        before = MlflowClient().get_registered_model("lung-tumour")
    call()
    call("history", "lung-tumour")
    with tracking.recording(uri):
        after = MlflowClient().get_registered_model("lung-tumour")
    assert (after.tags, after.aliases) == (before.tags, before.aliases)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lung"], "has no registered model lung: it has l3-slice, lung-tumour"),
        (["history", "lung"], "has no registered model lung: it has l3-slice, lung-tumour"),
        (["promote", "lung", "1", "--reason", "x"], "has no registered model lung"),
        (["rollback", "lung", "--reason", "x"], "has no registered model lung"),
        (
            ["promote", "lung-tumour", "7", "--reason", "x"],
            "no version or alias 7: it has versions 1, 2, 3, aliases cha",
        ),
        (["promote", "lung-tumour", "best", "--reason", "x"], "no version or alias best: it has versions 1, 2, 3"),
        (["promote", "lung-tumour", "1", "--reason", "x"], "version 1 of lung-tumour is the champion already"),
        (["promote", "lung-tumour", "2", "--reason", " "], "--reason: expected why"),
        (["rollback", "lung-tumour", "--reason", "x"], "is the first champion of lung-tumour"),
    ],
)
def test_what_is_refused_names_what_there_is(uri: str, arguments: list[str], sentence: str) -> None:
    assert sentence in refused(*arguments)
    assert champion() == "1"
    assert len(answer("history", "lung-tumour")["events"]) == 1


def test_rollback_to_a_deleted_version_and_without_a_champion(uri: str) -> None:
    call("promote", "lung-tumour", "2", "--reason", "better")
    with tracking.recording(uri):
        MlflowClient().delete_model_version("lung-tumour", "1")
    said = refused("rollback", "lung-tumour", "--reason", "x")
    assert "version 1 of lung-tumour was champion before 2, but is deleted" in said
    assert "versions 2, 3" in said
    with tracking.recording(uri):
        MlflowClient().delete_registered_model_alias("lung-tumour", "champion")
    assert "has no champion to roll back: promote one of versions 2, 3" in refused(
        "rollback", "lung-tumour", "--reason", "x"
    )


def test_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    absent = tmp_path / "absent.db"
    assert f"there is no MLflow database {absent}" in refused("--tracking-uri", f"sqlite:///{absent}")
    assert not absent.exists()


def test_many_versions_are_not_all_named() -> None:
    assert known([str(number) for number in range(1, 31)]) == f"versions ... {', '.join(map(str, range(21, 31)))}"


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
def test_server_that_does_not_answer_is_one_line_within_15_seconds(hangs: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        if not hangs:
            listening.close()
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", "from hounsfield.cli.main import main; main()", "models", "lung-tumour",
             "--tracking-uri", f"http://127.0.0.1:{port}"],
            capture_output=True, text=True,
        )  # fmt: skip
    assert time.monotonic() - started < 15
    assert done.returncode == 2
    assert done.stderr == (
        f"error: no MLflow server answers at http://127.0.0.1:{port}: start it or change MLFLOW_TRACKING_URI\n"
    )
