"""Unicode normalization and lower-casing of lines, and the characters that each normalized letter came from.

A form is the name of a Unicode normalization form, or `none`, with `+lower` at its end where letters are lowered after
it: NFKC makes capitals of some symbols. Lower-casing is that of Unicode without a language (`str.lower`): İ becomes
two letters, a sigma at the end of a word ς, and ß stays.
"""

import unicodedata
from typing import Literal, get_args

UnicodeForm = Literal["none", "NFC", "NFD", "NFKC", "NFKD"]
UNICODE_FORMS: tuple[str, ...] = get_args(UnicodeForm)
LOWER = "+lower"
FORMS: tuple[str, ...] = (*UNICODE_FORMS, *(form + LOWER for form in UNICODE_FORMS))
Origin = tuple[str, int, int]  # a letter, the first character it was made from, and one past the last


def normalize(line: str, form: str) -> str:
    """The line in a form; unchanged for `none`."""
    if form == "none":
        return line
    unicode = form.removesuffix(LOWER)
    line = line if unicode == "none" else unicodedata.normalize(unicode, line)  # type: ignore[arg-type]
    return line if unicode == form else line.lower()


def origins(line: str, form: str) -> list[Origin]:
    """The letters of the line in a form, each with the first and one past the last character it was made from."""
    unicode = form.removesuffix(LOWER)
    letters = _composed(line, unicode)
    if unicode == form:
        return letters
    ends = [(first, last) for whole, first, last in letters for _ in whole.lower()]
    # lowered again as a whole: whether a sigma ends a word is seen there alone
    return [(letter, *end) for letter, end in zip(normalize(line, form), ends, strict=True)]


def _composed(line: str, form: str) -> list[Origin]:
    """`origins` of a Unicode form."""
    clusters: list[str] = []  # the shortest parts that can be normalized independently
    for letter in line:
        if clusters and form != "none" and _interact(clusters[-1], letter, form):
            clusters[-1] += letter
        else:
            clusters.append(letter)
    letters, start = [], 0
    for cluster in clusters:
        normalized, end = normalize(cluster, form), start + len(cluster)
        if normalized == cluster:
            letters += [(letter, place, place + 1) for place, letter in enumerate(cluster, start)]
        else:
            letters += [(letter, start, end) for letter in normalized]
        start = end
    return letters


def _interact(cluster: str, letter: str, form: str) -> bool:
    """Whether a letter can change the letters before it: a mark, a part of a Hangul syllable, a vowel sign."""
    mark = unicodedata.combining(unicodedata.normalize("NFKD", letter)[0])
    return bool(mark) or normalize(cluster + letter, form) != normalize(cluster, form) + normalize(letter, form)
