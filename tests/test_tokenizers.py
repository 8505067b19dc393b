import base64
import collections
import io
import itertools
import json
import re
import subprocess
import sys
import time
import unicodedata
from typing import get_args

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_jax.shapes import BOS, EOS, PAD, SPECIAL, UNK
from s2s_jax.text.normalization import FORMS, UNICODE_FORMS, UnicodeForm, normalize, origins
from s2s_jax.text.tokenizers import (
    TOKENIZERS,
    Characters,
    Tokenizer,
    TokenizerConfig,
    TokenizersConfig,
    TokenizerType,
    Words,
    load_tokenizer,
    save_tokenizer,
    tokenizer_fingerprint,
    train_tokenizer,
    until_eos,
)

LINES = ["ein kleines Haus am See", "das kleine Haus", "zwei kleine Hunde im Haus", "See und Haus"] * 3
SUBWORDS = ["bpe", "unigram"]

# lines on which tokenizers fail
HARD = {
    "empty": "",
    "spaces": "  two  here, one behind ",
    "blank": "\u00a0\u3000\u200b",
    "meta sign of sentencepiece": "\u2581 a\u2581b \u2581",
    "unknown sign of sentencepiece": "\u2585 a \u2047",
    "the escape sign": "\ue000 \ue000m \ue000e\ue000\u2581u\ue000u\u2585",
    "typed specials": "</s> <s> <unk> <pad>",
    "glued specials": "Haus</s>Haus<unk><pad><s>",
    "typed bytes": "<0x41><0x0A> <0xFF>",
    "NFC": unicodedata.normalize("NFC", "Ärger mit Ä und 각"),
    "NFD": unicodedata.normalize("NFD", "Ärger mit Ä und 각"),
    "emoji with joiners": "👨\u200d👩\u200d👧 👍🏽 🇩🇪",
    "right to left": "שלום \u202eעולם\u202c العربية",
    "tabs and returns": "a\tb\t\rc\r",
    "NUL and others": "a\0b\x01\x1b\x7f\x9f",
    "inner line ends": "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg",
    "byte order mark": "\ufeffa\ufeff",
    "not yet a character": "\uffff\U0010ffff\u0378",
}
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=40)
awkward = st.lists(st.sampled_from([*HARD.values(), *SPECIAL, *LINES, "\ue000", "m", "e", "u", "\u2581", "\u2585"]))
lines = st.one_of(any_text, awkward.map("".join))


def config(kind: str, **options) -> TokenizerConfig:
    return TokenizerConfig(**{"type": kind, "size": 330 if kind in SUBWORDS else 8000, **options})


@pytest.fixture(scope="session")
def trained() -> dict[str, Tokenizer]:
    """One tokenizer per type, learned from a few lines."""
    return {kind: train_tokenizer(LINES, config(kind)) for kind in TOKENIZERS}


# --- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SUBWORDS)
@pytest.mark.parametrize("name", HARD)
def test_subwords_restore_difficult_lines(trained, kind, name):
    """Whatever the reader accepts is restored exactly."""
    line = HARD[name]
    assert trained[kind].decode(trained[kind].encode(line)) == line


@given(line=lines)
@settings(deadline=None)
@pytest.mark.parametrize("kind", SUBWORDS)
def test_subwords_restore_every_line(trained, kind, line):
    assert trained[kind].decode(trained[kind].encode(line)) == line


@given(line=lines)
@settings(deadline=None)
def test_characters_restore_every_line_of_known_characters(line):
    tokenizer = train_tokenizer([line, *LINES], config("char"))
    assert tokenizer.decode(tokenizer.encode(line)) == line
    assert UNK not in tokenizer.encode(line)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n "), min_size=1)))
def test_words_restore_lines_with_single_spaces(words):
    tokenizer = train_tokenizer([" ".join(words)], config("word"))
    assert tokenizer.decode(tokenizer.encode("  ".join(["", *words, ""]))) == " ".join(words)


@given(line=lines)
@settings(deadline=None)
@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_no_line_gives_a_special_id_or_one_above_the_vocabulary(trained, kind, line):
    """An id is below `size`, and PAD, BOS and EOS never come from text; UNK only if
    a whole character or word is not in the vocabulary."""
    tokenizer = trained[kind]
    ids = tokenizer.encode(line)
    assert all(UNK <= number < tokenizer.size for number in ids)
    assert len(tokenizer.symbols(ids)) == len(ids)
    if kind in SUBWORDS:
        assert UNK not in ids
    else:
        assert [number == UNK for number in ids] == [cut not in tokenizer.vocabulary for cut in tokenizer.split(line)]


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_special_tokens_in_training_lines_are_ordinary_text(kind, special):
    """Even if the vocabulary is learned from them."""
    tokenizer = train_tokenizer([*LINES, *([f"Haus {special} Haus{special}"] * 50)], config(kind))
    assert min(tokenizer.encode(special)) > UNK
    assert tokenizer.decode(tokenizer.encode(special)) == special
    assert len(set(tokenizer.symbols(range(tokenizer.size)))) >= tokenizer.size - (kind == "word")


@given(line=lines)
@settings(deadline=None)
@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_spans_cover_the_line_in_order(trained, kind, line):
    spans = trained[kind].spans(line)
    assert len(spans) == len(trained[kind].encode(line))
    assert all(0 <= first < last <= len(line) for first, last in spans)
    covered = {place for first, last in spans for place in range(first, last)}
    assert all(line[place] == " " for place in set(range(len(line))) - covered)
    if kind != "word":
        assert len(covered) == len(line)
    for (a, b), (c, d) in itertools.pairwise(spans):
        assert (a, b) == (c, d) or b <= c or kind in SUBWORDS
        assert a <= c
        assert b <= d


@given(line=lines)
@settings(deadline=None)
def test_spans_of_characters_and_words_cover_their_text(trained, line):
    for kind, cut in (("char", list(line)), ("word", [word for word in line.split(" ") if word])):
        assert [line[first:last] for first, last in trained[kind].spans(line)] == cut


def test_spans_of_subwords_by_hand(trained):
    for kind in SUBWORDS:
        line = "Haus \u2581ä"
        spans = trained[kind].spans(line)
        shown = [symbol.replace("\u2581", " ") for symbol in trained[kind].symbols(trained[kind].encode(line))]
        whole = [(span, text) for span, text in zip(spans, shown, strict=True) if span[1] <= 5]
        assert [line[first:last] for (first, last), _ in whole] == [text for _, text in whole]
        assert "".join(text for _, text in whole) == "Haus "
        assert spans[-2:] == [(6, 7), (6, 7)]  # the two bytes of the letter
        assert {span for span in spans if span[0] == 5} == {(5, 6)}  # the escape's bytes and its letter


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_every_id_has_a_distinct_symbol(trained, kind):
    tokenizer = trained[kind]
    assert tokenizer.symbols([PAD, BOS, EOS, UNK]) == list(SPECIAL)
    shown = tokenizer.symbols(range(tokenizer.size))
    assert len(shown) == len(set(shown)) == tokenizer.size
    line = "kleine Hunde"
    assert "".join(tokenizer.symbols(tokenizer.encode(line))).replace("\u2581", " ").replace(" ", "") == "kleineHunde"


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_special_ids_decode_to_nothing_except_for_unk(trained, kind):
    tokenizer = trained[kind]
    haus = tokenizer.encode("Haus")
    assert tokenizer.decode([BOS, *haus, EOS, PAD, PAD]) == "Haus"
    assert tokenizer.decode([]) == tokenizer.decode([PAD, EOS]) == ""
    separator = " " if kind == "word" else ""
    assert tokenizer.decode([*haus, UNK, UNK, *haus]) == separator.join(["Haus", "<unk>", "<unk>", "Haus"])


def test_a_line_of_unknown_symbols_is_all_unk(trained):
    assert trained["char"].encode("ЖЖ") == [UNK, UNK]
    assert trained["word"].encode("Жа а") == [UNK, UNK]
    assert trained["word"].decode([UNK, UNK]) == "<unk> <unk>"


def test_ids_until_eos():
    assert until_eos([5, 6, EOS, 7, EOS]) == [5, 6]
    assert until_eos([5, PAD, 6, PAD]) == [5, 6]
    assert until_eos([EOS]) == until_eos([PAD]) == until_eos([]) == []


# --- training ---------------------------------------------------------------------------------------------------------


def test_characters_and_words_are_the_most_frequent_ties_by_code_point():
    assert Characters.train(["baab", "ca", "c"], size=8000).vocabulary == ["a", "b", "c"]
    assert Characters.train(["cab"], size=8000).vocabulary == ["a", "b", "c"]
    assert Words.train(["x b b", "a x c  b"], size=8000).vocabulary == ["b", "x", "a", "c"]
    assert Words.train(["x b b", "a x c  b"], size=6).vocabulary == ["b", "x"]


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
@pytest.mark.parametrize("size", [300, 330, 8000])
def test_a_vocabulary_is_never_larger_than_its_size(kind, size):
    assert train_tokenizer(LINES, config(kind, size=size)).size <= size


def test_words_are_separated_by_ascii_spaces_only():
    """`str.split` would split at the no-break space and drop the ideographic one."""
    assert Words.split("10\u00a0km \u3000 a\tb") == ["10\u00a0km", "\u3000", "a\tb"]


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_training_is_deterministic(trained, kind):
    assert tokenizer_fingerprint(train_tokenizer(iter(LINES), config(kind))) == tokenizer_fingerprint(trained[kind])
    assert tokenizer_fingerprint(train_tokenizer(LINES[:2], config(kind))) != tokenizer_fingerprint(trained[kind])


def test_training_is_the_same_in_another_process(trained):
    """Another process has another order of sets of strings."""
    code = (
        "from s2s_jax.text.tokenizers import *; import sys, json; lines = json.load(sys.stdin)\n"
        "for kind in TOKENIZERS: print(kind, tokenizer_fingerprint(train_tokenizer(lines, TokenizerConfig(type=kind, "
        "size=330 if kind in ('bpe', 'unigram') else 8000))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(LINES), capture_output=True, text=True, check=True
    )
    found = dict(line.split() for line in done.stdout.splitlines())
    assert found == {kind: tokenizer_fingerprint(tokenizer) for kind, tokenizer in trained.items()}


@pytest.mark.parametrize("kind", SUBWORDS)
def test_training_uses_lines_with_the_special_characters_of_sentencepiece(kind):
    """sentencepiece skips training lines with U+2585, so that it would not know the letter `q`."""
    for sign in ("\u2585", "\u2581", "\ue000", "\t", "\0", "\u2047"):
        tokenizer = train_tokenizer([*LINES, *([f"{sign} qqq"] * 9)], config(kind))
        assert "q" in "".join(tokenizer.symbols(range(260, tokenizer.size)))


@pytest.mark.parametrize("kind", SUBWORDS)
def test_training_uses_all_of_a_long_line(kind):
    """It is cut into parts, all of which are used."""
    tokenizer = train_tokenizer(["Haus " * 700 + "qqq " + "Haus " * 700 + "www"], config(kind))
    assert {"q", "w"} <= set("".join(tokenizer.symbols(range(260, tokenizer.size))))


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_a_line_of_a_megabyte_is_used_for_training_and_encoded_in_seconds(kind):
    """The unigram trainer would need minutes for one such line, or fail."""
    long = "Haus" * (1 << 18)
    started = time.monotonic()
    tokenizer = train_tokenizer([*LINES, long], config(kind))
    assert tokenizer.decode(tokenizer.encode(long)) == long
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("kind", SUBWORDS)
@pytest.mark.parametrize(
    ("training", "size", "reason"),
    [
        (LINES, 100, r"Vocabulary size is smaller than required_chars. 100 vs 2\d\d"),
        ([], 330, "INTERNAL: "),
        (["", ""], 330, "INTERNAL: "),
    ],
)
def test_lines_and_size_that_do_not_fit_are_refused_in_one_line(kind, training, size, reason):
    with pytest.raises(ValueError, match=reason) as refused:
        train_tokenizer(training, config(kind, size=size), group="tokenizer.target")
    text = str(refused.value)
    assert text.startswith(
        f"tokenizer.target.size={size} does not fit this data for tokenizer.target.type={kind} (sentencepiece: "
    )
    assert text.endswith("; choose another tokenizer.target.size, or tokenizer.target.type=char.")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "bep"}, "type must be one of bpe, char, unigram, word, got 'bep'; did you mean 'bpe'?"),
        ({"unicode": "nfc"}, "unicode must be one of NFC, NFD, NFKC, NFKD, none, got 'nfc'"),
        ({"size": 4}, "size must be at least 5, got 4"),
        ({"size": "10"}, "size must be a whole number, got '10'"),
    ],
)
def test_impossible_settings_are_refused_with_their_side(options, message):
    for side in ("source", "target"):
        with pytest.raises(ValueError, match=f"^tokenizer.{side}.{re.escape(message)}"):
            TokenizersConfig(**{side: TokenizerConfig(**options)})
    with pytest.raises(ValueError, match=f"^tokenizer.{re.escape(message)}"):
        train_tokenizer(LINES, TokenizerConfig(**options))


def test_the_names_in_annotations_are_those_of_the_tables():
    assert get_args(TokenizerType) == tuple(TOKENIZERS)
    assert get_args(UnicodeForm) == UNICODE_FORMS
    assert all(tokenizer.type == name for name, tokenizer in TOKENIZERS.items())


class Syllables(Characters):
    """A tokenizer of the user's own: two letters per token."""

    type = "syllables"

    @staticmethod
    def split(line):
        return [line[start : start + 2] for start in range(0, len(line), 2)]


def test_a_tokenizer_of_your_own_is_one_entry_of_the_table(monkeypatch, tmp_path):
    monkeypatch.setitem(TOKENIZERS, "syllables", Syllables)
    config = TokenizersConfig(source=TokenizerConfig(type="syllables")).source
    tokenizer = train_tokenizer(["banana", "bana"], config)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.tokenize("banana") == ["ba", "na", "na"]
    save_tokenizer(tokenizer, tmp_path / "x.json")
    loaded = load_tokenizer(tmp_path / "x.json")
    assert type(loaded) is Syllables
    assert loaded.encode("naba") == tokenizer.encode("naba")


# --- Unicode normalization --------------------------------------------------------------------------------------------

# letters that decompose, compose, change places, or become several
COMPOSING = st.text(
    "ao \u0301\u0323\u0308\u0345\u0344\u0f73\u0f81\u1100\u1161\u11a8각éṩﬁﷺｶﾞか\u3099\u09c7\u09be\U00011131\U00011127",
    max_size=12,
)


@given(line=COMPOSING | any_text, form=st.sampled_from(FORMS))
def test_origins_are_the_normalized_line_letter_by_letter(line, form):
    found = origins(line, form)
    assert "".join(letter for letter, _, _ in found) == normalize(line, form)
    if form in UNICODE_FORMS:  # a lowered sigma depends on more than the letter
        assert all(letter == line[first:last] or normalize(letter, form) in normalize(line[first:last], form)
                   for letter, first, last in found)  # fmt: skip
    assert [first for _, first, _ in found] == sorted(first for _, first, _ in found)
    assert {place for _, first, last in found for place in range(first, last)} == set(range(len(line)))


def test_origins_by_hand():
    assert origins("e\u0301x", "NFC") == [("é", 0, 2), ("x", 2, 3)]
    assert origins("éx", "NFD") == [("e", 0, 1), ("\u0301", 0, 1), ("x", 1, 2)]
    assert origins("ﬁ", "NFKC") == [("f", 0, 1), ("i", 0, 1)]
    assert origins("\u1100\u1161\u11a8", "NFC") == [("각", 0, 3)]
    assert origins("e\u0301", "none") == origins("e\u0301", "NFD") == [("e", 0, 1), ("\u0301", 1, 2)]
    assert origins("İX", "none+lower") == [("i", 0, 1), ("\u0307", 0, 1), ("x", 1, 2)]
    assert origins("ΟΣ", "NFC+lower") == [("ο", 0, 1), ("ς", 1, 2)]
    assert origins("E\u0301ß", "NFC+lower") == [("é", 0, 2), ("ß", 2, 3)]
    assert origins("™", "NFKC+lower") == [("t", 0, 1), ("m", 0, 1)]


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_a_tokenizer_that_lower_cases_gives_both_cases_one_encoding_and_keeps_the_places_of_the_line(kind, tmp_path):
    lowered = train_tokenizer([*LINES, "İstanbul ΣΑΣ sas i\u0307"], config(kind, lowercase=True))
    save_tokenizer(lowered, tmp_path / "x.json")
    tokenizer = load_tokenizer(tmp_path / "x.json")
    for line in (*LINES, "İSTANBUL ΣΑΣ"):
        assert tokenizer.encode(line) == lowered.encode(line.lower()) == lowered.encode(line)
        assert UNK in tokenizer.encode(line) or tokenizer.decode(tokenizer.encode(line)) == line.lower()
    spans = tokenizer.spans("İx İ")
    assert (spans[0][0], spans[-1][1]) == (0, 4)
    assert "lower" not in str(train_tokenizer(LINES, config(kind)).state()["unicode"])


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_rare_tokens_have_no_id_or_give_way_to_smaller_pieces(kind):
    """Oracle: the tokens that the lines then consist of, counted."""
    lines = [*LINES, *["die Häuser und das Haus der Hausfrau"] * 20]
    tokenizer = train_tokenizer(lines, config(kind, min_frequency=15))
    counts = collections.Counter(token for line in lines for token in tokenizer.tokenize(line))
    if kind in SUBWORDS:
        plain = train_tokenizer(lines, config(kind))
        assert any(plain.encode(line) != tokenizer.encode(line) for line in lines)
        assert tokenizer.size == plain.size
        assert all(counts[piece] >= 15 for piece in counts if len(piece) > 1 and not piece.startswith("<0x"))
        assert all(tokenizer.decode(tokenizer.encode(line)) == line for line in lines)
    else:
        assert set(tokenizer.vocabulary) == {symbol for symbol, count in counts.items() if count >= 15}
        with pytest.raises(ValueError, match=f"^tokenizer.min_frequency=9000 leaves no {kind} known; lower it"):
            train_tokenizer(lines, config(kind, min_frequency=9000))


@given(line=COMPOSING, form=st.sampled_from(UNICODE_FORMS))
@settings(deadline=None, max_examples=30)
@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_a_form_belongs_to_the_tokenizer_and_spans_refer_to_the_original_line(kind, line, form):
    """With a form, both spellings of a line have one encoding."""
    tokenizer = in_form(kind, form)
    spans = tokenizer.spans(line)
    assert len(spans) == len(tokenizer.encode(line))
    assert all(0 <= first < last <= len(line) for first, last in spans)
    assert spans == sorted(spans)
    if kind != "word":
        assert {place for first, last in spans for place in range(first, last)} == set(range(len(line)))
    if form != "none":
        other = unicodedata.normalize("NFD" if form.endswith("C") else "NFC", line)
        assert tokenizer.encode(line) == tokenizer.encode(other)
    if kind in SUBWORDS:
        assert tokenizer.decode(tokenizer.encode(line)) == normalize(line, form)


KNOWN: dict[tuple[str, str], Tokenizer] = {}


def in_form(kind: str, form: str) -> Tokenizer:
    """A tokenizer of a type and a normalization form, trained once."""
    if (kind, form) not in KNOWN:
        KNOWN[kind, form] = train_tokenizer([*LINES, "Ärger mit Ä und 각"], config(kind, unicode=form))
    return KNOWN[kind, form]


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_without_a_form_both_spellings_are_distinct(trained, kind):
    """Nothing is normalized by default."""
    spelled = [unicodedata.normalize(form, "Ä") for form in ("NFC", "NFD")]
    tokenizer = train_tokenizer([*LINES, *spelled], config(kind))
    assert tokenizer.encode(spelled[0]) != tokenizer.encode(spelled[1])
    assert [tokenizer.decode(tokenizer.encode(line)) for line in spelled] == spelled


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["none", "NFC"])
@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_saved_and_loaded_is_the_same(tmp_path, kind, form):
    """Fingerprint, form and symbols are preserved; tabs, CR and U+2028 are symbols too."""
    training = [*LINES, "a\tb \r \u2028 \x85 \ufeff \0 </s> \\ \" '", "\u2028"]
    before = train_tokenizer(training, config(kind, unicode=form))
    path = tmp_path / "a b.json"
    save_tokenizer(before, path)
    after = load_tokenizer(path)
    assert tokenizer_fingerprint(after) == tokenizer_fingerprint(before)
    assert re.fullmatch("[0-9a-f]{64}", tokenizer_fingerprint(after))
    for line in [*training, *HARD.values()]:
        assert after.encode(line) == before.encode(line)
        assert after.decode(before.encode(line)) == before.decode(before.encode(line))
    assert type(after) is type(before)
    assert [child.name for child in tmp_path.iterdir()] == ["a b.json"]


@pytest.fixture
def damaged(tmp_path, trained):
    """A function that changes the file of a tokenizer and returns the error of loading it."""

    def load(kind: str, change) -> str:
        path = tmp_path / "x.tokenizer.json"
        save_tokenizer(trained[kind], path)
        state = json.loads(path.read_text(encoding="utf-8"))
        change(state)
        path.write_text(json.dumps(state), encoding="utf-8")
        with pytest.raises(ValueError, match=r"is no tokenizer") as refused:
            load_tokenizer(path)
        text = str(refused.value)
        assert "\n" not in text
        assert text.startswith(f"{path} is no tokenizer: ")
        assert text.endswith("; restore it from a copy.")
        return text.removeprefix(f"{path} is no tokenizer: ").removesuffix("; restore it from a copy.")

    return load


@pytest.mark.parametrize("kind", ["char", "word"])
@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("", "vocabulary entry 2 is '', a symbol of at least one character is wanted"),
        (None, "vocabulary entry 2 is None, a symbol of at least one character is wanted"),
        (["a"], "vocabulary entry 2 is ['a'], a symbol of at least one character is wanted"),
        ("a b", "vocabulary entry 2 is 'a b', which is {} symbols, not one"),
    ],
)
def test_a_damaged_vocabulary_is_refused_with_its_file_and_entry(damaged, kind, entry, reason):

    def change(state):
        state["symbols"][2] = entry

    assert damaged(kind, change) == reason.format(3 if kind == "char" else 2)


@pytest.mark.parametrize("kind", ["char", "word"])
def test_a_repeated_entry_is_refused_with_its_file_and_both_places(damaged, trained, kind):

    def change(state):
        state["symbols"][5] = state["symbols"][2]

    symbol = trained[kind].vocabulary[2]
    assert damaged(kind, change) == f"vocabulary entry 5 is {symbol!r}, and so is entry 2"


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("char", lambda state: state.pop("symbols"), "it has no 'symbols'"),
        ("char", lambda state: state.pop("format"), "it has no 'format'"),
        ("char", lambda state: state.update(symbols="abc"), "its symbols are a str, a list is wanted"),
        (
            "char",
            lambda state: state.update(unicode="NFX"),
            "unicode must be one of NFC, NFC+lower, NFD, NFD+lower, ",
        ),
        (
            "char",
            lambda state: state.update(type="chr"),
            "type must be one of bpe, char, sentencepiece, subword-nmt, unigram, word, got 'chr'",
        ),
        ("char", lambda state: state.update(format="one"), "invalid literal for int() with base 10: 'one'"),
        ("char", lambda state: state.update(format=None), "int() argument must be a string"),
        ("bpe", lambda state: state.pop("model"), "it has no 'model'"),
        ("bpe", lambda state: state.update(model="*"), ""),
        ("bpe", lambda state: state.update(model="AAAA"), ""),
        ("bpe", lambda state: state.update(model=state["model"][: len(state["model"]) // 8 * 4]), ""),
        ("bpe", lambda state: state.update(model=""), ""),
        ("bpe", lambda state: state.update(model=3), ""),
    ],
)
def test_a_damaged_tokenizer_is_refused(damaged, kind, change, reason):
    assert damaged(kind, change).startswith(reason)


@pytest.mark.parametrize(
    ("version", "remedy"), [(1, "learn it anew, or use the s2s_jax that wrote it"), (3, "use a newer s2s_jax")]
)
def test_another_format_is_refused_with_what_to_do(tmp_path, trained, version, remedy):
    """Format 1 named the type `kind`."""
    path = tmp_path / "x.json"
    save_tokenizer(trained["char"], path)
    state = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({"kind": state.pop("type"), **state, "format": version}), encoding="utf-8")
    text = f"{path} has format {version}, this version of s2s_jax reads 2; {remedy}."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        load_tokenizer(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"\xff\xfe", b'"text"'])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is no tokenizer: .*; restore it from a copy.$"):
        load_tokenizer(path)


def test_a_sentencepiece_model_with_other_special_ids_is_refused(damaged):
    """Its PAD is not 0."""

    def change(state):
        file = io.BytesIO()
        trainer = sentencepiece.SentencePieceTrainer
        trainer.train(sentence_iterator=iter(LINES), model_writer=file, vocab_size=20, minloglevel=2)
        state["model"] = base64.b64encode(file.getvalue()).decode()

    assert damaged("bpe", change).startswith("its first pieces are <unk> <s> </s> ")


def test_a_missing_tokenizer_is_named(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(FileNotFoundError, match=f"^no tokenizer {re.escape(str(path))}; the run is incomplete.$"):
        load_tokenizer(path)


def test_different_tokenizers_have_different_fingerprints(trained):
    one = Characters(["a", "b"])
    others = [
        Characters(["b", "a"]),
        Characters(["a"]),
        Characters(["a", "b"], "NFC"),
        Words(["a", "b"]),
        *trained.values(),
    ]
    assert len({tokenizer_fingerprint(tokenizer) for tokenizer in [one, *others]}) == len(others) + 1
