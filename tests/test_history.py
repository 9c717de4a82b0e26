"""History of the champion: what is recorded, two writers at once, writers that die half-way, and rollback."""

import itertools
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace as Namespace
from typing import cast

import pytest
from mlflow import MlflowClient

from hounsfield.data.comparison import Comparison
from hounsfield.errors import InputError
from hounsfield.registry import history, policy, tracking
from hounsfield.registry.champion import settle
from hounsfield.registry.history import Event, course

VERSIONS = 6
NAMES = (f"model-{number}" for number in itertools.count())
MOVER = """
import sys
from hounsfield.registry import history, tracking
uri, name, version = sys.argv[1:]
with tracking.recording(uri):
    print("ready", flush=True)
    sys.stdin.readline()
    print(history.move(name, int(version), history.PROMOTE, f"process of {version}"))
"""


def move_at_once(uri: str, name: str, versions: str) -> None:
    """Promote every version by a process of its own, all released together."""
    command = [sys.executable, "-c", MOVER, uri, name]
    movers = [
        subprocess.Popen([*command, version], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for version in versions
    ]
    for mover in movers:
        assert mover.stdout is not None
        assert mover.stdout.readline() == "ready\n"
    for mover in movers:
        assert mover.stdin is not None
        mover.stdin.write("\n")
        mover.stdin.flush()
    for mover in movers:
        mover.communicate(timeout=120)
        assert mover.returncode == 0


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture
def client(uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    monkeypatch.setenv(history.USER, "anna")
    with tracking.recording(uri):
        yield MlflowClient()


@pytest.fixture
def name(client: MlflowClient) -> str:
    """A registered model with VERSIONS versions, whose first is champion."""
    made = next(NAMES)
    for _ in range(VERSIONS):
        policy.register(made, "file:///nowhere", None, None, {}, "")
    policy.assign_aliases(made, VERSIONS)
    return made


def events(name: str) -> list[Event]:
    return history.read_events(MlflowClient().get_registered_model(name).tags)


def champion(name: str) -> str:
    return str(MlflowClient().get_registered_model(name).aliases[policy.CHAMPION])


def previous(name: str) -> str:
    return history.champion_before(MlflowClient().get_registered_model(name))


def event(number: int, suffix: str, action: str, before: str, to: str, after: str = "") -> Event:
    return Event(number, f"event.{number:06d}.{suffix}", "2026-01-01", "anna", action, before, to, "why", after)


def test_every_move_is_recorded_once_and_stays(client: MlflowClient, name: str) -> None:
    assert history.move(name, 3, history.PROMOTE, "sharper\n on thin\x00slices") == 3
    before = client.get_registered_model(name).tags
    assert history.move(name, 1, history.ROLLBACK, "misses small tumours") == 1
    tags = client.get_registered_model(name).tags
    assert before.items() <= tags.items()
    found = [(item.number, item.who, item.action, item.before, item.to, item.reason) for item in events(name)]
    assert found == [
        (0, "anna", "first", "", "1", "the first version of its name"),
        (1, "anna", "promote", "1", "3", "sharper on thin slices"),
        (2, "anna", "rollback", "3", "1", "misses small tumours"),
    ]
    promoted = events(name)[1]
    assert json.loads(tags[promoted.key])["after"] == history.FIRST_KEY
    told = client.get_model_version(name, "3").tags[promoted.key]
    assert told == f"promote: champion instead of 1, {promoted.time}, anna: sharper on thin slices"


def test_rollback_goes_back_one_by_one(name: str) -> None:
    for version in (2, 4):
        history.move(name, version, history.PROMOTE, "better")
    went = []
    while target := previous(name):
        went.append(history.move(name, int(target), history.ROLLBACK, "worse"))
    assert went == [2, 1]
    history.move(name, 5, history.PROMOTE, "better")
    assert previous(name) == "1"


def test_alias_moved_in_the_user_interface_counts_as_a_champion(client: MlflowClient, name: str) -> None:
    client.set_registered_model_alias(name, policy.CHAMPION, "2")
    assert previous(name) == "1"
    history.move(name, 3, history.PROMOTE, "better")
    assert previous(name) == "2"


def test_rollback_does_not_count_a_move_that_was_broken_off(client: MlflowClient, name: str) -> None:
    history.move(name, 2, history.PROMOTE, "better")
    history.move(name, 3, history.PROMOTE, "broken off, as it were")
    client.set_registered_model_alias(name, policy.CHAMPION, "2")
    assert previous(name) == "1"


def test_settled_promotion_is_recorded_with_its_reason(client: MlflowClient, name: str) -> None:
    better = Namespace(promote=True, reason="Dice is higher by 0.05.", champion_version="1")
    settle(name, 2, cast(Comparison, better))
    assert [(item.action, item.before, item.to, item.reason) for item in events(name)[1:]] == [
        ("gate", "1", "2", "Dice is higher by 0.05.")
    ]
    settle(name, 3, cast(Comparison, better))
    settle(name, 4, cast(Comparison, Namespace(promote=False, reason="Dice is lower.", champion_version="2")))
    assert (champion(name), len(events(name))) == ("2", 2)
    assert [client.get_model_version(name, str(version)).tags["gate"] for version in (2, 3, 4)] == [
        "promoted: Dice is higher by 0.05.",
        "not promoted: version 2 became champion after the comparison",
        "not promoted: Dice is lower.",
    ]


def test_verdict_outlives_a_registration_that_is_repeated(client: MlflowClient, name: str) -> None:
    better = cast(Comparison, Namespace(promote=True, reason="Dice is higher.", champion_version="1"))
    worse = cast(Comparison, Namespace(promote=False, reason="Dice is lower.", champion_version="1"))
    itself = cast(
        Comparison, Namespace(promote=False, reason="These are the champion's weights.", champion_version="2")
    )
    settle(name, 3, worse)
    settle(name, 2, better)
    for comparison in (itself, better, None):
        settle(name, 2, comparison)
    settle(name, 3, None)
    assert [client.get_model_version(name, version).tags["gate"] for version in "23"] == [
        "promoted: Dice is higher.",
        "not promoted: Dice is lower.",
    ]
    assert (champion(name), len(events(name))) == ("2", 2)


def test_gate_does_not_bring_back_what_was_rolled_back(client: MlflowClient, name: str) -> None:
    better = cast(Comparison, Namespace(promote=True, reason="Dice is higher.", champion_version="1"))
    settle(name, 2, better)
    history.move(name, 1, history.ROLLBACK, "misses small tumours")
    settle(name, 2, better)
    assert champion(name) == "1"
    told = client.get_model_version(name, "2").tags["gate"]
    assert told.startswith(
        f"not promoted: it was rolled back to version 1 on {events(name)[-1].time[:10]}; promote it by"
    )
    assert told.endswith("Compared: Dice is higher.")
    settle(name, 3, better)
    assert champion(name) == "3", "another version is promoted as ever"
    history.move(name, 2, history.PROMOTE, "looked at again")
    history.move(name, 4, history.PROMOTE, "better")
    settle(name, 2, cast(Comparison, Namespace(promote=True, reason="Dice is higher.", champion_version="4")))
    assert champion(name) == "2", "promoted by hand since, so the rollback no longer counts"


def test_settled_promotion_that_comes_too_late(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other gate moves the champion after this one looked and before it writes."""
    suffixes = iter(("bbbb", "aaaa"))
    monkeypatch.setattr(history.secrets, "token_hex", lambda size: next(suffixes))
    original, overtaken = MlflowClient.set_registered_model_tag, []

    def late(self: MlflowClient, *arguments: str) -> None:
        if not overtaken:
            overtaken.append(True)
            history.move(name, 3, history.GATE, "overtakes")
        original(self, *arguments)

    monkeypatch.setattr(MlflowClient, "set_registered_model_tag", late)
    settle(name, 2, cast(Comparison, Namespace(promote=True, reason="better", champion_version="1")))
    told = MlflowClient().get_model_version(name, "2").tags["gate"]
    assert told == "not promoted: version 3 became champion after the comparison"
    assert champion(name) == "3"


def test_gate_does_not_overtake_a_champion_that_it_was_not_compared_with(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer has added its event and not yet set the alias."""
    with monkeypatch.context() as between:
        between.setattr(history, "agree", lambda name: 3)
        history.move(name, 3, history.GATE, "better than version 1", "1")
    assert champion(name) == "1"
    settle(name, 2, cast(Comparison, Namespace(promote=True, reason="better", champion_version="1")))
    assert [item.to for item in events(name)] == ["1", "3"]
    told = MlflowClient().get_model_version(name, "2").tags["gate"]
    assert told == "not promoted: version 3 became champion after the comparison"
    settle(name, 3, cast(Comparison, Namespace(promote=True, reason="better", champion_version="1")))
    assert champion(name) == "3"


def test_verdict_of_a_gate_that_is_overtaken_later_is_set_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both saw version 1 reign; 3 is settled whole before 2 writes its event, which comes first in their order."""
    suffixes = iter(("aaaa", "bbbb"))
    monkeypatch.setattr(history.secrets, "token_hex", lambda size: next(suffixes))
    original, overtaken = MlflowClient.set_registered_model_tag, []
    better = cast(Comparison, Namespace(promote=True, reason="better", champion_version="1"))

    def verdicts() -> list[str]:
        return [MlflowClient().get_model_version(name, version).tags.get("gate", "") for version in "23"]

    def late(self: MlflowClient, *arguments: str) -> None:
        if not overtaken:
            overtaken.append(True)
            settle(name, 3, better)
            assert verdicts() == ["", "promoted: better"]
        original(self, *arguments)

    monkeypatch.setattr(MlflowClient, "set_registered_model_tag", late)
    settle(name, 2, better)
    assert champion(name) == "2"
    assert verdicts() == ["promoted: better", "not promoted: version 2 became champion after the comparison"]


def test_threads_lose_no_event_and_leave_one_champion(name: str) -> None:
    together = Barrier(VERSIONS)

    def promote(version: int) -> None:
        together.wait()
        history.move(name, version, history.PROMOTE, f"thread of {version}")

    with ThreadPoolExecutor(VERSIONS) as pool:
        list(pool.map(promote, range(1, VERSIONS + 1)))
    found = [item for item in events(name) if item.action == history.PROMOTE]
    assert {item.to for item in found} == {str(version) for version in range(1, VERSIONS + 1)}
    assert champion(name) == found[-1].to


@pytest.mark.slow
def test_processes_lose_no_event_and_leave_one_champion(uri: str, name: str) -> None:
    move_at_once(uri, name, "234")
    found = events(name)[1:]
    assert {item.to for item in found} == {"2", "3", "4"}
    assert champion(name) == found[-1].to


@pytest.mark.parametrize("slow", ["alias", "event"])
def test_writer_that_stops_between_its_two_writes(
    client: MlflowClient, name: str, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """A slow writer is overtaken by a whole other move, just before it sets the alias or just before its event."""
    method = f"set_registered_model_{'alias' if slow == 'alias' else 'tag'}"
    original, overtaken = getattr(MlflowClient, method), []

    def late(self: MlflowClient, *arguments: str) -> None:
        if not overtaken:
            overtaken.append(True)
            history.move(name, 5, history.PROMOTE, "overtakes")
        original(self, *arguments)

    monkeypatch.setattr(MlflowClient, method, late)
    history.move(name, 2, history.PROMOTE, "slow")
    found = events(name)[1:]
    assert {item.to for item in found} == {"2", "5"}
    assert champion(name) == found[-1].to
    if slow == "alias":
        assert champion(name) == "5"


def test_writer_that_dies_before_the_alias_is_made_good(
    client: MlflowClient, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as dying:
        dying.setattr(history, "agree", lambda name: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            history.move(name, 2, history.PROMOTE, "dies half-way")
    assert champion(name) == "1"
    assert history.move(name, 3, history.GATE, "the gate") == 3
    assert (champion(name), len(events(name))) == ("3", 3)
    with monkeypatch.context() as dying:
        dying.setattr(history, "agree", lambda name: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            history.move(name, 4, history.PROMOTE, "dies half-way")
    assert history.agree(name) == 4
    assert champion(name) == "4"


def test_two_gates_that_compared_with_the_same_champion(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both saw version 1 as champion; whichever event comes first in their order counts, the other has no effect."""
    original, overtaken = MlflowClient.set_registered_model_tag, []

    def late(self: MlflowClient, *arguments: str) -> None:
        if not overtaken:
            overtaken.append(True)
            history.move(name, 3, history.GATE, "overtakes")
        original(self, *arguments)

    monkeypatch.setattr(MlflowClient, "set_registered_model_tag", late)
    came = history.move(name, 2, history.GATE, "slow")
    found = events(name)
    counted = [item.to for item in found if item.key in course(found).effective]
    assert {item.to for item in found} == {"1", "2", "3"}
    assert counted == ["1", found[1].to]
    assert str(came) == champion(name) == found[1].to


def test_order_of_the_events_decides_not_that_of_the_tags() -> None:
    made = [event(2, "a", "rollback", "3", "2"), event(1, "b", "promote", "1", "3"), event(1, "a", "promote", "1", "2")]
    for order in itertools.permutations(made):
        assert course(sorted(order)).champions == ("1", "2")
    assert course([]).champion == ""


def test_two_rollbacks_at_once_go_back_one_step() -> None:
    line = [event(1, "a", "promote", "1", "2"), event(2, "a", "promote", "2", "3")]
    both = [event(3, "a", "rollback", "3", "2"), event(3, "b", "rollback", "3", "2")]
    assert course(line + both).champions == ("1", "2")


@pytest.mark.parametrize("reason", ["", " \n\t", "x" * (history.REASON_LENGTH + 1)])
def test_reason_that_says_nothing_or_too_much(name: str, reason: str) -> None:
    with pytest.raises(InputError, match="--reason: expected"):
        history.move(name, 2, history.PROMOTE, reason)
    assert len(events(name)) == 1


def test_longest_event_fits_into_a_tag_of_postgresql(client: MlflowClient, name: str) -> None:
    history.move(name, 2, history.PROMOTE, '"\\' * (history.REASON_LENGTH // 2))
    assert len(client.get_registered_model(name).tags[events(name)[-1].key]) < 5000
    history.move(name, 3, history.GATE, "long " * history.REASON_LENGTH)
    assert len(events(name)[-1].reason) <= history.REASON_LENGTH


@pytest.mark.parametrize("text", ["promoted", "{}", "[]"])
def test_event_that_was_tampered_with(client: MlflowClient, name: str, text: str) -> None:
    client.set_registered_model_tag(name, "event.000001.abcd", text)
    with pytest.raises(InputError, match=r"tag event\.000001\.abcd is not an event"):
        history.move(name, 2, history.PROMOTE, "better")


def test_who_it_was(client: MlflowClient, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert history.author("KFP run kfp-18") == "anna"
    monkeypatch.delenv(history.USER)
    for variable in ("USER", "LOGNAME"):
        monkeypatch.setenv(variable, "the same in every container")
    assert history.author("KFP run kfp-18") == pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr("os.getuid", lambda: 3_999_999_999)
    assert history.author("KFP run kfp-18") == "KFP run kfp-18"
    assert history.author() == "unknown"
    settle(name, 2, cast(Comparison, Namespace(promote=True, reason="better", champion_version="1")), "KFP run kfp-18")
    assert [event.who for event in history.read_events(client.get_registered_model(name).tags)][-1] == "KFP run kfp-18"
