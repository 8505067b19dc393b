"""What does Unicode normalization make of a line, and which characters did each letter come from?"""

import unicodedata

FORMS = ("none", "NFC", "NFD", "NFKC", "NFKD")
Origin = tuple[str, int, int]  # a letter, the first character it was made from, and one past the last


def normalize(line: str, form: str) -> str:
    """The line in a Unicode normalization form; as it is for `none`."""
    return line if form == "none" else unicodedata.normalize(form, line)  # type: ignore[arg-type]


def origins(line: str, form: str) -> list[Origin]:
    """The letters of the line in a normalization form, each with the first and last character it was made from."""
    clusters: list[str] = []  # the shortest pieces that can be normalized one by one
    for letter in line:
        if clusters and form != "none" and _interact(clusters[-1], letter, form):
            clusters[-1] += letter
        else:
            clusters.append(letter)
    found, start = [], 0
    for cluster in clusters:
        written, end = normalize(cluster, form), start + len(cluster)
        if written == cluster:
            found += [(letter, place, place + 1) for place, letter in enumerate(cluster, start)]
        else:
            found += [(letter, start, end) for letter in written]
        start = end
    return found


def _interact(cluster: str, letter: str, form: str) -> bool:
    """Whether a letter can change what goes before it: a mark, a part of a Hangul syllable, a vowel sign."""
    mark = unicodedata.combining(unicodedata.normalize("NFKD", letter)[0])
    return bool(mark) or normalize(cluster + letter, form) != normalize(cluster, form) + normalize(letter, form)
