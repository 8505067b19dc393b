"""Tokenizers of other programs: the oracle of sentencepiece is itself, that of subword-nmt its published algorithm."""

import io
import itertools
import json
import random
import re

import pytest
import sentencepiece
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_jax.config import override
from s2s_jax.run.inputs import read_inputs
from s2s_jax.run.run_dir import read_experiment
from s2s_jax.shapes import EOS, SPECIAL, UNK
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.given_tokenizers import MergeCodes, read_codes
from s2s_jax.text.tokenizers import (
    TokenizerConfig,
    TokenizersConfig,
    encode_lines,
    given_tokenizer,
    load_tokenizer,
    save_tokenizer,
)

LINES = ["low lower lowest", "new newer newest wide wider widest", "low low low aaaaa"] * 4
WORDS = st.lists(st.text("lowernstidxa", min_size=1, max_size=9), max_size=6).map(" ".join)
MERGES = ["e s", "e r", "es t", "l o", "lo w", "a a", "e w", "n ew"]


def codes(version: str) -> str:
    """Codes of a version, in which the end of a word is a part of a symbol (0.2) or a symbol (0.1)."""
    ends = ["est </w>", "er </w>", "low </w>"] if version == "0.1" else ["e r</w>", "s t</w>", "e st</w>", "lo w</w>"]
    return "#version: 0.2\n" * (version == "0.2") + "\n".join([*MERGES, *ends, "w est</w>"]) + "\n"


# --- subword-nmt ------------------------------------------------------------------------------------------------------


def merged_by_hand(word: str, merges: list[tuple[str, str]], version: str) -> list[str]:
    """Sennrich et al. 2016, algorithm 1, applied to a word: in each round the merge learned first, wherever it fits."""
    symbols = [*word, "</w>"] if version == "0.1" else [*word[:-1], word[-1] + "</w>"]
    while True:
        possible = [merge for merge in merges if merge in itertools.pairwise(symbols)]
        if not possible:
            break
        left, right = possible[0]
        place = 0
        while place < len(symbols) - 1:
            if (symbols[place], symbols[place + 1]) == (left, right):
                symbols[place : place + 2] = [left + right]
            place += 1
    symbols[-1] = symbols[-1].replace("</w>", "")
    return [symbol for symbol in symbols if symbol]


def undone_by_hand(pieces: list[str], merges: list[tuple[str, str]], known: set[str]) -> list[str]:
    """The pieces, from the left, each outside the vocabulary replaced by the two that it was merged from."""
    pieces, place = [*pieces], 0
    pieces[-1] += "</w>"
    while place < len(pieces):
        final = place == len(pieces) - 1
        shown = pieces[place].replace("</w>", "") if final else pieces[place] + "@@"
        merge = next((merge for merge in merges if "".join(merge) == pieces[place]), None)
        if shown in known or merge is None:
            place += 1
        else:
            pieces[place : place + 1] = merge
    return [*pieces[:-1], pieces[-1].replace("</w>", "")]


@given(line=WORDS)
@settings(deadline=None, max_examples=60)
@pytest.mark.parametrize("version", ["0.1", "0.2"])
def test_codes_are_applied_as_subword_nmt_does(tmp_path_factory, version, line):
    path = tmp_path_factory.getbasetemp() / f"codes{version}.bpe"
    path.write_text(codes(version), encoding="utf-8")
    tokenizer = given_tokenizer(TokenizerConfig(file=str(path)), [*LINES, line])
    merges = [tuple(each.split()) for each in codes(version).splitlines() if not each.startswith("#")]
    tokens = []
    for word in line.split():
        pieces = merged_by_hand(word, merges, version) if len(word) > 1 else [word]
        tokens += [f"{piece}@@" for piece in pieces[:-1]] + pieces[-1:]
    assert tokenizer.tokenize(line) == tokens
    assert UNK not in tokenizer.encode(line)
    assert tokenizer.decode(tokenizer.encode(line)) == line
    assert [line[first:last] for first, last in tokenizer.spans(line)] == [token.removesuffix("@@") for token in tokens]


@given(line=WORDS)
@settings(deadline=None, max_examples=60)
def test_merges_that_give_a_token_outside_the_vocabulary_are_undone(tmp_path_factory, line):
    folder = tmp_path_factory.getbasetemp()
    (folder / "codes.bpe").write_text(codes("0.2"), encoding="utf-8")
    counts = {"low": 9, "low@@": 2, "est": 7, "n@@": 9, "e@@": 9, "w@@": 9, "lo@@": 8, "r": 9, "er": 4, "w": 7, "x": 9}
    (folder / "vocabulary").write_text("".join(f"{token} {count}\n" for token, count in counts.items()), "utf-8")
    files = {"file": str(folder / "codes.bpe"), "vocabulary": str(folder / "vocabulary")}
    tokenizer = given_tokenizer(TokenizerConfig(**files, min_frequency=5), [])
    known = {token for token, count in counts.items() if count >= 5}
    assert tokenizer.symbols(range(4, tokenizer.size)) == [token for token in counts if token in known]
    merges = read_codes(folder / "codes.bpe")[0]
    tokens = []
    for word in line.split():
        pieces = merged_by_hand(word, merges, "0.2")
        pieces = undone_by_hand(pieces, merges, known) if len(word) > 1 else pieces
        tokens += [f"{piece}@@" for piece in pieces[:-1]] + pieces[-1:]
    assert tokenizer.tokenize(line) == tokens
    assert [number == UNK for number in tokenizer.encode(line)] == [token not in known for token in tokens]


def test_an_undone_merge_with_the_end_of_a_word_leaves_no_empty_token():
    tokenizer = MergeCodes(["lo@@", "w@@"], merges=[("l", "o"), ("w", "</w>")], joins_end=False, undoes=True)
    assert tokenizer.tokenize("low") == ["lo@@", "w@@"]


# --- sentencepiece ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def model(request, tmp_path_factory):
    """The file of a model with the default normalization, and pieces that no text gives."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 3), model_writer=file, model_type=request.param, vocab_size=34,
        user_defined_symbols=["<sep>"], control_symbols=["<2de>"], hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model") / f"{request.param}.model"
    path.write_bytes(file.getvalue())
    return path


def test_a_sentencepiece_model_is_applied_as_it_is_with_our_special_ids(model, tmp_path):
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(model))
    save_tokenizer(given_tokenizer(TokenizerConfig(file=str(model)), []), tmp_path / "x.json")
    tokenizer = load_tokenizer(tmp_path / "x.json")
    ordinary = theirs.get_piece_size() - 4  # <unk>, <s>, </s>, <2de>
    assert tokenizer.size == len(SPECIAL) + ordinary
    assert len(set(tokenizer.symbols(range(tokenizer.size)))) == tokenizer.size
    for line in (*LINES[:3], "  low   ﬁne  <sep>low", "<2de> </s> low", "", "中 low", "中", "low 中 中low"):
        pieces, ids = theirs.encode(line, out_type=str), tokenizer.encode(line)
        known = [theirs.piece_to_id(piece) != theirs.unk_id() for piece in pieces]
        assert [number != UNK for number in ids] == known
        assert [symbol for symbol in tokenizer.symbols(ids) if symbol != "<unk>"] == [
            piece for piece, is_known in zip(pieces, known, strict=True) if is_known
        ]
        assert len(tokenizer.spans(line)) == len(ids)
        assert all(0 <= first < last <= len(line) for first, last in tokenizer.spans(line))
        if all(known):
            assert tokenizer.decode([*ids, EOS]) == theirs.decode(theirs.encode(line))
        unknown = theirs.decode([theirs.unk_id()])
        assert tokenizer.decode(ids, [unknown] * len(ids)) == theirs.decode(theirs.encode(line))
        assert encode_lines(tokenizer, [line]).flat.tolist() == [*ids, EOS]


def prepared(experiment, folder):
    """What a run in a new folder would be trained on; its files are written."""
    folder.mkdir()
    return tiny.prepare(experiment, folder, lambda line: None)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["model", "codes"])
def test_a_run_keeps_the_content_of_the_files_that_it_was_given(form, tmp_path):
    letters = [" ".join(random.Random(n).sample("abcdefghijklmnop", 9)) for n in range(40)]
    if form == "model":
        file = tmp_path / "own.model"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(letters), model_prefix=str(file.with_suffix("")), vocab_size=37,
            hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
    else:
        file = tmp_path / "codes.bpe"
        file.write_text("#version: 0.2\na b</w>\n")
    changes = [f"tokenizer.{side}.file={file}" for side in ("source", "target")]
    experiment = tiny.experiment("data.train_size=60", "data.eval_size=9", "steps=1", *changes)
    inputs = prepared(experiment, tmp_path / "run")
    content = file.read_bytes()
    file.rename(tmp_path / "moved")
    state = json.loads((tmp_path / "run" / "source.tokenizer.json").read_text())
    assert state["type"] == {"model": "sentencepiece", "codes": "subword-nmt"}[form]
    again = load_tokenizer(tmp_path / "run" / "source.tokenizer.json")
    assert again.encode("a b c") == inputs.tokenizers.source.encode("a b c")
    # the run goes on without the file, and with the file if it is the same
    resumed = {"resumed": tmp_path / "run"}
    assert read_experiment(tmp_path / "run") == experiment
    read_inputs(experiment, lambda line: None, **resumed)
    file.write_bytes(content)
    read_inputs(experiment, lambda line: None, **resumed)
    if form == "codes":
        file.write_bytes(content.replace(b"a b", b"a c"))
        with pytest.raises(
            ValueError, match=r"tokenizer.source.file=.*codes.bpe is not the tokenizer that the run was"
        ):
            read_inputs(experiment, lambda line: None, **resumed)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.model", b"nonsense", "x.model is no sentencepiece model: "),
        ("codes", b"#version: 0.2\na b\na b c\n", "codes:3: 'a b c' is no merge of BPE codes, which is two symbols; "),
        ("codes", b"#version: 7\n", "codes:1: BPE codes of version 7, only 0.1 and 0.2 are known."),
        ("codes", b"\xff\xfe", "codes is not UTF-8"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused_with_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        given_tokenizer(TokenizerConfig(file=str(tmp_path / name)), [])
    with pytest.raises(FileNotFoundError, match="^no tokenizer file nowhere"):
        given_tokenizer(TokenizerConfig(file="nowhere.bpe"), [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary": "v"}, "vocabulary=v belongs to BPE codes, and tokenizer.source.file='' has none"),
        ({"vocabulary": "v", "file": "a.model"}, "vocabulary=v belongs to BPE codes"),
        ({"lowercase": True, "file": "a.json"}, "lowercase=true cannot change the tokenizer in"),
        ({"min_frequency": 0}, "min_frequency must be positive, got 0"),
    ],
)
def test_settings_that_do_not_go_with_a_file_are_refused(options, message):
    with pytest.raises(ValueError, match="^tokenizer.source." + re.escape(message)):
        TokenizersConfig(source=TokenizerConfig(**options))


# --- one tokenizer for both sides -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_shared_tokenizer_knows_the_lines_of_both_sides(kind, tmp_path):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"left{n} a\tright{n} b\n" for n in range(30)))
    sides = [f"tokenizer.{side}.{name}" for side in ("source", "target") for name in (f"type={kind}", "size=320")]
    experiment = tiny.experiment(f"data.train={pairs}", f"data.validation={pairs}", *sides)
    apart = prepared(experiment, tmp_path / "apart").tokenizers
    one = prepared(override(experiment, "tokenizer.shared=true"), tmp_path / "one").tokenizers
    assert (apart.one_vocabulary, one.one_vocabulary) == (False, True)
    assert one.source.state() == one.target.state()
    words = {"left7", "right7", "a", "b"}
    if kind == "word":
        assert words < {*one.source.symbols(range(one.source.size))}
    assert PairTokenizer(apart.source, apart.source).one_vocabulary
    given = [f"tokenizer.{side}.file={tmp_path / 'one' / 'target.tokenizer.json'}" for side in ("source", "target")]
    assert prepared(override(experiment, *given), tmp_path / "given").tokenizers.one_vocabulary


def test_a_shared_tokenizer_needs_equal_settings_on_both_sides():
    with pytest.raises(
        ValueError, match=r"^tokenizer.shared=true makes .* got tokenizer.source.type=word and tokenizer."
    ):
        TokenizersConfig(shared=True, source=TokenizerConfig(type="word"))
    TokenizersConfig(shared=True, source=TokenizerConfig(type="word"), target=TokenizerConfig(type="word"))
