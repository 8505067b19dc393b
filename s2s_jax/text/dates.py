"""How do people write a calendar date, and which of its characters make which digits of the ISO date?

The formats come from CLDR by way of Babel, so the examples are a function of the installed Babel version as well. Every
source has one right answer across all locales, because of what `formats` takes:

* the year always has four digits, so it is never mistaken for a day or a month;
* where the month is a number, the order is day-month-year or year-month-day. Month-day-year, which only en_US has among
  `LOCALES`, is left out: nothing tells its 03/04/2024 from the British one;
* no month name of one locale is another month's name elsewhere (Polish and Croatian "listopada" may not meet here).
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import product
from random import Random
from typing import NamedTuple

from babel import Locale
from babel.dates import format_date, tokenize_pattern

from s2s_jax.text.example import Example, Links

LOCALES = (
    *("en_US", "en_GB", "de", "fr", "es", "it", "pl", "tr"),
    *("ru", "el", "ja", "zh", "ko", "hi", "bn", "ar_EG", "fa", "he"),
)
FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(2099, 12, 31)
LONGEST = (
    24  # characters; a format that can exceed it is left out: full weekday and month names make long lines of copies
)
SKELETONS = ("yMMMd", "yMMMEd", "yMd", "yMEd")  # CLDR's names for: month name, and weekday, month number, and weekday

PLACES = {"y": range(4), "M": range(5, 7), "d": range(8, 10)}  # field of the pattern -> its characters in YYYY-MM-DD
WEEKDAYS = "Ec"  # CLDR's letters for a weekday within a sentence and on its own
ZEROS = {"latn": "0", "arab": "٠", "arabext": "۰", "beng": "০", "deva": "०"}  # CLDR numbering system -> its zero
THIRTEENTHS = [date(2000, month, 13) for month in range(1, 13)]  # every month, every weekday, a day of two digits


class Piece(NamedTuple):
    """A part of a pattern: a literal as it is written (letter ""), or a field such as MMMM (letter "M")."""

    letter: str
    text: str


class Format(NamedTuple):
    """One way to write a date: the CLDR pattern of a locale, and the same in pieces."""

    locale: str
    pattern: str
    pieces: tuple[Piece, ...]


class Written(NamedTuple):
    """A field as it is written, and its links into the ISO date, counted from the field's first character."""

    text: str
    links: Links


@cache
def formats(locale: str) -> tuple[Format, ...]:
    """The formats in which `locale` may write a date, each pattern once."""
    data = Locale.parse(locale)
    patterns = [data.date_formats[length].pattern for length in ("full", "long", "medium", "short")]
    patterns += [data.datetime_skeletons[name].pattern for name in SKELETONS if name in data.datetime_skeletons]
    forms = (Format(locale, pattern, _pieces(pattern, locale)) for pattern in dict.fromkeys(patterns))
    return tuple(form for form in forms if _is_clear(form) and _width(form) <= LONGEST)


def write(form: Format, day: date) -> Example:
    """`day` as `form` writes it, the ISO date, and what belongs together.

    Years, and days and months of two digits, are linked digit by digit; the single digit of a day or month, and every
    character of a month name, with both target digits. Weekdays, literals and the dashes have no links.
    """
    source, links = "", []
    for letter, text in form.pieces:
        written = _field(form.locale, text, _only(letter, day)) if letter else Written(text, ())
        links += [(len(source) + character, place) for character, place in written.links]
        source += written.text
    return Example(source, day.isoformat(), tuple(links))


def formats_of(example: Example) -> list[Format]:
    """The formats, over all locales, that write the example's date as its source: for analysis by language."""
    day = date.fromisoformat(example.target)
    return [form for locale in LOCALES for form in formats(locale) if write(form, day).source == example.source]


@dataclass(frozen=True, kw_only=True)
class Dates:
    """Dates in many languages to ISO 8601; a date is held out in all languages at once."""

    def draw(self, chance: Random) -> tuple[Format, date]:
        """A format and a day by chance: every locale as often as any other, however many formats it has."""
        day = FIRST_DAY + timedelta(days=chance.randrange((LAST_DAY - FIRST_DAY).days + 1))
        return chance.choice(formats(chance.choice(LOCALES))), day

    def every(self) -> Iterator[tuple[Format, date]]:
        """All that `draw` can give."""
        for offset in range((LAST_DAY - FIRST_DAY).days + 1):
            for locale in LOCALES:
                for form in formats(locale):
                    yield form, FIRST_DAY + timedelta(days=offset)

    def item(self, piece: tuple[Format, date]) -> str:
        """What decides the split: the day, whatever the language."""
        return piece[1].isoformat()

    def example(self, piece: tuple[Format, date]) -> Example:
        """The day as the format writes it, and its ISO date."""
        return write(*piece)


def _pieces(pattern: str, locale: str) -> tuple[Piece, ...]:
    """The pattern cut into literals and fields."""
    tokens = tokenize_pattern(pattern)
    as_typed = _as_typed(locale)
    return tuple(
        Piece("", value.translate(as_typed)) if isinstance(value, str) else Piece(value[0], value[0] * value[1])
        for _, value in tokens
    )


@cache
def _as_typed(locale: str) -> dict[int, str]:
    """What Babel writes -> what people type, for `str.translate`, character by character so that offsets stay.

    Babel writes 0-9 everywhere, where CLDR asks for the locale's own digits; and CLDR's no-break spaces are typed as
    plain spaces.
    """
    zero = ord(ZEROS[Locale.parse(locale).default_numbering_system])
    return {ord(str(digit)): chr(zero + digit) for digit in range(10)} | {0x00A0: " ", 0x202F: " "}


def _is_clear(form: Format) -> bool:
    """Whether the format says day, month and four-digit year, visibly, and in an order that cannot be mistaken."""
    fields = {letter: text for letter, text in form.pieces if letter and letter not in WEEKDAYS}
    if sorted(fields) != ["M", "d", "y"] or fields["y"] == "yy":
        return False
    literals = "".join(text for letter, text in form.pieces if not letter)
    if any(unicodedata.category(character) == "Cf" for character in literals):
        return False  # direction marks, which nobody types and some tokenizers drop
    is_named = not _field(form.locale, fields["M"], THIRTEENTHS[0]).text[0].isdigit()
    return is_named or "".join(fields) in ("dMy", "yMd")


def _width(form: Format) -> int:
    """The characters of the longest date in this format."""
    return sum(
        max(len(_field(form.locale, text, day).text) for day in THIRTEENTHS) if letter else len(text)
        for letter, text in form.pieces
    )


def _only(letter: str, day: date) -> date:
    """The plainest day that is the same as `day` for this field, so that the cache below stays small."""
    match letter:
        case "y":
            return date(day.year, 1, 1)
        case "M":
            return date(2000, day.month, 1)
        case "d":
            return date(2000, 1, day.day)
        case _:
            return date(2001, 1, 1 + day.weekday())  # 2001 began on a Monday


@cache
def _field(locale: str, field: str, day: date) -> Written:
    """One field of a date as the locale writes it, with its links."""
    text = format_date(day, format=field, locale=locale).translate(_as_typed(locale))
    return Written(text, _links(text, PLACES.get(field[0], range(0))))


def _links(text: str, places: range) -> Links:
    """Digit by digit where there are as many digits as places, else all with all.

    A Korean month "name" is a number and a counter, as in "3월": the counter is left out, as 月 is in Chinese.
    """
    digits = sum(character.isdigit() for character in text)
    if digits == len(places):
        return tuple(enumerate(places))
    return tuple(product(range(digits or len(text)), places))
