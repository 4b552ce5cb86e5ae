"""The generated default task: human-written dates to ISO 8601, "Sunday, 22 Nov. 2026" -> "2026-11-22".

Every date of 1950 to 2049 is a candidate; training, validation and test take different dates, written in the same
formats. A two-digit year stands for that range, so that every text has one meaning. Dots and dashes are day first,
slashes month first.
"""

from __future__ import annotations

import calendar
import datetime
import random
from collections.abc import Callable

from .pairs import Pairs

FIRST = datetime.date(1950, 1, 1).toordinal()
LAST = datetime.date(2049, 12, 31).toordinal()
MONTHS = tuple(calendar.month_name[1:])
DAYS = tuple(calendar.day_name)


def ordinal(number: int) -> str:
    """A day of the month as an ordinal.

    >>> ordinal(22), ordinal(11)
    ('22nd', '11th')
    """
    suffix = "th" if 11 <= number <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def _short(name: str, dot: bool = False) -> str:
    return name[:3] + "." if dot and len(name) > 3 else name[:3]


FORMATS: tuple[Callable[[datetime.date], str], ...] = (
    lambda d: f"{DAYS[d.weekday()]}, {d.day} {_short(MONTHS[d.month - 1], dot=True)} {d.year}",
    lambda d: f"{DAYS[d.weekday()]}, {MONTHS[d.month - 1]} {d.day}, {d.year}",
    lambda d: f"{d.day} {MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{MONTHS[d.month - 1]} {d.day}, {d.year}",
    lambda d: f"{_short(MONTHS[d.month - 1])} {ordinal(d.day)}, {d.year}",
    lambda d: f"the {ordinal(d.day)} of {MONTHS[d.month - 1]}, {d.year}",
    lambda d: f"{ordinal(d.day)} of {MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{_short(DAYS[d.weekday()])} {d.day} {_short(MONTHS[d.month - 1])} {d.year}".lower(),
    lambda d: f"{d.day:02d}-{_short(MONTHS[d.month - 1])}-{d.year}".upper(),
    lambda d: f"{d.day} {_short(MONTHS[d.month - 1])} '{d.year % 100:02d}",
    lambda d: f"{MONTHS[d.month - 1]} {ordinal(d.day)} {d.year}".upper(),
    lambda d: f"{d.day:02d}.{d.month:02d}.{d.year}",
    lambda d: f"{d.day}.{d.month}.{d.year % 100:02d}",
    lambda d: f"{d.day}-{d.month}-{d.year}",
    lambda d: f"{d.month}/{d.day}/{d.year}",
    lambda d: f"{d.month:02d}/{d.day:02d}/{d.year % 100:02d}",
    lambda d: f"{d.year}/{d.month}/{d.day}",
    lambda d: f"{d.year}{d.month:02d}{d.day:02d}",
)


def write_date(date: datetime.date, form: int) -> str:
    """A date in one of the `FORMATS`.

    >>> write_date(datetime.date(2026, 11, 22), 0)
    'Sunday, 22 Nov. 2026'
    """
    return FORMATS[form](date)


def generate(seed: int, train: int = 24000, validation: int = 500, test: int = 1000) -> tuple[Pairs, Pairs, Pairs]:
    """Pairs for training, validation and test: a pure function of its arguments; no date is in two of them.

    A training date can come more than once, in different formats; validation and test dates come once.
    """
    generator = random.Random(seed)
    ordinals = list(range(FIRST, LAST + 1))
    generator.shuffle(ordinals)
    held_out, rest = ordinals[: validation + test], ordinals[validation + test :]
    train_days = [rest[generator.randrange(len(rest))] for _ in range(train)]
    return (
        _pairs(train_days, generator, "dates/train"),
        _pairs(held_out[:validation], generator, "dates/validation"),
        _pairs(held_out[validation:], generator, "dates/test"),
    )


def _pairs(days: list[int], generator: random.Random, name: str) -> Pairs:
    dates = [datetime.date.fromordinal(day) for day in days]
    sources = [write_date(date, generator.randrange(len(FORMATS))) for date in dates]
    targets = [[date.isoformat()] for date in dates]
    return Pairs(sources, targets, [f"{name}:{number}" for number in range(1, len(days) + 1)])
