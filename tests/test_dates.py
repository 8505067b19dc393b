import re
import unicodedata
from collections import Counter
from datetime import date, timedelta
from hashlib import sha256
from random import Random

import pytest

from s2s_jax.text.dates import (
    CLDR,
    FIRST_DAY,
    LAST_DAY,
    LOCALES,
    MAX_CHARACTERS,
    Dates,
    date_formats,
    matching_formats,
    write_date,
)
from s2s_jax.text.synthetic_tasks import make_examples, split_of

FORMS = [form for locale in LOCALES for form in date_formats(locale)]
MONTHS = range(1, 13)
DAYS = [date(1999 + month, month, day) for month in MONTHS for day in (1 + month % 9, 12, 16 + month)]


def month_names(locale):
    """The full and the abbreviated names of months: {name: number}."""
    names = CLDR["locales"][locale]["names"]
    return {name: month for field in ("MMMM", "MMM") for month, name in enumerate(names.get(field, ()), 1)}


MONTH_NAMES = [(locale, name, month) for locale in LOCALES for name, month in month_names(locale).items()]


def plain(text):
    """Latin digits and plain spaces, character by character."""
    return "".join(
        str(unicodedata.digit(c)) if c.isdigit() else " " if unicodedata.category(c) == "Zs" else c for c in text
    )


def read_date(source):
    """The date that a reader finds who knows the month names of all languages, but not the language of the line."""
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


def test_there_are_many_languages_and_scripts():
    letters = [c for form in FORMS for day in DAYS for c in write_date(form, day).source if c.isalpha()]
    scripts = {unicodedata.name(c).split()[0] for c in letters}
    assert len(LOCALES) == len(set(LOCALES)) >= 10
    assert all(len(date_formats(locale)) >= 3 for locale in LOCALES)
    assert scripts >= {"LATIN", "CYRILLIC", "GREEK", "CJK", "HANGUL", "DEVANAGARI", "BENGALI", "ARABIC", "HEBREW"}
    assert {unicodedata.bidirectional(c) for c in letters} >= {"L", "R", "AL"}


@pytest.mark.parametrize("locale", LOCALES)
def test_babel_writes_the_same_but_for_digits_and_spaces(locale):
    """Only with the version of Babel that the table was made with: other versions have another CLDR."""
    babel = pytest.importorskip("babel")
    if not CLDR["source"].endswith(f"Babel {babel.__version__}"):
        pytest.skip(f"the table is of {CLDR['source']}")
    from babel.dates import format_date

    for form in date_formats(locale):
        for day in DAYS:
            assert plain(write_date(form, day).source) == plain(format_date(day, format=form.pattern, locale=locale))
    long = format_date(date(2024, 3, 4), format="long", locale=locale)
    assert plain(long) in {plain(write_date(form, date(2024, 3, 4)).source) for form in date_formats(locale)}


def test_golden_examples_of_dates():
    """If this fails, was the table regenerated? Scores of `task:dates` from before are not comparable then."""
    assert CLDR["source"] == "Unicode CLDR 47 as of Babel 2.18.0"
    lines = [f"{one.source}\t{one.target}\t{one.links}" for one in make_examples("dates", split="train", count=500)]
    assert sha256("\n".join(lines).encode()).hexdigest()[:16] == "6a8390ce9e4b6798"
    assert lines[0].split("\t")[:2] == ["gio 1 mag 2059", "2059-05-01"]


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
    assert source in [write_date(form, day).source for form in date_formats(locale)]


def test_arabic_persian_and_bengali_have_their_own_digits():
    zeros = {"ar_EG": "٠", "fa": "۰", "bn": "০"}
    for form in FORMS:
        zero = zeros.get(form.locale, "0")
        source = write_date(form, date(2000, 10, 20)).source
        assert zero in source
        assert not any(other in source for other in {*zeros.values(), "0"} - {zero})


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
            example = write_date(form, day)
            assert example.target == day.isoformat() == read_date(example.source), (form, example)


def test_no_source_has_two_targets():
    targets = {}
    for form in FORMS:
        for day in (date(2024, month, day) for month in MONTHS for day in range(1, 13)):
            example = write_date(form, day)
            targets.setdefault(example.source, set()).add(example.target)
    assert len(targets) > 8000
    assert {source: found for source, found in targets.items() if len(found) > 1} == {}


def test_month_first_in_numbers_is_left_out():
    assert "3/4/2024" not in [write_date(form, date(2024, 3, 4)).source for form in FORMS]
    assert "04/03/2024" in [write_date(form, date(2024, 3, 4)).source for form in date_formats("en_GB")]


def test_linked_digits_agree():
    for form in FORMS:
        for day in DAYS:
            source, target, links, _ = write_date(form, day)
            for place in (*range(4), 5, 6, 8, 9):
                linked = "".join(source[i] for i, j in links if j == place)
                assert linked, (form, day, place)
                if linked.isdigit() and len(linked) == 1:
                    digit = unicodedata.digit(linked)
                    lone = int(target[5:7] if place < 7 else target[8:10])
                    assert digit == int(target[place]) or (digit == lone and target[place] == "0")
                else:
                    assert 4 < place < 7, "only a month may be a name"


def test_links_cover_the_month_name_and_no_other_words():
    for form in FORMS:
        for day in DAYS:
            source, _, links, _ = write_date(form, day)
            month = {i for i, j in links if j in (5, 6)}
            text = "".join(source[i] for i in sorted(month))
            assert sorted(month) == list(range(min(month), max(month) + 1))
            if text.isdigit():
                assert int(text) == day.month
            else:
                assert month_names(form.locale)[text] == day.month
                assert {j for i, j in links if i in month} == {5, 6}
                assert len([link for link in links if link[0] in month]) == 2 * len(text)
            digits = {i for i, character in enumerate(source) if character.isdigit()}
            assert {i for i, _ in links} == month | digits
            assert {j for _, j in links} == set(range(10)) - {4, 7}


def test_links_by_hand():
    (form,) = [form for form in date_formats("de") if form.pattern == "d. MMM y"]
    source, target, links, _ = write_date(form, date(2024, 5, 7))
    assert (source, target) == ("7. Mai 2024", "2024-05-07")
    day, year = ((0, 8), (0, 9)), ((7, 0), (8, 1), (9, 2), (10, 3))
    assert links == (*day, (3, 5), (3, 6), (4, 5), (4, 6), (5, 5), (5, 6), *year)
    (form,) = [form for form in date_formats("ko") if form.pattern == "y년 MMMM d일"]
    source, target, links, _ = write_date(form, date(2024, 12, 31))
    assert (source, target) == ("2024년 12월 31일", "2024-12-31")
    assert links == ((0, 0), (1, 1), (2, 2), (3, 3), (6, 5), (7, 6), (10, 8), (11, 9))
    source, target, links, _ = write_date(form, date(2024, 3, 31))
    assert (source, target) == ("2024년 3월 31일", "2024-03-31")
    assert links == ((0, 0), (1, 1), (2, 2), (3, 3), (6, 5), (6, 6), (9, 8), (10, 9))


def test_sources_are_short_visible_and_have_a_year_of_four_digits():
    for form in FORMS:
        for day in DAYS:
            source = plain(write_date(form, day).source)
            assert len(source) <= MAX_CHARACTERS
            hidden = {c for c in source if unicodedata.category(c) in ("Cf", "Cc")}
            assert hidden <= {"\u200c"}, "only the non-joiner, which Persian spelling wants"
            assert str(day.year) in source


def test_a_date_is_held_out_in_every_language():
    days = {
        split: {e.target for e in make_examples("dates", split=split, count=150)}
        for split in ("train", "validation", "test")
    }
    assert all(split_of(day) == split for split, found in days.items() for day in found)
    assert not days["train"] & days["test"]
    assert not days["train"] & days["validation"]
    assert not days["validation"] & days["test"]


def test_every_locale_is_drawn_about_equally_often_and_every_year():
    rng = Random(0)
    draws = [Dates().draw(rng) for _ in range(2000)]
    counts = Counter(form.locale for form, _ in draws)
    assert set(counts) == set(LOCALES)
    assert max(counts.values()) < 2 * min(counts.values())
    assert {day.year for _, day in draws} == set(range(1900, 2100))


def test_the_formats_that_write_an_example_are_found():
    form = date_formats("fr")[0]
    assert matching_formats(write_date(form, date(2024, 9, 7))) == [form]
    both = {other.locale for other in matching_formats(write_date(date_formats("de")[1], date(2024, 8, 7)))}
    assert both == {"de", "tr", "ru"}
    assert all(matching_formats(example) for example in make_examples("dates", split="train", count=20))


def test_all_dates_are_listed_once_with_every_format():
    items = Dates().items()
    first = [next(items) for _ in range(len(FORMS) + 1)]
    assert first == [*((form, FIRST_DAY) for form in FORMS), (FORMS[0], FIRST_DAY + timedelta(days=1))]
    assert (FIRST_DAY.year, LAST_DAY.year) == (1900, 2099)
