"""Unicode normalization of lines, and the characters that each normalized letter came from."""

import unicodedata
from typing import Literal, get_args

UnicodeForm = Literal["none", "NFC", "NFD", "NFKC", "NFKD"]
UNICODE_FORMS: tuple[str, ...] = get_args(UnicodeForm)
Origin = tuple[str, int, int]  # a letter, the first character it was made from, and one past the last


def normalize(line: str, form: str) -> str:
    """The line in a Unicode normalization form; unchanged for `none`."""
    return line if form == "none" else unicodedata.normalize(form, line)  # type: ignore[arg-type]


def origins(line: str, form: str) -> list[Origin]:
    """The letters of the line in a normalization form, each with the first and last character it was made from."""
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
