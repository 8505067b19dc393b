"""Text as matplotlib can draw it: a font per character, code points for characters that are invisible or have none."""

import importlib.util
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.font_manager import FontProperties

DEFAULT_FAMILY = "DejaVu Sans"  # comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew, IPA
# module -> its name on PyPI: open fonts, used where they are installed
FONT_PACKAGES = {"paperang_p2_fonts_cjk": "paperang-p2-fonts-cjk", "manimgx_fonts": "manimgx-fonts"}
PREFERRED_FAMILIES = ("Noto Sans CJK SC", "WenQuanYi Micro Hei", "Noto Sans Devanagari", "Noto Sans Arabic")
REGULAR_WEIGHTS = (400, "normal", "regular", "book")
LABEL_CHARACTERS = 24
INVISIBLE_JOINERS = "\u200c\u200d"  # they decide how their neighbors join
MARK_BASE = "\u25cc"  # the dotted circle that carries a combining mark without a letter, by Unicode's convention
OPEN_BOX = "\u2423"  # a space as a symbol


def legible(text: str) -> str:
    """The text with code points in place of characters that are invisible or that no font has.

    A combining mark without a letter before it is put on a dotted circle.
    """
    return join_pieces([visible_letter(letter, alone=len(text) == 1) for letter in text])


def token_label(token: str) -> str:
    """The legible token, with open boxes for spaces; a long one is cut in the middle, but never inside a code point."""
    pieces = [OPEN_BOX if letter == " " else visible_letter(letter, alone=len(token) == 1) for letter in token]
    ends = np.cumsum([len(piece) for piece in pieces])
    if not pieces or ends[-1] <= LABEL_CHARACTERS:
        return join_pieces(pieces)
    head = int((ends <= LABEL_CHARACTERS // 2).sum())
    tail = int((ends >= ends[-1] - LABEL_CHARACTERS // 2).sum()) - 1
    return join_pieces(pieces[:head]) + "…" + join_pieces(pieces[-tail:])


def join_pieces(pieces: Sequence[str]) -> str:
    """The pieces as one text, on a dotted circle if it begins with a combining mark."""
    text = "".join(pieces)
    return MARK_BASE + text if text and unicodedata.category(text[0]).startswith("M") else text


def visible_letter(letter: str, *, alone: bool) -> str:
    """The letter itself, or its code point where it cannot be seen; a space is left to the caller."""
    if letter == " ":
        return letter
    return f"U+{ord(letter):04X}" if is_invisible(letter, alone=alone) or family_of(letter) is None else letter


def is_invisible(letter: str, *, alone: bool = False) -> bool:
    """Whether a character is a space, a control or a format character; joiners are, only where they stand alone."""
    return unicodedata.category(letter)[0] in "ZC" and (alone or letter not in INVISIBLE_JOINERS)


def font_hint(texts: Iterable[str]) -> str:
    """The font packages to install where characters have no font; empty where all have one or no package is missing."""
    absent = [name for module, name in FONT_PACKAGES.items() if importlib.util.find_spec(module) is None]
    letters = {letter for text in texts for letter in text if not is_invisible(letter) and letter not in OPEN_BOX}
    undrawn = sum(family_of(letter) is None for letter in letters)
    if not absent or not undrawn:
        return ""
    return (
        f"{undrawn} characters have no font here and are shown as code points: pip install {' '.join(sorted(absent))}"
    )


def families_for(text: str) -> list[str]:
    """The font families that together have every character, matplotlib's own last.

    Last, since a cluster of letters that shape each other must come from one font, and a font for a script also has
    the joiners and digits of that script.
    """
    families = dict.fromkeys(family_of(letter) for letter in text if not letter.isspace())
    return [family for family in families if family not in (None, DEFAULT_FAMILY)] + [DEFAULT_FAMILY]


@cache
def family_of(letter: str) -> str | None:
    """The first font family that has the letter; None where none has."""
    return next((family for family in font_families() if ord(letter) in covered_code_points(family)), None)


@cache
def font_families() -> dict[str, int | str]:
    """The font families in the order of preference, each with its weight: matplotlib's, well-known ones, all others.

    Families without a regular weight come last: of a variable font, matplotlib draws only the thinnest.
    """
    for file in packaged_fonts():
        font_manager.fontManager.addfont(file)
    weights: dict[str, int | str] = {}
    for entry in font_manager.fontManager.ttflist:
        own = Path(entry.fname).is_relative_to(matplotlib.get_data_path())  # mathematics in encodings of their own
        bare = entry.name.lower().replace(" ", "")
        if not own and entry.style == "normal" and "lastresort" not in bare and "coloremoji" not in bare:
            is_regular = entry.weight in REGULAR_WEIGHTS
            weights[entry.name] = entry.weight if is_regular else weights.get(entry.name, entry.weight)
    others = sorted(weights, key=lambda family: (weights[family] not in REGULAR_WEIGHTS, family))
    preferred = [family for family in PREFERRED_FAMILIES if weights.get(family) in REGULAR_WEIGHTS]
    return {family: weights.get(family, "normal") for family in (DEFAULT_FAMILY, *preferred, *others)}


def packaged_fonts() -> list[Path]:
    """The font files of the installed font packages, found without importing the packages."""
    specs = (importlib.util.find_spec(package) for package in FONT_PACKAGES)
    folders = [folder for spec in specs if spec for folder in spec.submodule_search_locations or ()]
    return [file for folder in folders for file in sorted(Path(folder).rglob("*.[ot]t[cf]"))]


@cache
def covered_code_points(family: str) -> frozenset[int]:
    """The code points that the family's font can draw; none where the font cannot be used."""
    try:
        properties = FontProperties(family=[family], weight=font_families()[family])
        font = font_manager.get_font(font_manager.findfont(properties, fallback_to_default=False))
    except (OSError, RuntimeError, ValueError):  # gone since matplotlib listed it, or broken
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()  # bitmaps cannot be scaled
