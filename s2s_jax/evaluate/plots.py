"""Where did the model look? Alignments as heat maps in PNG files, legible in any script that some font here can draw.

Nothing global is touched: no pyplot, no rcParams. (Fonts that a package brings are made known to matplotlib's font
manager, which changes no picture but these.) Matplotlib 3.11 and later shapes text: Arabic letters join and run right
to left, Devanagari vowels and conjuncts take their places. A character that no font has is shown as its code point.
"""

import importlib.util
import math
import textwrap
import unicodedata
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import imsave
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation

Link = tuple[int, int]
Place = tuple[int | float, int | float]

DOTS_PER_INCH = 150
CELL_INCHES = 0.24  # of one token: a line of text with air
SIDE_INCHES = 26.0  # the longest side of a map: 108 tokens at full size, 200 tokens at 0.13 inches each
MARGIN_INCHES = 0.12
TEXT_POINTS = (6.0, 9.0)  # below the smaller, only every second, third, ... token is named
LABEL_CHARACTERS, TITLE_CHARACTERS = 24, 60
COLORS = colormaps["Greys"].with_extremes(bad="#d62728")  # bad: NaN
GOLD_COLOR = "#d95f02"  # seen on white and on black
DEFAULT_FAMILY = "DejaVu Sans"  # comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew, IPA
FONT_PACKAGES = ("paperang_p2_fonts_cjk", "manimgx_fonts")  # open fonts from PyPI, used where they are installed
PREFERRED_FAMILIES = ("Noto Sans CJK SC", "WenQuanYi Micro Hei", "Noto Sans Devanagari", "Noto Sans Arabic")
REGULAR = (400, "normal", "regular", "book")
JOINERS = "\u200c\u200d"  # invisible, but they say how their neighbors join
DOTTED_CIRCLE = "\u25cc"  # what a combining mark without a letter sits on, by Unicode's custom
OPEN_BOX = "\u2423"  # the visible space


class Picture(NamedTuple):
    """One alignment and the names of its rows (target) and columns (source); gold links are (source, target)."""

    source: Sequence[str]
    target: Sequence[str]
    alignment: Float[np.ndarray, "T S"]
    title: str = ""
    gold: Collection[Link] | None = None


def heat_map(
    path: Path,
    *,
    source: Sequence[str],
    target: Sequence[str],
    alignment: Float[np.ndarray, "T S"],
    title: str = "",
    gold: Collection[Link] | None = None,
) -> Path:
    """Writes one alignment as a PNG and returns its path: target down, source across, white 0 and black 1.

    Tokens are shown literally, a space as an open box. Weights outside 0..1 take the nearest end's color; NaN is red.

    Args:
        path: the file to write; its folder is made where it does not exist.
        source: the source tokens, one a column.
        target: the target tokens, one a row.
        alignment: how much each target token looks at each source token.
        title: a line of text above.
        gold: links (source token, target token) to outline.

    Raises:
        ValueError: the tokens do not fit the alignment, or there are none.
    """
    return grid(path, [Picture(source, target, alignment, title, gold)])


def grid(path: Path, pictures: Sequence[Picture], *, columns: int | None = None) -> Path:
    """Writes several alignments side by side as one PNG, row by row, and returns its path.

    Args:
        path: the file to write; its folder is made where it does not exist.
        pictures: the alignments, at least one.
        columns: how many stand in one row; left out, about as many as there are rows.

    Raises:
        ValueError: no picture, fewer columns than one, or a picture whose tokens do not fit its alignment.
    """
    if not pictures:
        raise ValueError("pictures must hold at least one alignment, got none")
    columns = math.ceil(math.sqrt(len(pictures))) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be positive, got {columns}")
    for picture in pictures:
        check(picture)
    side = SIDE_INCHES / max(columns, math.ceil(len(pictures) / columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = tile([rendered(picture, side=side) for picture in pictures], columns=columns)
    imsave(path, pixels, format="png", dpi=DOTS_PER_INCH, pil_kwargs={"compress_level": 4})
    return path


def check(picture: Picture) -> None:
    """Refuses a picture that cannot be drawn."""
    rows, columns = len(picture.target), len(picture.source)
    if picture.alignment.shape != (rows, columns):
        raise ValueError(
            f"alignment must be target x source, {rows} x {columns} by its tokens, got {picture.alignment.shape}"
        )
    if not rows * columns:
        raise ValueError(f"alignment needs a token on each side to be drawn, got {rows} x {columns}")
    for source, target in picture.gold or ():
        if not (0 <= source < columns and 0 <= target < rows):
            raise ValueError(
                f"gold link {(source, target)} lies outside {columns} source and {rows} target tokens; "
                "links are (source, target), counted from 0"
            )


def rendered(picture: Picture, *, side: float) -> UInt8[np.ndarray, "height width 3"]:
    """The picture's pixels: a map of at most `side` inches, and around it as much room as its labels need."""
    rows, columns = picture.alignment.shape
    cell = min(CELL_INCHES, side / max(rows, columns))
    figure = Figure(figsize=(columns * cell, rows * cell), dpi=DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_weights(axes, picture.alignment, lines=cell >= 0.1)
    for source, target in picture.gold or ():
        corner = source - 0.38, target - 0.38
        axes.add_patch(Rectangle(corner, 0.76, 0.76, fill=False, edgecolor=GOLD_COLOR, linewidth=6 * cell))
    draw_bar(axes, inches=(columns * cell, rows * cell))
    name_tokens(axes, picture, cell=cell)
    grow(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def draw_weights(axes: Axes, alignment: Float[np.ndarray, "T S"], *, lines: bool) -> None:
    """The weights as grey cells, with hair lines between them where the cells are large enough."""
    rows, columns = alignment.shape
    axes.imshow(COLORS(np.asarray(alignment, np.float64), bytes=True), interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    if lines:
        axes.hlines(np.arange(1, rows) - 0.5, -0.5, columns - 0.5, color="#cccccc", linewidth=0.4)
        axes.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, color="#cccccc", linewidth=0.4)


def draw_bar(axes: Axes, *, inches: tuple[float, float]) -> None:
    """What the greys mean: a short bar to the right of a map of these inches, outside the page until that grows."""
    width, height = inches
    bar = axes.inset_axes((1 + 0.15 / width, 0, 0.1 / width, min(1, 1.2 / height)))
    Colorbar(bar, ScalarMappable(Normalize(0, 1), COLORS), ticks=[0, 1])
    bar.tick_params(labelsize=6, length=2, pad=2)


def grow(figure: Figure) -> None:
    """Makes the page as large as all that was drawn, with a margin, and leaves the map as large as it is."""
    box = figure.get_tightbbox().padded(MARGIN_INCHES)
    width, height = figure.get_size_inches()
    figure.set_size_inches(box.width, box.height)
    figure.axes[0].set_position((-box.x0 / box.width, -box.y0 / box.height, width / box.width, height / box.height))


def name_tokens(axes: Axes, picture: Picture, *, cell: float) -> None:
    """Writes the tokens beside their rows and above their columns, then the title above them all."""
    points = float(np.clip(45 * cell, *TEXT_POINTS))
    every = math.ceil(TEXT_POINTS[0] / (55 * cell))  # one name in so many, where all would run into each other
    texts = []
    for row, token in list(enumerate(picture.target))[::every]:
        texts.append(write(axes, short(token), at=(-0.5, row), shift=(-3, 0), points=points, ha="right", va="center"))
    for column, token in list(enumerate(picture.source))[::every]:
        label, rotation = across(short(token))
        style = {"ha": "center", "va": "bottom", "rotation": rotation}
        texts.append(write(axes, label, at=(column, -0.5), shift=(0, 3), points=points, **style))
    style = {"ha": "right", "va": "bottom", "color": "#777777"}
    write(axes, "source →\ntarget ↓", at=(-0.5, -0.5), shift=(-6, 3), points=5.0, **style)
    if picture.title:
        top = max(text.get_window_extent().y1 for text in texts)
        above = (top - axes.get_window_extent().y1) * 72 / DOTS_PER_INCH
        title = legible(picture.title.replace("\n", " "))
        lines = textwrap.wrap(title, width=TITLE_CHARACTERS, max_lines=3, placeholder=" …")
        write(axes, "\n".join(lines), at=(-0.5, -0.5), shift=(0, above + 8), points=9.0, ha="left", va="bottom")


def write(axes: Axes, text: str, *, at: Place, shift: Place, points: float, **style: Any) -> Annotation:
    """Writes text at a cell's edge, shifted by points, taken literally: no formulas between dollar signs, no TeX."""
    style |= {"annotation_clip": False, "parse_math": False, "usetex": False}
    font = FontProperties(family=families_for(text), size=points)
    return axes.annotate(text, at, shift, textcoords="offset points", fontproperties=font, **style)


def across(label: str) -> tuple[str, int]:
    """A label and its rotation above a column: one letter upright, Chinese and its like stacked, all else turned."""
    letters = [letter for letter in label if not unicodedata.category(letter).startswith("M")]
    if len(letters) <= 1:
        return label, 0
    if all(unicodedata.east_asian_width(letter) in "WF" for letter in label):
        return "\n".join(label), 0
    return label, 90


def legible(text: str) -> str:
    """The text as a person can see it: what is invisible or has no font here is its code point.

    A combining mark without a letter before it sits on a dotted circle.
    """
    return joined([visible(letter, alone=len(text) == 1) for letter in text])


def short(token: str) -> str:
    """The legible token, each space an open box; a long one is cut in the middle, but inside of no code point."""
    pieces = [OPEN_BOX if letter == " " else visible(letter, alone=len(token) == 1) for letter in token]
    ends = np.cumsum([len(piece) for piece in pieces])
    if not pieces or ends[-1] <= LABEL_CHARACTERS:
        return joined(pieces)
    head = int((ends <= LABEL_CHARACTERS // 2).sum())
    tail = int((ends >= ends[-1] - LABEL_CHARACTERS // 2).sum()) - 1
    return joined(pieces[:head]) + "…" + joined(pieces[-tail:])


def joined(pieces: Sequence[str]) -> str:
    """The pieces in one, on a dotted circle if they begin with a mark."""
    text = "".join(pieces)
    return DOTTED_CIRCLE + text if text and unicodedata.category(text[0]).startswith("M") else text


def visible(letter: str, *, alone: bool) -> str:
    """The letter itself, or its code point where it cannot be seen; a space stays, for the caller to judge."""
    if letter == " ":
        return letter
    unseen = unicodedata.category(letter)[0] in "ZC" and (alone or letter not in JOINERS)
    return f"U+{ord(letter):04X}" if unseen or family_of(letter) is None else letter


def families_for(text: str) -> list[str]:
    """The font families that together have every character, matplotlib's own last.

    Last, since a cluster of letters that shape each other must come from one font, and the special one also has
    the joiners and digits of its script.
    """
    found = dict.fromkeys(family_of(letter) for letter in text if not letter.isspace())
    return [family for family in found if family not in (None, DEFAULT_FAMILY)] + [DEFAULT_FAMILY]


@cache
def family_of(letter: str) -> str | None:
    """The first font family that has the letter; None where none has."""
    return next((family for family in families() if ord(letter) in covered(family)), None)


@cache
def families() -> dict[str, int | str]:
    """The font families to try in turn, each with its weight: matplotlib's, well-known ones, then all others.

    Families without a regular weight come last: of a variable font, matplotlib draws only the thinnest.
    """
    for file in packaged_fonts():
        font_manager.fontManager.addfont(file)
    weights: dict[str, int | str] = {}
    for entry in font_manager.fontManager.ttflist:
        own = Path(entry.fname).is_relative_to(matplotlib.get_data_path())  # mathematics in encodings of their own
        bare = entry.name.lower().replace(" ", "")
        if not own and entry.style == "normal" and "lastresort" not in bare and "coloremoji" not in bare:
            weights[entry.name] = entry.weight if entry.weight in REGULAR else weights.get(entry.name, entry.weight)
    rest = sorted(weights, key=lambda family: (weights[family] not in REGULAR, family))
    preferred = [family for family in PREFERRED_FAMILIES if weights.get(family) in REGULAR]
    return {family: weights.get(family, "normal") for family in (DEFAULT_FAMILY, *preferred, *rest)}


def packaged_fonts() -> list[Path]:
    """The font files of the font packages that are installed; nothing of the packages is run."""
    found = (importlib.util.find_spec(package) for package in FONT_PACKAGES)
    places = [place for spec in found if spec for place in spec.submodule_search_locations or ()]
    return [file for place in places for file in sorted(Path(place).rglob("*.[ot]t[cf]"))]


@cache
def covered(family: str) -> frozenset[int]:
    """The code points that the family's font can draw; none where the font cannot be used."""
    try:
        wanted = FontProperties(family=[family], weight=families()[family])
        font = font_manager.get_font(font_manager.findfont(wanted, fallback_to_default=False))
    except (OSError, RuntimeError, ValueError):  # gone since matplotlib listed it, or broken
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()  # bitmaps cannot be set to a size


def tile(pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], *, columns: int) -> UInt8[np.ndarray, "height width 3"]:
    """The pictures on one white page, row by row; a column is as wide as its widest, a row as high as its highest."""
    shelves = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    widths = [max(shelf[place].shape[1] for shelf in shelves if place < len(shelf)) for place in range(len(shelves[0]))]
    heights = [max(picture.shape[0] for picture in shelf) for shelf in shelves]
    page = np.full((sum(heights), sum(widths), 3), 255, np.uint8)
    for shelf, top in zip(shelves, np.cumsum([0, *heights]), strict=False):
        for picture, left in zip(shelf, np.cumsum([0, *widths]), strict=False):
            page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return page
