"""Whole corpora as ids: as line by line, from a file of the cache too, whatever happened to that file."""

import numpy as np
import pytest
import tiny

from s2s_jax.run.batches import encode
from s2s_jax.shapes import EOS
from s2s_jax.text import encoding
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.encoding import encode_lines
from s2s_jax.text.example import Example
from s2s_jax.text.subwords import Subwords, Unigrams
from s2s_jax.text.symbol_tokenizers import Words

LINES = ["the cat sat", "", " a  cat ", "▁ ▅ \ue000m", "日本語 ́é\u2028", "</s> <unk>", "cat " * 50]


@pytest.fixture(scope="module", params=[Subwords, Unigrams])
def tokenizer(request):
    return request.param.train(["the cat sat on the mat", "a cat", "dogs run far"] * 20, size=320)


def plain(tokenizer, lines) -> list[list[int]]:
    return [[*tokenizer.encode(line), EOS] for line in lines]


def as_lists(encoded) -> list[list[int]]:
    assert all(ids.dtype == np.int32 for ids in encoded)
    return [ids.tolist() for ids in encoded]


def test_all_lines_at_once_are_those_one_by_one(tokenizer, monkeypatch):
    monkeypatch.setattr("s2s_jax.text.subwords.LINES_AT_ONCE", 3)
    assert as_lists(encode_lines(tokenizer, LINES)) == plain(tokenizer, LINES)
    assert encode_lines(tokenizer, []) == []
    words = Words(["the", "cat"])
    assert as_lists(encode_lines(words, LINES)) == plain(words, LINES)
    pairs = encode([Example(line, line[:3]) for line in LINES], PairTokenizer(tokenizer, words))
    assert as_lists(pairs.sources) == plain(tokenizer, LINES)
    assert as_lists(pairs.targets) == plain(words, [line[:3] for line in LINES])


@pytest.fixture
def cached(tokenizer, monkeypatch, tmp_path):
    """A function that encodes lines with a cache; whether it was computed, and the files of the cache."""
    monkeypatch.setattr(encoding, "CACHED_LINES", 3)
    computed = []
    encode_all = type(tokenizer).encode_all
    monkeypatch.setattr(Subwords, "encode_all", lambda self, lines: computed.append(lines) or encode_all(self, lines))

    def encode_again(lines=LINES, folder=tmp_path / "cache"):
        computed.clear()
        assert as_lists(encode_lines(tokenizer, lines, cache=str(folder))) == plain(tokenizer, lines)
        return bool(computed), sorted(folder.iterdir()) if folder.is_dir() else []

    return encode_again


def test_a_corpus_is_encoded_once(cached):
    computed, (file,) = cached()
    assert computed
    assert cached() == (False, [file])
    computed, files = cached([*LINES[1:], LINES[0]])  # other lines
    assert computed
    assert len(files) == 2
    assert cached(LINES[:2]) == (True, files)  # too few to be worth a file


def test_another_tokenizer_has_another_file(tokenizer):
    other = Subwords.train(["other words", "entirely"] * 20, size=300)
    assert encoding._fingerprint(tokenizer, LINES) != encoding._fingerprint(other, LINES)
    assert encoding._fingerprint(tokenizer, ["ab", "c"]) != encoding._fingerprint(tokenizer, ["a", "bc"])


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
        lambda data: b"PK" + data,
    ],
)
def test_a_damaged_file_is_made_anew(cached, harm):
    _, (file,) = cached()
    whole = file.read_bytes()
    file.write_bytes(harm(whole))
    cached()
    assert cached() == (False, [file])


def test_a_file_with_impossible_numbers_is_made_anew(cached, tokenizer):
    _, (file,) = cached()
    for ids, lengths in (([9999, 2] * 7, [2] * 7), ([5, 5] * 7, [2] * 7), ([5, 2], [2]), ([5, 2] * 7, [1] * 7)):
        np.savez(file, ids=ids, lengths=lengths)
        assert cached() == (True, [file])


def test_a_folder_that_cannot_be_written_costs_time_alone(cached, tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert cached(folder=tmp_path / "file") == (True, [])


def test_files_that_were_not_used_for_longest_are_removed(cached, monkeypatch):
    monkeypatch.setattr(encoding, "CACHED_FILES", 2)
    for number in range(4):
        _, files = cached([*LINES, str(number)])
    assert len(files) == 2
    assert cached([*LINES, "3"])[0] is False


def test_the_cache_is_a_setting_that_changes_nothing_that_is_learned():
    assert tiny.experiment("data.cache=").data.cache == ""
