"""`hounsfield schedule` against a server built from the published description of the KFP API."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import kfp_server
import pytest
import typer.testing
from kfp_server import DATA, Failure, KfpServer, call

from hounsfield.cli.main import app
from hounsfield.errors import InputError
from hounsfield.pipelines.cron import parse_cron

api = kfp_server.api

NIGHTLY = ["--cron", "0 2 * * *"]


def scheduled(api: KfpServer, *arguments: str, task: str = "lung-tumour") -> tuple[int, str]:
    return call("schedule", task, "--host", api.url, *DATA, *(NIGHTLY if "--cron" not in arguments else []), *arguments)


def act(api: KfpServer, *arguments: str) -> tuple[int, str]:
    return call("schedule", "--host", api.url, *arguments)


def the_one(api: KfpServer) -> dict:
    (item,) = api.recurring.values()
    return item


def test_a_schedule_is_created_without_catch_up_and_one_run_at_a_time(api: KfpServer) -> None:
    code, output = scheduled(api, "--set", "epochs=3")
    assert code == 0, output
    item = the_one(api)
    assert item["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}
    assert (item["no_catchup"], item["max_concurrency"], item["status"]) == (True, "1", "ENABLED")
    assert (item["display_name"], item["service_account"]) == ("lung-tumour", "hounsfield-pipelines")
    assert item["runtime_config"]["parameters"] == {"data": "s3://hospital/ct", "epochs": 3}
    assert item["pipeline_version_reference"]["pipeline_version_id"] in api.versions
    following = re.search(r"next run  (\S+) 02:00 UTC", output)
    assert following
    day = datetime.fromisoformat(following[1]).date()
    assert day - datetime.now(UTC).date() in (timedelta(0), timedelta(days=1))


def test_the_same_again_changes_nothing(api: KfpServer) -> None:
    scheduled(api, "--set", "epochs=3")
    before = dict(the_one(api))
    code, output = scheduled(api, "--set", "epochs=3")
    assert (code, "unchanged" in output) == (0, True)
    assert the_one(api) == before


def test_differences_are_shown_and_the_schedule_is_replaced_on_yes(api: KfpServer) -> None:
    scheduled(api, "--set", "epochs=3", "--set", "gamma=2.5")
    old = the_one(api)["recurring_run_id"]
    code, output = scheduled(api, "--set", "epochs=4", "--cron", "30 3 * * mon", "--pool", "gke", "--yes")
    assert code == 0, output
    item = the_one(api)
    assert item["recurring_run_id"] != old
    assert item["status"] == "ENABLED"
    assert item["runtime_config"]["parameters"]["epochs"] == 4
    lines = [line.strip() for line in output.splitlines()]
    assert "epochs: 3 -> 4" in lines
    assert "gamma: 2.5 -> default" in lines
    assert "cron: 0 0 2 * * * -> 0 30 3 * * mon" in lines
    names = [version["name"] for version in api.versions.values()]
    assert f"pipeline version: {names[0]} -> {names[1]}" in lines
    assert not any(line.startswith("data:") for line in lines)
    assert api.most_enabled == 1
    assert api.deleted_with == ["ORPHAN"]


def test_a_new_pipeline_version_alone_is_picked_up(api: KfpServer) -> None:
    scheduled(api)
    code, output = scheduled(api, "--tag", "0.2.0", "--yes")
    assert code == 0, output
    assert [line.split(":")[0].strip() for line in output.splitlines() if "->" in line] == ["pipeline version"]
    reference = the_one(api)["pipeline_version_reference"]["pipeline_version_id"]
    assert reference == list(api.versions)[-1]


@pytest.mark.parametrize(("answer", "replaced"), [("y\n", True), ("n\n", False), (None, False)])
def test_replacing_asks(api: KfpServer, answer: str | None, replaced: bool) -> None:
    scheduled(api)
    old = the_one(api)["recurring_run_id"]
    arguments = ["schedule", "lung-tumour", "--host", api.url, *DATA, "--cron", "0 4 * * *"]
    result = typer.testing.CliRunner().invoke(app, arguments, input=answer)
    assert "cron: 0 0 2 * * * -> 0 0 4 * * *" in result.output
    assert (the_one(api)["recurring_run_id"] != old) is replaced
    if answer is None:
        assert "give --yes" in str(result.exception)


def test_what_was_changed_in_the_ui_is_a_difference(api: KfpServer) -> None:
    scheduled(api)
    the_one(api).update(no_catchup=False, max_concurrency="5")
    code, output = scheduled(api, "--experiment", "nightly", "--yes")
    assert code == 0
    assert "experiment: hounsfield -> nightly" in output
    assert "catch-up: True -> False" in output
    assert "concurrency: 5 -> 1" in output
    assert the_one(api)["max_concurrency"] == "1"


def test_names_keep_schedules_apart(api: KfpServer) -> None:
    scheduled(api)
    scheduled(api, "--name", "weekly", "--cron", "0 3 * * 0")
    scheduled(api, task="l3-slice")
    assert sorted(item["display_name"] for item in api.recurring.values()) == ["l3-slice", "lung-tumour", "weekly"]


def test_pause_resume_and_delete(api: KfpServer) -> None:
    scheduled(api)
    assert act(api, "--pause", "lung-tumour")[0] == 0
    assert the_one(api)["status"] == "DISABLED"
    assert act(api, "--resume", "lung-tumour")[0] == 0
    assert the_one(api)["status"] == "ENABLED"
    code, output = act(api, "--delete", "lung-tumour")
    assert (code, "give --yes" in output) == (2, True)
    assert act(api, "--delete", "lung-tumour", "--yes")[0] == 0
    assert api.recurring == {}
    assert api.deleted_with == ["ORPHAN"]


def test_a_paused_schedule_stays_paused_when_it_is_replaced(api: KfpServer) -> None:
    scheduled(api)
    act(api, "--pause", "lung-tumour")
    code, output = scheduled(api, "--set", "epochs=9", "--yes")
    assert (code, "replaced, and stays paused" in output) == (0, True)
    assert (the_one(api)["status"], the_one(api)["runtime_config"]["parameters"]["epochs"]) == ("DISABLED", 9)
    assert "--resume lung-tumour" in output


def test_the_list_shows_every_page(api: KfpServer) -> None:
    scheduled(api)
    act(api, "--pause", "lung-tumour")
    for number in range(120):
        copy = the_one(api) if number == 0 else next(iter(api.recurring.values()))
        api.recurring[str(number)] = copy | {"recurring_run_id": str(number), "display_name": f"copy-{number}"}
    api.recurring["7"]["status"] = "ENABLED"
    code, output = act(api, "--list")
    assert code == 0
    rows = [line for line in output.splitlines() if "0 0 2 * * *" in line]
    assert len(rows) == 121
    assert sum("paused" in row for row in rows) == 120
    assert sum("02:00" in row for row in rows) == 1
    version = next(iter(api.versions.values()))["name"]
    assert all(version in row for row in rows)


def test_the_list_survives_a_deleted_version_and_an_empty_server(api: KfpServer) -> None:
    assert act(api, "--list") == (0, "no schedules\n")
    scheduled(api)
    api.versions.clear()
    code, output = act(api, "--list")
    assert (code, "deleted" in output) == (0, True)


def test_an_unknown_name_gets_the_nearest(api: KfpServer) -> None:
    scheduled(api)
    for flag in ("--pause", "--resume", "--delete"):
        code, output = act(api, flag, "lung-tumor", "--yes")
        assert (code, "no schedule lung-tumor: did you mean lung-tumour?" in output) == (2, True)
    assert the_one(api)["status"] == "ENABLED"


@pytest.mark.parametrize("arguments", [[], ["--list", "--pause", "x"], ["lung-tumour", "--delete", "x"]])
def test_one_thing_at_a_time(api: KfpServer, arguments: list[str]) -> None:
    code, output = act(api, *arguments)
    assert (code, "one thing at a time" in output) == (2, True)


def test_several_users(api: KfpServer) -> None:
    api.namespaces = ("radiology",)
    assert scheduled(api, "--namespace", "radiology")[0] == 0
    assert the_one(api)["namespace"] == "radiology"
    assert scheduled(api, "--namespace", "radiology", "--set", "epochs=2", "--yes")[0] == 0
    assert act(api, "--list", "--namespace", "radiology")[0] == 0
    code, output = act(api, "--pause", "lung-tumour", "--namespace", "oncology")
    assert (code, "check --namespace" in output) == (2, True)


# An update that fails on its way

UPDATE = ("CreateRecurringRun", "DisableRecurringRun", "EnableRecurringRun", "DeleteRecurringRun")


@pytest.mark.parametrize("broken", UPDATE)
def test_one_failed_request_leaves_the_old_or_the_new_schedule_never_both(api: KfpServer, broken: str) -> None:
    scheduled(api)
    old = the_one(api)["recurring_run_id"]
    failures = iter([Failure(500, "database is locked")])

    def before(operation: str) -> None:
        if operation.endswith(broken) and (error := next(failures, None)):
            raise error

    api.before = before
    code, _ = scheduled(api, "--set", "epochs=9", "--yes")
    assert code == 2
    assert api.most_enabled == 1
    enabled = [item for item in api.recurring.values() if item["status"] == "ENABLED"]
    assert len(enabled) == 1
    if broken != "DeleteRecurringRun":
        assert [item["recurring_run_id"] for item in api.recurring.values()] == [old]
    code, output = scheduled(api, "--set", "epochs=9", "--yes")
    assert code == 0, output
    assert (the_one(api)["status"], the_one(api)["runtime_config"]["parameters"]["epochs"]) == ("ENABLED", 9)
    assert api.most_enabled == 1


@pytest.mark.parametrize("dead_at", UPDATE[1:])
@pytest.mark.parametrize("paused", [False, True])
def test_a_server_that_dies_in_an_update_is_told_and_the_next_call_completes_it(
    api: KfpServer, dead_at: str, paused: bool
) -> None:
    scheduled(api)
    if paused:
        act(api, "--pause", "lung-tumour")
    dead = [False]

    def before(operation: str) -> None:
        dead[0] = dead[0] or operation.endswith(dead_at)
        if dead[0]:
            raise Failure(503, "no healthy upstream")

    api.before = before
    code, output = scheduled(api, "--set", "epochs=9", "--yes")
    reached = dead[0]
    assert (code == 2) is reached
    api.before = lambda operation: None
    if reached:
        assert "no healthy upstream" in output
        assert len(api.recurring) == 2
        code, output = act(api, "--list")
        assert "an update was interrupted" in output
        code, output = act(api, "--resume", "lung-tumour")
        assert (code, "2 schedules are named lung-tumour" in output) == (2, True)
        code, output = scheduled(api, "--set", "epochs=9", "--yes")
        assert code == 0, output
        assert "2 schedules have this name" in output
    item = the_one(api)
    assert item["status"] == ("DISABLED" if paused else "ENABLED")
    assert item["runtime_config"]["parameters"]["epochs"] == 9
    assert api.most_enabled == 1


# Cron expressions


@pytest.mark.parametrize(
    ("text", "six"),
    [
        ("0 2 * * *", "0 0 2 * * *"),
        ("30 0 2 * * *", "30 0 2 * * *"),
        ("*/15 8-18 * * mon-fri", "0 */15 8-18 * * mon-fri"),
        ("0 3 * * 7", "0 0 3 * * 0"),
        ("0 2 1,15 jan,JUL ?", "0 0 2 1,15 jan,JUL ?"),
        ("@daily", "0 0 0 * * *"),
        ("@weekly", "0 0 0 * * 0"),
    ],
)
def test_five_and_six_fields(text: str, six: str) -> None:
    assert parse_cron(text).text == six


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected five fields"),
        ("0 2 * *", "came 4"),
        ("60 2 * * *", "minute '60' is not within 0 to 59"),
        ("0 24 * * *", "hour '24' is not within 0 to 23"),
        ("0 2 * * 5-7", "day of week '5-7' is not within 0 to 6"),
        ("0 2 0 * *", "day of month '0' is not within 1 to 31"),
        ("0 2 * foo *", "month 'foo' is not a number"),
        ("0 2 L * *", "day of month 'l' is not a number"),
        ("*/0 2 * * *", "minute '*/0' is not within"),
        ("0 2 31 2 *", "no day fits"),
    ],
)
def test_wrong_expressions_are_one_sentence(api: KfpServer, text: str, sentence: str) -> None:
    code, output = scheduled(api, "--cron", text)
    assert (code, sentence in output) == (2, True), output
    assert api.log == []


def by_hand(minutes: set[int], hours: set[int], weekdays: set[int], after: datetime) -> datetime:
    """Minute by minute, the slow and obvious way."""
    moment = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while moment.minute not in minutes or moment.hour not in hours or moment.isoweekday() % 7 not in weekdays:
        moment += timedelta(minutes=1)
    return moment


@pytest.mark.parametrize(
    ("text", "minutes", "hours", "weekdays"),
    [
        ("0 2 * * *", {0}, {2}, set(range(7))),
        ("*/20 8-10 * * *", {0, 20, 40}, {8, 9, 10}, set(range(7))),
        ("5/30 23 * * sat,sun", {5, 35}, {23}, {0, 6}),
    ],
)
def test_the_next_run_is_the_first_minute_that_fits(
    text: str, minutes: set[int], hours: set[int], weekdays: set[int]
) -> None:
    moment = datetime(2026, 2, 27, 22, 59, 31, tzinfo=UTC)
    for _ in range(12):
        following = parse_cron(text).next_after(moment)
        assert following == by_hand(minutes, hours, weekdays, moment)
        moment = following


def test_a_day_of_month_or_a_weekday_when_both_are_given() -> None:
    cron = parse_cron("0 0 13 * fri")
    moment, found = datetime(2026, 3, 1, tzinfo=UTC), []
    for _ in range(5):
        moment = cron.next_after(moment)
        found.append(moment.day)
    assert found == [6, 13, 20, 27, 3]
    assert parse_cron("0 0 29 2 *").next_after(datetime(2097, 1, 1, tzinfo=UTC)).year == 2104


def test_a_never_running_schedule_is_not_made() -> None:
    with pytest.raises(InputError, match="never run"):
        parse_cron("0 0 30 2 *")


def test_a_local_folder_is_refused(api: KfpServer, tmp_path: Path) -> None:
    code, output = call("schedule", "lung-tumour", "--host", api.url, *NIGHTLY, "--data", str(tmp_path))
    assert (code, "copy it to a bucket" in output) == (2, True)
