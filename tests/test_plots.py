"""Pictures that are written, bounded and literal, and that say a code point where no font has the character."""

import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from s2s_jax.evaluate import glyphs, plots
from s2s_jax.evaluate.glyphs import families_for, font_hint, legible, token_label
from s2s_jax.evaluate.plots import Picture, column_label, render, save_grid, save_heat_map, tile

pytestmark = pytest.mark.filterwarnings("error")
GOLD = np.array([217, 95, 2])


@pytest.fixture
def only_latin(monkeypatch):
    """A machine that has no font but matplotlib's own."""
    monkeypatch.setattr(glyphs, "font_families", lambda: {"DejaVu Sans": "normal"})
    glyphs.family_of.cache_clear()
    yield
    glyphs.family_of.cache_clear()


def even(target, source):
    return np.full((len(target), len(source)), 1 / len(source), np.float32)


def pixels(path):
    return np.round(imread(path)[..., :3] * 255).astype(int)


def has(image, color):
    return bool((np.abs(image - np.array(color)).max(axis=-1) <= 2).any())


AWKWARD = {
    "markup": ["$a_1$", "$", "<b>", "</s>", "<unk>", r"\frac{1}{2}", "^_{", "&amp;"],
    "invisible": [" ", "", "\n", "\t", "\u00a0", "\u200b", "\u200c", "\x00", "\ud800", "\U0010ffff"],
    "chinese": ["我", "喜欢", "猫。", "▁한국어", "カ\u3099"],
    "arabic": ["القطط", "ا", "می\u200cخواهم", "שלום", "\u064b", "كِتَابٌ"],
    "indic": ["▁बिल्लियाँ", "क्ष", "\u093f", "ภาษา", "བོད"],
    "marks": ["\u0301", "e\u0301", "\u0301" * 40, "😀", "👩\u200d🚀"],
    "long": ["W" * 300, "我" * 300],
}


@pytest.mark.parametrize("name", sorted(AWKWARD))
@pytest.mark.parametrize("fonts", ["those of this machine", "only latin"])
def test_any_token_can_be_drawn_without_a_warning(tmp_path, name, fonts, request):
    if fonts == "only latin":
        request.getfixturevalue("only_latin")
    tokens = AWKWARD[name]
    wanted = tmp_path / "new folder" / "map.png"
    path = save_heat_map(wanted, source=tokens, target=tokens, alignment=even(tokens, tokens), title=" ".join(tokens))
    assert path == wanted
    height, width, _ = pixels(path).shape
    assert 100 < height < 2000
    assert 100 < width < 2000


def test_weights_are_gray_gold_is_outlined_and_nan_is_red(tmp_path):
    alignment = np.array([[1.0, 0.0], [0.5, np.nan]])
    plain = pixels(save_heat_map(tmp_path / "a.png", source=["a", "b"], target=["c", "d"], alignment=alignment))
    marked = pixels(
        save_heat_map(tmp_path / "b.png", source=["a", "b"], target=["c", "d"], alignment=alignment, gold={(1, 0)})
    )
    assert has(plain, [214, 39, 40])
    assert not has(plain, GOLD)
    rows, columns = np.nonzero((marked == GOLD).all(axis=-1))
    height = marked.shape[0]
    assert len(rows) > 20
    map_left = np.argmax((plain[height // 2] < 40).all(axis=-1))
    cell = plots.CELL_INCHES * plots.DOTS_PER_INCH
    assert map_left + cell < columns.min() < columns.max() < map_left + 2 * cell + 1  # the second source token


def test_the_same_picture_has_the_same_bytes_and_changes_no_setting(tmp_path):
    before = dict(matplotlib.rcParams)
    paths = [
        save_heat_map(tmp_path / name, source=["a"], target=["b", "c"], alignment=np.ones((2, 1)), title="t")
        for name in "xy"
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert dict(matplotlib.rcParams) == before


def test_the_picture_grows_with_the_tokens_up_to_a_bound():
    def shape(tokens, side):
        names = ["ab"] * tokens
        return render(Picture(names, names, even(names, names)), side=side).shape

    cell = plots.CELL_INCHES * plots.DOTS_PER_INCH
    small, larger = shape(5, 26.0), shape(10, 26.0)
    assert larger[0] - small[0] == pytest.approx(5 * cell, abs=2)
    bounded = shape(200, 3.0)
    assert 450 <= bounded[0] <= 650
    assert 450 <= bounded[1] <= 650


def test_a_title_makes_room_above():
    plain = Picture(["a"] * 9, ["b"], np.ones((1, 9)))
    assert render(plain._replace(title="a title"), side=9.0).shape[0] > render(plain, side=9.0).shape[0] + 15


def test_grid_holds_every_picture(tmp_path):
    def one(value, title=""):
        return Picture(["a", "b"], ["c"], np.full((1, 2), value), title)

    path = save_grid(tmp_path / "grid.png", [one(1.0), one(0.5, "second"), one(0.0)], columns=2)
    alone = render(one(1.0), side=9.0).shape
    height, width, _ = pixels(path).shape
    assert width >= 2 * alone[1]
    assert height >= 2 * alone[0]


def test_tile_fills_row_by_row():
    def block(height, width, value):
        return np.full((height, width, 3), value, np.uint8)

    page = tile([block(1, 2, 1), block(2, 1, 2), block(1, 1, 3)], columns=2)
    assert page[..., 0].tolist() == [[1, 1, 2], [255, 255, 2], [3, 255, 255]]


@pytest.mark.usefixtures("only_latin")
def test_what_no_font_has_is_shown_by_its_code_point():
    assert legible("我a") == "U+6211a"
    assert legible("😀") == "😀"  # DejaVu has this one
    assert legible("🫠") == "U+1FAE0"
    assert families_for("aб") == ["DejaVu Sans"]


def test_another_font_is_used_where_it_has_the_character(monkeypatch):
    monkeypatch.setattr(glyphs, "family_of", {"我": "Han", "a": "DejaVu Sans", "क": "Deva"}.get)
    assert legible("我aक") == "我aक"
    assert families_for("a我 क\n") == ["Han", "Deva", "DejaVu Sans"]


def test_invisible_characters_are_shown_as_code_points():
    assert token_label(" a ") == "␣a␣"
    assert legible("a b\u00a0\n") == "a bU+00A0U+000A"
    assert legible("\u200d") == "U+200D"
    assert legible("ی\u200cخ") == "ی\u200cخ"  # inside of a word it shapes its neighbors
    assert legible("\u0301") == "◌\u0301"
    assert legible("e\u0301") == "e\u0301"
    assert token_label("") == legible("") == ""


@pytest.mark.usefixtures("only_latin")
def test_long_labels_lose_their_middle_but_split_no_code_point():
    assert token_label("a" * 24) == "a" * 24
    assert token_label("a" * 20 + "b" * 20) == "a" * 12 + "…" + "b" * 12
    assert token_label("我" * 4) == "U+6211" * 4
    assert token_label("a我" + "b" * 30 + "我c") == "aU+6211bbbbb…bbbbbU+6211c"
    assert token_label("a" * 12 + "我我" + "bb") == "a" * 12 + "…U+6211bb"


def test_labels_above_columns_are_upright_stacked_or_turned():
    assert column_label("a") == ("a", 0)
    assert column_label("e\u0301") == ("e\u0301", 0)
    assert column_label("日本語") == ("日\n本\n語", 0)
    assert column_label("</s>") == ("</s>", 90)
    assert column_label("▁日本") == ("▁日本", 90)


def test_packaged_fonts_are_found_without_running_the_package(tmp_path, monkeypatch):
    package = tmp_path / "fonts_of_a_test"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('was run')")
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    shutil.copy(font, package / "inner" / "a.ttf")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(glyphs, "FONT_PACKAGES", {"fonts_of_a_test": "a", "no_such_package_here": "b"})
    assert glyphs.packaged_fonts() == [package / "inner" / "a.ttf"]


def test_matplotlibs_own_font_comes_first_and_its_mathematics_never():
    names = list(glyphs.font_families())
    assert names[0] == "DejaVu Sans"
    assert not {"cmsy10", "STIXNonUnicode", "LastResort"} & set(names)
    assert glyphs.family_of("a") == "DejaVu Sans"


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (
            Picture(["a", "b"], ["c"], np.ones((2, 1))),
            r"alignment must be target x source, 1 x 2 by its tokens, got \(2, 1\)",
        ),
        (Picture([], ["c"], np.ones((1, 0))), "alignment needs a token on each side to be drawn, got 1 x 0"),
        (
            Picture(["a", "b"], ["c"], np.ones((1, 2)), "", {(0, 1)}),
            r"gold link \(0, 1\) lies outside 2 source and 1 target tokens; links are \(source, target\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, picture, message):
    with pytest.raises(ValueError, match=message):
        save_grid(tmp_path / "map.png", [picture])
    assert not (tmp_path / "map.png").exists()


def test_an_empty_grid_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pictures must hold at least one alignment, got none"):
        save_grid(tmp_path / "map.png", [])
    with pytest.raises(ValueError, match="columns must be positive, got 0"):
        save_grid(tmp_path / "map.png", [Picture(["a"], ["b"], np.ones((1, 1)))], columns=0)


@pytest.mark.usefixtures("only_latin")
def test_a_missing_font_package_is_named_on_the_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(glyphs, "FONT_PACKAGES", {"no_such_package_here": "some-fonts"})
    hint = "1 characters have no font here and are shown as code points: pip install some-fonts"
    assert font_hint(["我", "a", "我 \u200b"]) == hint
    assert font_hint(["a b", "é"]) == ""
    plain, noted = (
        pixels(save_heat_map(tmp_path / "map.png", source=[source], target=["b"], alignment=np.ones((1, 1))))
        for source in ("U+6211", "我")
    )
    assert noted.shape[0] > plain.shape[0] + 10
    monkeypatch.setattr(glyphs, "FONT_PACKAGES", {"matplotlib": "matplotlib"})
    assert font_hint(["我"]) == ""  # the packages are there, and do not help
