import re
import unicodedata
from collections import Counter
from datetime import date, timedelta
from random import Random

import pytest
from babel import Locale
from babel.dates import format_date

from s2s_jax.text.dates import FIRST_DAY, LAST_DAY, LOCALES, LONGEST, Dates, formats, formats_of, write
from s2s_jax.text.synthetic_tasks import make, split_of

FORMS = [form for locale in LOCALES for form in formats(locale)]
MONTHS = range(1, 13)
DAYS = [date(1999 + month, month, day) for month in MONTHS for day in (1 + month % 9, 12, 16 + month)]


def names(locale, table):
    """A table of CLDR, in its full and its abbreviated form: {name: number}."""
    data = getattr(Locale.parse(locale), table)
    return {
        name: number
        for context in data
        for width in ("wide", "abbreviated")
        for number, name in data[context][width].items()
    }


MONTH_NAMES = [(locale, name, month) for locale in LOCALES for name, month in names(locale, "months").items()]


def plain(text):
    """Latin digits and plain spaces, character by character."""
    return "".join(
        str(unicodedata.digit(c)) if c.isdigit() else " " if unicodedata.category(c) == "Zs" else c for c in text
    )


def read(source):
    """The date that a reader finds who knows all months' names but not which language the line is in."""
    text = plain(source)
    numbers = re.findall("[0-9]+", text)
    (year,) = (number for number in numbers if len(number) == 4)
    others = [int(number) for number in numbers if len(number) < 4]
    if len(others) == 2:  # year first: year, month, day; year last: day, month, year
        month, day = others if numbers[0] == year else others[::-1]
    else:  # the month is the last name before the year: a weekday such as "mar" for martes comes earlier
        (day,) = others
        before = text[: text.index(year)]
        found = {(before.rfind(name) + len(name), len(name), month) for _, name, month in MONTH_NAMES if name in before}
        month = max(found)[-1]
    return date(int(year), month, day).isoformat()


def test_there_are_languages_and_scripts_enough():
    letters = [c for form in FORMS for day in DAYS for c in write(form, day).source if c.isalpha()]
    scripts = {unicodedata.name(c).split()[0] for c in letters}
    assert len(LOCALES) == len(set(LOCALES)) >= 10
    assert all(len(formats(locale)) >= 3 for locale in LOCALES)
    assert scripts >= {"LATIN", "CYRILLIC", "GREEK", "CJK", "HANGUL", "DEVANAGARI", "BENGALI", "ARABIC", "HEBREW"}
    assert {unicodedata.bidirectional(c) for c in letters} >= {"L", "R", "AL"}


@pytest.mark.parametrize("locale", LOCALES)
def test_babel_writes_the_same_but_for_digits_and_spaces(locale):
    for form in formats(locale):
        for day in DAYS:
            assert plain(write(form, day).source) == plain(format_date(day, format=form.pattern, locale=locale))
    long = format_date(date(2024, 3, 4), format="long", locale=locale)
    assert plain(long) in {plain(write(form, date(2024, 3, 4)).source) for form in formats(locale)}


@pytest.mark.parametrize(
    ("locale", "day", "source"),
    [
        ("en_US", date(2009, 9, 3), "September 3, 2009"),
        ("es", date(2009, 9, 3), "3 de septiembre de 2009"),
        ("ru", date(2009, 9, 3), "3 сентября 2009 г."),
        ("zh", date(2009, 9, 3), "2009年9月3日"),
        ("ko", date(2009, 10, 23), "2009년 10월 23일"),
        ("ar_EG", date(2009, 3, 23), "٢٣ مارس ٢٠٠٩"),
        ("fa", date(2009, 3, 23), "۲۳ مارس ۲۰۰۹"),
        ("bn", date(2009, 3, 23), "২৩ মার্চ, ২০০৯"),
        ("he", date(2009, 3, 23), "23 במרץ 2009"),
    ],
)
def test_what_people_write_is_among_the_formats(locale, day, source):
    assert source in [write(form, day).source for form in formats(locale)]


def test_the_locales_own_digits_are_used_where_cldr_says_so():
    zeros = {"arab": "٠", "arabext": "۰", "beng": "০", "latn": "0"}
    for form in FORMS:
        zero = zeros[Locale.parse(form.locale).default_numbering_system]
        source = write(form, date(2000, 10, 20)).source
        assert zero in source
        assert not any(other in source for other in zeros.values() if other != zero)


def test_no_month_name_means_another_month_elsewhere():
    months = {}
    for _, name, month in MONTH_NAMES:
        if not name[0].isdigit():
            months.setdefault(name, set()).add(month)
    assert len(months) > 200
    assert {name: numbers for name, numbers in months.items() if len(numbers) > 1} == {}


def test_a_reader_who_does_not_know_the_language_finds_the_right_date():
    for form in FORMS:
        for day in DAYS:
            example = write(form, day)
            assert example.target == day.isoformat() == read(example.source), (form, example)


def test_no_source_has_two_targets():
    targets = {}
    for form in FORMS:
        for day in (date(2024, month, day) for month in MONTHS for day in range(1, 13)):
            example = write(form, day)
            targets.setdefault(example.source, set()).add(example.target)
    assert len(targets) > 8000
    assert {source: found for source, found in targets.items() if len(found) > 1} == {}


def test_month_first_in_numbers_is_left_out():
    assert "3/4/2024" not in [write(form, date(2024, 3, 4)).source for form in FORMS]
    assert "04/03/2024" in [write(form, date(2024, 3, 4)).source for form in formats("en_GB")]


def test_linked_digits_agree():
    for form in FORMS:
        for day in DAYS:
            source, target, links = write(form, day)
            for place in (*range(4), 5, 6, 8, 9):
                linked = "".join(source[i] for i, j in links if j == place)
                assert linked, (form, day, place)
                if linked.isdigit() and len(linked) == 1:
                    digit = unicodedata.digit(linked)
                    lone = int(target[5:7] if place < 7 else target[8:10])
                    assert digit == int(target[place]) or (digit == lone and target[place] == "0")
                else:
                    assert 4 < place < 7, "only a month may be a name"


def test_links_cover_the_month_name_and_nothing_of_other_words():
    for form in FORMS:
        for day in DAYS:
            source, _, links = write(form, day)
            month = {i for i, j in links if j in (5, 6)}
            text = "".join(source[i] for i in sorted(month))
            assert sorted(month) == list(range(min(month), max(month) + 1))
            if text.isdigit():
                assert int(text) == day.month
            else:
                assert names(form.locale, "months")[text] == day.month
                assert {j for i, j in links if i in month} == {5, 6}
                assert len([link for link in links if link[0] in month]) == 2 * len(text)
            digits = {i for i, character in enumerate(source) if character.isdigit()}
            assert {i for i, _ in links} == month | digits
            assert {j for _, j in links} == set(range(10)) - {4, 7}


def test_links_by_hand():
    (form,) = [form for form in formats("de") if form.pattern == "d. MMM y"]
    source, target, links = write(form, date(2024, 5, 7))
    assert (source, target) == ("7. Mai 2024", "2024-05-07")
    day, year = ((0, 8), (0, 9)), ((7, 0), (8, 1), (9, 2), (10, 3))
    assert links == (*day, (3, 5), (3, 6), (4, 5), (4, 6), (5, 5), (5, 6), *year)
    (form,) = [form for form in formats("ko") if form.pattern == "y년 MMMM d일"]
    source, target, links = write(form, date(2024, 12, 31))
    assert (source, target) == ("2024년 12월 31일", "2024-12-31")
    assert links == ((0, 0), (1, 1), (2, 2), (3, 3), (6, 5), (7, 6), (10, 8), (11, 9))
    source, target, links = write(form, date(2024, 3, 31))
    assert (source, target) == ("2024년 3월 31일", "2024-03-31")
    assert links == ((0, 0), (1, 1), (2, 2), (3, 3), (6, 5), (6, 6), (9, 8), (10, 9))


def test_sources_are_short_visible_and_have_a_year_of_four_digits():
    for form in FORMS:
        for day in DAYS:
            source = plain(write(form, day).source)
            assert len(source) <= LONGEST
            hidden = {c for c in source if unicodedata.category(c) in ("Cf", "Cc")}
            assert hidden <= {"\u200c"}, "only the non-joiner, which Persian spelling wants"
            assert str(day.year) in source


def test_a_date_is_held_out_in_every_language():
    days = {
        split: {e.target for e in make("dates", split=split, count=150)} for split in ("train", "validation", "test")
    }
    assert all(split_of(day) == split for split, found in days.items() for day in found)
    assert not days["train"] & days["test"]
    assert not days["train"] & days["validation"]
    assert not days["validation"] & days["test"]


def test_every_locale_is_drawn_about_equally_often_and_every_year():
    chance = Random(0)
    draws = [Dates().draw(chance) for _ in range(2000)]
    counts = Counter(form.locale for form, _ in draws)
    assert set(counts) == set(LOCALES)
    assert max(counts.values()) < 2 * min(counts.values())
    assert {day.year for _, day in draws} == set(range(1900, 2100))


def test_an_example_tells_which_formats_write_it():
    form = formats("fr")[0]
    assert formats_of(write(form, date(2024, 9, 7))) == [form]
    both = {other.locale for other in formats_of(write(formats("de")[1], date(2024, 8, 7)))}
    assert both == {"de", "tr", "ru"}
    assert all(formats_of(example) for example in make("dates", split="train", count=20))


def test_all_dates_are_listed_once_with_every_format():
    every = Dates().every()
    first = [next(every) for _ in range(len(FORMS) + 1)]
    assert first == [*((form, FIRST_DAY) for form in FORMS), (FORMS[0], FIRST_DAY + timedelta(days=1))]
    assert (FIRST_DAY.year, LAST_DAY.year) == (1900, 2099)
