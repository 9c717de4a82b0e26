"""Who made which version champion, when and why: an append-only history in MLflow's own tags.

An event is a tag of the registered model, `event.000012.3f9a1c2b`, whose value is JSON with time (UTC), who, action,
from, to, reason and after; the version that it concerns carries the same key with a sentence. MLflow's tags know no
compare-and-set, so the key is one that no other writer can choose: a number above every event that the writer saw, and
a random suffix. No event is ever overwritten, and sorted keys are one order for all writers (Lamport 1978, "Time,
Clocks, and the Ordering of Events in a Distributed System").

The alias champion follows the history, by one rule: it stands at the champion that the events give in their order. A
writer adds its event first, then sets the alias, and reads both again until they agree; as every writer reads after its
own last write, the last of them leaves alias and history in agreement, and a writer that dies half-way is made good by
the next. An alias has one holder, so there are never two champions, and between two moves never none.
"""

import json
import os
import pwd
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from textwrap import shorten

from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from hounsfield.errors import InputError

CHAMPION = "champion"
FIRST, GATE, PROMOTE, ROLLBACK = "first", "gate", "promote", "rollback"
USER = "HOUNSFIELD_USER"
KEY = re.compile(r"event\.(\d{6,})\.(\w+)")
FIRST_KEY = "event.000000.first"
"""The first champion is the same for all who register at once, so all of them write one event."""
REASON_LENGTH = 1000
"""Characters; a tag of a registered model holds 5000 in PostgreSQL."""
ROUNDS = 20
"""Readings of alias and history before a writer gives up on their agreement."""


@dataclass(frozen=True, order=True)
class Event:
    """One move of the champion; `before` is the version that held the alias, or empty, `after` the last event seen."""

    number: int
    key: str
    time: str
    who: str
    action: str
    before: str
    to: str
    reason: str
    after: str


@dataclass(frozen=True)
class Course:
    """What the events of a model come to."""

    champions: tuple[str, ...]
    """From the first to the reigning one; a rollback takes away what it leaves behind."""
    effective: frozenset[str]
    """Keys of the events that counted."""

    @property
    def champion(self) -> str:
        """The version that the history makes champion; empty without events."""
        return self.champions[-1] if self.champions else ""


def read_events(tags: Mapping[str, str]) -> list[Event]:
    """The events among the tags of a registered model, in the order that counts.

    Raises:
        InputError: a tag with the key of an event is not one.
    """
    found = []
    for key, text in tags.items():
        if (match := KEY.fullmatch(key)) is None:
            continue
        try:
            value = json.loads(text)
            fields = [str(value[name]) for name in ("time", "who", "action", "from", "to", "reason", "after")]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"tag {key} is not an event of the history (JSON with time, who, action, from, to, reason, after): "
                "it was changed outside of hounsfield, restore it from a backup of MLflow or delete it"
            ) from error
        found.append(Event(int(match[1]), key, *fields))
    return sorted(found)


def course(events: Sequence[Event]) -> Course:
    """Play `events` in their order.

    Moves by hand always count, the last one most. A promotion by the gate counts only when the champion that it was
    compared with still reigned: when no event that counted lies between the last one it saw and itself.
    """
    champions: list[str] = []
    effective: list[str] = []
    for event in events:
        if event.action == GATE and effective and event.after != effective[-1]:
            continue
        effective.append(event.key)
        if event.action == ROLLBACK and event.to in champions:
            del champions[len(champions) - champions[::-1].index(event.to) :]
            continue
        for version in filter(None, (event.before, event.to)):
            if champions[-1:] != [version]:
                champions.append(version)
    return Course(tuple(champions), frozenset(effective))


def move(name: str, version: int, action: str, reason: str, compared_with: str = "", step: str = "") -> int:
    """Make `version` champion of the registered model `name` and record it; FIRST, GATE, PROMOTE or ROLLBACK.

    Args:
        compared_with: of a gate, the champion of its comparison. Where alias or history say that another one reigns,
            nothing is written: the history may be ahead of the alias, as another writer adds its event first.
        step: what acts where no user is known, such as a KFP run.

    Returns:
        The version that is champion now: another than `version` when another writer's move counts more.

    Raises:
        InputError: the reason of a move by hand is empty or too long, or alias and history do not come to agree.
    """
    by_hand = action in (PROMOTE, ROLLBACK)
    said = check_reason(reason) if by_hand else shorten(reason, REASON_LENGTH, placeholder=" ...")
    client = MlflowClient()
    model = client.get_registered_model(name)
    seen = read_events(model.tags)
    reigning = course(seen).champion, str(model.aliases.get(CHAMPION, ""))
    others = [other for other in reigning if other not in ("", compared_with, str(version))]
    if compared_with and others:
        return int(others[0])
    if action == FIRST:
        key = FIRST_KEY
    else:
        number = max((event.number for event in seen), default=0) + 1
        key = f"event.{number:06d}.{secrets.token_hex(4)}"
    if key not in model.tags:
        counted = course(seen).effective
        value = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "who": author(step),
            "action": action,
            "from": str(model.aliases.get(CHAMPION, "")),
            "to": str(version),
            "reason": said,
            "after": next((event.key for event in reversed(seen) if event.key in counted), ""),
        }
        write(client.set_registered_model_tag, name, key, json.dumps(value, ensure_ascii=False))
        sentence = f"{action}: champion instead of {value['from'] or 'none'}, {value['time']}, {value['who']}: {said}"
        write(client.set_model_version_tag, name, str(version), key, sentence)
    return agree(name)


def overtaken(name: str, version: int) -> dict[str, str]:
    """Of the gates that moved when that of `version` did: those whose move has no effect, with who is champion now."""
    events = read_events(MlflowClient().get_registered_model(name).tags)
    line = course(events)
    gates = [event for event in events if event.action == GATE]
    seen = {event.after for event in gates if event.to == str(version)}
    return {event.to: line.champion for event in gates if event.after in seen and event.key not in line.effective}


def agree(name: str) -> int:
    """Set the alias champion to what the history says and read both again, until they agree; returns the champion.

    Raises:
        InputError: others moved it every time.
    """
    client = MlflowClient()
    for _ in range(ROUNDS):
        model = client.get_registered_model(name)
        due = course(read_events(model.tags)).champion
        if str(model.aliases.get(CHAMPION, "")) == due:
            return int(due)
        write(client.set_registered_model_alias, name, CHAMPION, due)
    raise InputError(f"others keep moving the champion of {name}: see `hounsfield models history {name}`, then repeat")


def write(setter: Callable[..., None], *arguments: str) -> None:
    """Set a tag or alias, once more when another writer made it between MLflow's look and its insertion."""
    try:
        setter(*arguments)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST":
            raise
        setter(*arguments)


def champion_before(model: RegisteredModel) -> str:
    """The version that was champion before the one that holds the alias, by the history; empty when there was none.

    Where the alias stands one step behind the history (a move was broken off or undone in MLflow), that step does not
    count.
    """
    champions = list(course(read_events(model.tags)).champions)
    now = str(model.aliases.get(CHAMPION, ""))
    if champions[-2:-1] == [now]:
        champions.pop()
    elif champions[-1:] != [now]:
        champions.append(now)
    return champions[-2] if len(champions) > 1 else ""


def check_reason(reason: str) -> str:
    """`reason` on one line of printable characters.

    Raises:
        InputError: nothing is left of it, or more than REASON_LENGTH characters.
    """
    said = " ".join("".join(sign if sign.isprintable() else " " for sign in reason).split())
    if not said:
        raise InputError("--reason: expected why the champion changes, in words, came an empty text")
    if len(said) > REASON_LENGTH:
        raise InputError(f"--reason: expected at most {REASON_LENGTH} characters, came {len(said)}: shorten it")
    return said


def author(step: str = "") -> str:
    """HOUNSFIELD_USER, else the user whom this system knows by name, else the `step` that acts, else `unknown`.

    USER and LOGNAME do not count: in images they name nobody.
    """
    who = " ".join(os.environ.get(USER, "").split())
    if not who:
        try:
            who = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            who = step
    return who[:200] or "unknown"


def left_by_rollback(name: str, version: int) -> Event | None:
    """The rollback that took `version` away from the champions, unless it was made champion by hand since."""
    events = read_events(MlflowClient().get_registered_model(name).tags)
    effective, found = course(events).effective, None
    for event in events:
        if event.key not in effective:
            continue
        if event.action == ROLLBACK and event.before == str(version):
            found = event
        elif event.to == str(version):
            found = None
    return found
