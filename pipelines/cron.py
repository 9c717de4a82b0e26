"""Cron expressions as Kubeflow Pipelines reads them: six fields, seconds first."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hounsfield.errors import InputError

MONTHS = {name: i + 1 for i, name in enumerate(re.findall("...", "janfebmaraprmayjunjulaugsepoctnovdec"))}
WEEKDAYS = {name: i for i, name in enumerate(re.findall("...", "sunmontuewedthufrisat"))}
FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("second", 0, 59, {}),
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 6, WEEKDAYS),
)
SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
HORIZON = timedelta(days=366 * 9)
"""Long enough for the 29th of February across a century without a leap year."""


@dataclass(frozen=True)
class Cron:
    """A validated schedule.

    `text` has six fields: the scheduler of Kubeflow Pipelines takes the first of five fields for the second and the
    last for the month, so that the five fields of other systems would fire every hour.
    """

    text: str
    allowed: tuple[frozenset[int], ...]
    """Values of each field at which it fires, Sunday being 0."""

    def next_after(self, moment: datetime) -> datetime:
        """First time after `moment` (aware) at which it fires, in UTC.

        Raises:
            InputError: it never does, such as on 31 February.
        """
        seconds, minutes, hours, days, months, weekdays = self.allowed
        start = moment.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
        restricted = [field[0] not in "*?" for field in (self.text.split()[3], self.text.split()[5])]
        day = start.date()
        while day <= (start + HORIZON).date():
            matches = (day.day in days, day.isoweekday() % 7 in weekdays)
            if day.month in months and (any(matches) if all(restricted) else all(matches)):
                for hour in sorted(hours):
                    for minute in sorted(minutes):
                        for second in sorted(seconds):
                            at = datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=UTC)
                            if at >= start:
                                return at
            day += timedelta(days=1)
        raise InputError(f"--cron {self.text}: no day fits, so it would never run")


def parse_cron(text: str) -> Cron:
    """A cron expression of five fields (minute first) or six (second first), or a shorthand such as `@daily`.

    Raises:
        InputError: another number of fields, a value out of range, or a day that never comes.
    """
    fields = SHORTHANDS.get(text.strip().lower(), text).split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise InputError(
            f"--cron {text}: expected five fields (minute hour day-of-month month day-of-week) or six with the second "
            f'first, or one of {", ".join(SHORTHANDS)}, came {len(fields)}; every night at two is "0 2 * * *"'
        )
    if fields[5] == "7":
        fields[5] = "0"
    allowed = tuple(_values(text, field, *limits) for field, limits in zip(fields, FIELDS, strict=True))
    cron = Cron(" ".join(fields), allowed)
    cron.next_after(datetime.now(UTC))
    return cron


def _values(text: str, field: str, name: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    values: set[int] = set()
    for part in field.lower().split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            if span in ("*", "?"):
                begin, end = low, high
            else:
                begin = names[first] if first in names else int(first)
                end = (names[last] if last in names else int(last)) if dash else (high if slash else begin)
            stride = int(step) if slash else 1
        except ValueError:
            raise InputError(f"--cron {text}: {name} {part!r} is not a number, range, list or step") from None
        if not low <= begin <= end <= high or stride < 1:
            raise InputError(f"--cron {text}: {name} {part!r} is not within {low} to {high}")
        values.update(range(begin, end + 1, stride))
    return frozenset(values)
