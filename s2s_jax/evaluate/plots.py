"""Alignments as heat maps in PNG files, legible in any script for which a font is installed.

Nothing global is changed: no pyplot, no rcParams. (Fonts of the font packages are added to matplotlib's font manager,
which affects no other picture.) Matplotlib 3.11 and later shape text: Arabic letters join and run right to left,
Devanagari vowels and conjuncts are placed correctly.
"""

import math
import textwrap
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
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

from s2s_jax.evaluate.alignment import Link
from s2s_jax.evaluate.glyphs import DEFAULT_FAMILY, families_for, font_hint, legible, token_label

DOTS_PER_INCH = 150
CELL_INCHES = 0.24  # of one token: a line of text and its spacing
SIDE_INCHES = 26.0  # the longest side of a map: 108 tokens at full size, 200 tokens at 0.13 inches each
MARGIN_INCHES = 0.12
TEXT_POINTS = (6.0, 9.0)  # below the smaller, only every second, third, ... token is labeled
TITLE_CHARACTERS = 60
COLORS = colormaps["Greys"].with_extremes(bad="#d62728")  # bad: NaN
GOLD_COLOR = "#d95f02"  # visible on white and on black
CellPosition = tuple[int | float, int | float]


class Picture(NamedTuple):
    """One alignment and the names of its rows (target) and columns (source); gold links are (source, target)."""

    source: Sequence[str]
    target: Sequence[str]
    alignment: Float[np.ndarray, "T S"]
    title: str = ""
    gold: Collection[Link] | None = None


def save_heat_map(
    path: Path,
    *,
    source: Sequence[str],
    target: Sequence[str],
    alignment: Float[np.ndarray, "T S"],
    title: str = "",
    gold: Collection[Link] | None = None,
) -> Path:
    """Write one alignment as a PNG and return its path: target down, source across, white 0 and black 1.

    Tokens are shown literally, a space as an open box. Weights outside 0..1 are clipped; NaN is red.

    Args:
        path: the file to write; its folder is created if necessary.
        source: the source tokens, one per column.
        target: the target tokens, one per row.
        alignment: the attention weights, target x source.
        title: a line of text above the map.
        gold: links (source token, target token) to outline.

    Raises:
        ValueError: the tokens do not fit the alignment, or there are none.
    """
    return save_grid(path, [Picture(source, target, alignment, title, gold)])


def save_grid(path: Path, pictures: Sequence[Picture], *, columns: int | None = None) -> Path:
    """Write several alignments side by side as one PNG, row by row, and return its path.

    Characters without a font are shown as code points, and a line below the maps says which font packages to install.

    Args:
        path: the file to write; its folder is created if necessary.
        pictures: the alignments, at least one.
        columns: maps per row; None for about as many as there are rows.

    Raises:
        ValueError: no picture, fewer columns than one, or a picture whose tokens do not fit its alignment.
    """
    if not pictures:
        raise ValueError("pictures must hold at least one alignment, got none")
    columns = math.ceil(math.sqrt(len(pictures))) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be positive, got {columns}")
    for picture in pictures:
        check_picture(picture)
    side = SIDE_INCHES / max(columns, math.ceil(len(pictures) / columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = tile([render(picture, side=side) for picture in pictures], columns=columns)
    if hint := font_hint(text for picture in pictures for text in (picture.title, *picture.source, *picture.target)):
        pixels = tile([pixels, render_note(hint)], columns=1)
    imsave(path, pixels, format="png", dpi=DOTS_PER_INCH, pil_kwargs={"compress_level": 4})
    return path


def check_picture(picture: Picture) -> None:
    """Refuse a picture that cannot be drawn.

    Raises:
        ValueError: the tokens do not fit the alignment, there are none, or a gold link lies outside.
    """
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


def render(picture: Picture, *, side: float) -> UInt8[np.ndarray, "height width 3"]:
    """The picture's pixels: a map of at most `side` inches, and the space that its labels need around it."""
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
    label_tokens(axes, picture, cell=cell)
    fit_figure(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def render_note(text: str) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels of a small line of text."""
    figure = Figure(figsize=(0.1, 0.1), dpi=DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), frameon=False)
    axes.set(xticks=[], yticks=[])
    axes.text(0, 0, text, family=DEFAULT_FAMILY, size=TEXT_POINTS[0], color="#777777", parse_math=False)
    fit_figure(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def draw_weights(axes: Axes, alignment: Float[np.ndarray, "T S"], *, lines: bool) -> None:
    """The weights as gray cells, with thin lines between them where the cells are large enough."""
    rows, columns = alignment.shape
    axes.imshow(COLORS(np.asarray(alignment, np.float64), bytes=True), interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[])
    if lines:
        axes.hlines(np.arange(1, rows) - 0.5, -0.5, columns - 0.5, color="#cccccc", linewidth=0.4)
        axes.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, color="#cccccc", linewidth=0.4)


def draw_bar(axes: Axes, *, inches: tuple[float, float]) -> None:
    """The color scale: a short bar to the right of a map of these inches, outside the page until `fit_figure`."""
    width, height = inches
    bar = axes.inset_axes((1 + 0.15 / width, 0, 0.1 / width, min(1, 1.2 / height)))
    Colorbar(bar, ScalarMappable(Normalize(0, 1), COLORS), ticks=[0, 1])
    bar.tick_params(labelsize=6, length=2, pad=2)


def fit_figure(figure: Figure) -> None:
    """Enlarge the page to everything that was drawn, with a margin; the map keeps its size."""
    box = figure.get_tightbbox().padded(MARGIN_INCHES)
    width, height = figure.get_size_inches()
    figure.set_size_inches(box.width, box.height)
    figure.axes[0].set_position((-box.x0 / box.width, -box.y0 / box.height, width / box.width, height / box.height))


def label_tokens(axes: Axes, picture: Picture, *, cell: float) -> None:
    """Write the tokens beside their rows and above their columns, then the title above all of them."""
    points = float(np.clip(45 * cell, *TEXT_POINTS))
    every = math.ceil(TEXT_POINTS[0] / (55 * cell))  # of labels, where all of them would overlap
    texts = []
    for row, token in list(enumerate(picture.target))[::every]:
        texts.append(
            write_text(axes, token_label(token), at=(-0.5, row), shift=(-3, 0), points=points, ha="right", va="center")
        )
    for column, token in list(enumerate(picture.source))[::every]:
        label, rotation = column_label(token_label(token))
        style = {"ha": "center", "va": "bottom", "rotation": rotation}
        texts.append(write_text(axes, label, at=(column, -0.5), shift=(0, 3), points=points, **style))
    style = {"ha": "right", "va": "bottom", "color": "#777777"}
    write_text(axes, "source →\ntarget ↓", at=(-0.5, -0.5), shift=(-6, 3), points=5.0, **style)
    if picture.title:
        top = max(text.get_window_extent().y1 for text in texts)
        above = (top - axes.get_window_extent().y1) * 72 / DOTS_PER_INCH
        title = legible(picture.title.replace("\n", " "))
        lines = textwrap.wrap(title, width=TITLE_CHARACTERS, max_lines=3, placeholder=" …")
        write_text(axes, "\n".join(lines), at=(-0.5, -0.5), shift=(0, above + 8), points=9.0, ha="left", va="bottom")


def write_text(
    axes: Axes, text: str, *, at: CellPosition, shift: CellPosition, points: float, **style: Any
) -> Annotation:
    """Write text literally (no formulas between dollar signs, no TeX) at a cell's edge, shifted by points."""
    style |= {"annotation_clip": False, "parse_math": False, "usetex": False}
    font = FontProperties(family=families_for(text), size=points)
    return axes.annotate(text, at, shift, textcoords="offset points", fontproperties=font, **style)


def column_label(label: str) -> tuple[str, int]:
    """A label and its rotation above a column: one letter upright, East Asian text stacked, other text rotated."""
    letters = [letter for letter in label if not unicodedata.category(letter).startswith("M")]
    if len(letters) <= 1:
        return label, 0
    if all(unicodedata.east_asian_width(letter) in "WF" for letter in label):
        return "\n".join(label), 0
    return label, 90


def tile(pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], *, columns: int) -> UInt8[np.ndarray, "height width 3"]:
    """The pictures on one white page, row by row; columns and rows are as large as their largest picture."""
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    widths = [max(row[place].shape[1] for row in rows if place < len(row)) for place in range(len(rows[0]))]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    page = np.full((sum(heights), sum(widths), 3), 255, np.uint8)
    for row, top in zip(rows, np.cumsum([0, *heights]), strict=False):
        for picture, left in zip(row, np.cumsum([0, *widths]), strict=False):
            page[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return page
