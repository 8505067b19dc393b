"""Calendar dates as people write them in 18 locales, and which of their characters make which digits of the ISO date.

The formats come from CLDR, through the table `dates_cldr.json`, which `scripts/make_dates_table.py` wrote and which
names its version. Every source has one right answer across all locales, because of what `date_formats` takes:

* the year always has four digits, so it is never mistaken for a day or a month;
* where the month is a number, the order is day-month-year or year-month-day. Month-day-year, which only en_US has among
  `LOCALES`, is left out: nothing distinguishes its 03/04/2024 from the British one;
* no month name of one locale is another month's name elsewhere (Polish and Croatian "listopada" may not meet here).
"""

import importlib.resources
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import product
from random import Random
from typing import Any, NamedTuple

from s2s_jax.text.example import Example, Links

CLDR: dict[str, Any] = json.loads(importlib.resources.files("s2s_jax.text").joinpath("dates_cldr.json").read_bytes())
LOCALES: tuple[str, ...] = tuple(CLDR["locales"])
FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(2099, 12, 31)
# a format that can be longer is left out: full weekday and month names make long lines of copied characters
MAX_CHARACTERS = 24

PATTERN_TOKEN = re.compile(r"'(?P<quoted>[^']*)'|(?P<field>([A-Za-z])\3*)|(?P<literal>[^A-Za-z']+)")
ISO_POSITIONS = {"y": range(4), "M": range(5, 7), "d": range(8, 10)}  # field of a pattern -> characters of YYYY-MM-DD
WEEKDAYS = "Ec"  # CLDR's letters for a weekday within a sentence and on its own
THIRTEENTHS = [date(2000, month, 13) for month in range(1, 13)]  # every month, every weekday, a day of two digits


class PatternPart(NamedTuple):
    """A part of a pattern: a literal as it is written (letter ""), or a field such as MMMM (letter "M")."""

    letter: str
    text: str


class DateFormat(NamedTuple):
    """One way to write a date: the CLDR pattern of a locale, and the same in parts."""

    locale: str
    pattern: str
    parts: tuple[PatternPart, ...]


class FieldText(NamedTuple):
    """A field as it is written, and its links into the ISO date, counted from the field's first character."""

    text: str
    links: Links


@cache
def date_formats(locale: str) -> tuple[DateFormat, ...]:
    """The formats in which `locale` may write a date, each pattern once."""
    patterns = CLDR["locales"][locale]["patterns"]
    formats = (DateFormat(locale, pattern, _pattern_parts(pattern, locale)) for pattern in patterns)
    return tuple(form for form in formats if _is_unambiguous(form) and _longest(form) <= MAX_CHARACTERS)


def write_date(form: DateFormat, day: date) -> Example:
    """`day` as `form` writes it, the ISO date, and the links between them.

    Years, and days and months of two digits, are linked digit by digit; the single digit of a day or month, and every
    character of a month name, with both target digits. Weekdays, literals and the dashes have no links.
    """
    source, links = "", []
    for letter, text in form.parts:
        field = _field_text(form.locale, text, _value(letter, day)) if letter else FieldText(text, ())
        links += [(len(source) + character, position) for character, position in field.links]
        source += field.text
    return Example(source, day.isoformat(), tuple(links))


def matching_formats(example: Example) -> list[DateFormat]:
    """The formats, over all locales, that write the example's date as its source: for analysis by language."""
    day = date.fromisoformat(example.target)
    formats = (form for locale in LOCALES for form in date_formats(locale))
    return [form for form in formats if write_date(form, day).source == example.source]


@dataclass(frozen=True, kw_only=True)
class Dates:
    """Dates in many languages to ISO 8601; a date is held out in all languages at once."""

    def draw(self, rng: Random) -> tuple[DateFormat, date]:
        """A random format and day: every locale as often as any other, however many formats it has."""
        day = FIRST_DAY + timedelta(days=rng.randrange((LAST_DAY - FIRST_DAY).days + 1))
        return rng.choice(date_formats(rng.choice(LOCALES))), day

    def items(self) -> Iterator[tuple[DateFormat, date]]:
        """Every format and day that `draw` can give."""
        for offset in range((LAST_DAY - FIRST_DAY).days + 1):
            for locale in LOCALES:
                for form in date_formats(locale):
                    yield form, FIRST_DAY + timedelta(days=offset)

    def split_key(self, item: tuple[DateFormat, date]) -> str:
        """The day, whatever the language."""
        return item[1].isoformat()

    def example(self, item: tuple[DateFormat, date]) -> Example:
        """The day as the format writes it, and its ISO date."""
        return write_date(*item)


def _pattern_parts(pattern: str, locale: str) -> tuple[PatternPart, ...]:
    """The pattern cut into literals and fields."""
    as_typed = _as_typed(locale)
    parts = []
    for match in PATTERN_TOKEN.finditer(pattern):
        field = match["field"]
        literal = (match["quoted"] or "") + (match["literal"] or "")
        parts.append(PatternPart(field[0], field) if field else PatternPart("", literal.translate(as_typed)))
    return tuple(parts)


@cache
def _as_typed(locale: str) -> dict[int, str]:
    """Latin digits and no-break spaces -> what people type, for `str.translate`, which keeps all offsets.

    People type the locale's own digits, and plain spaces where CLDR has no-break spaces.
    """
    zero = ord(CLDR["locales"][locale]["zero"])
    return {ord(str(digit)): chr(zero + digit) for digit in range(10)} | {0x00A0: " ", 0x202F: " "}


def _is_unambiguous(form: DateFormat) -> bool:
    """Whether the format shows day, month and four-digit year, visibly, and in an order that cannot be mistaken."""
    fields = {letter: text for letter, text in form.parts if letter and letter not in WEEKDAYS}
    if sorted(fields) != ["M", "d", "y"] or fields["y"] == "yy":
        return False
    literals = "".join(text for letter, text in form.parts if not letter)
    if any(unicodedata.category(character) == "Cf" for character in literals):
        return False  # direction marks, which nobody types and some tokenizers drop
    has_month_name = not _field_text(form.locale, fields["M"], 1).text[0].isdigit()
    return has_month_name or "".join(fields) in ("dMy", "yMd")


def _longest(form: DateFormat) -> int:
    """The characters of the longest date in this format."""
    return sum(
        max(len(_field_text(form.locale, text, _value(letter, day)).text) for day in THIRTEENTHS)
        if letter
        else len(text)
        for letter, text in form.parts
    )


def _value(letter: str, day: date) -> int:
    """The number that a field shows: year, month, day, or weekday with Monday as 0."""
    values = {"y": day.year, "M": day.month, "d": day.day}
    return values.get(letter, day.weekday())


@cache
def _field_text(locale: str, field: str, value: int) -> FieldText:
    """One field of a date as the locale writes it, with its links."""
    names = CLDR["locales"][locale]["names"].get(field)
    if names:
        text = names[value - 1 if field[0] == "M" else value]
    else:
        text = f"{value:0{len(field)}d}"
    text = text.translate(_as_typed(locale))
    return FieldText(text, _field_links(text, ISO_POSITIONS.get(field[0], range(0))))


def _field_links(text: str, positions: range) -> Links:
    """Digit by digit where there are as many digits as positions, else all with all.

    A Korean month "name" is a number and a counter, as in "3월": the counter is left out, as 月 is in Chinese.
    """
    digits = sum(character.isdigit() for character in text)
    if digits == len(positions):
        return tuple(enumerate(positions))
    return tuple(product(range(digits or len(text)), positions))
