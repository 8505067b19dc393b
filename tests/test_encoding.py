"""Whole corpora as ids: as line by line, whatever processes compute them and whatever happens to the files."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from s2s_jax.run.batches import encode
from s2s_jax.run.inputs import read_inputs
from s2s_jax.run.tokenizers import make_tokenizers
from s2s_jax.shapes import EOS
from s2s_jax.text import encoding, id_cache, ragged
from s2s_jax.text.batches import BatchPlan
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.corpus import Corpus, pack_lines
from s2s_jax.text.encoding import encode_corpus, worker_count
from s2s_jax.text.example import Example
from s2s_jax.text.ragged import Ragged
from s2s_jax.text.subwords import Subwords, Unigrams
from s2s_jax.text.symbol_tokenizers import Words
from s2s_jax.text.tokenizers import TOKENIZERS, tokenizer_fingerprint

LINES = ["the cat sat", "", " a  cat ", "▁ ▅ \ue000m", "日本語 ́é\u2028", "</s> <unk>", "cat " * 50, "\ud83d"]
TRAINING = ["the cat sat on the mat", "a cat", "dogs run far"] * 20


@pytest.fixture(scope="module", params=[Subwords, Unigrams])
def tokenizer(request):
    return request.param.train(TRAINING, size=320)


def pairs_of(lines) -> list[Example]:
    return [Example(line, line[:3]) for line in lines]


def plain(tokenizers: PairTokenizer, lines) -> list[list[list[int]]]:
    """The ids, one line at a time."""
    return [
        [[*tokenizers.encode_source(one.source), EOS] for one in pairs_of(lines)],
        [[*tokenizers.encode_target(one.target, one.source), EOS] for one in pairs_of(lines)],
    ]


def as_lists(sides) -> list[list[list[int]]]:
    assert all(ids.dtype == np.int32 for side in sides for ids in side)
    return [[ids.tolist() for ids in side] for side in sides]


@pytest.fixture
def small_blocks(monkeypatch):
    """Few lines are many: there are several blocks, and files, and processes where they are wanted."""
    monkeypatch.setattr("s2s_jax.text.corpus.BLOCK", 3)
    monkeypatch.setattr(encoding, "LARGE", 3)
    monkeypatch.setattr(ragged, "IN_MEMORY", 40)
    monkeypatch.setattr("s2s_jax.text.corpus.IN_MEMORY", 40)


def encoded(tokenizers: PairTokenizer, lines, **options):
    return encode_corpus(Corpus.of(pairs_of(lines)), tokenizers, **options)


# half a surrogate pair is no text for sentencepiece
@pytest.mark.parametrize("slots", [0, 2])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_corpus_is_encoded_as_its_lines_one_by_one(small_blocks, tmp_path, slots, workers):
    words = Words(["the", "cat", "a", "sat"])
    tokenizers = PairTokenizer(words, Words(["cat", "a"]), slots=slots, reverses_target=slots > 0)
    found = encoded(tokenizers, LINES, cache=str(tmp_path), workers=workers)
    assert as_lists(found) == plain(tokenizers, LINES)
    assert found[0].flat.dtype == np.uint8
    assert isinstance(found[0].flat.base, np.memmap)


def test_subwords_are_encoded_as_their_lines_one_by_one(tokenizer, small_blocks):
    tokenizers = PairTokenizer(tokenizer, Words(["the"]))
    for workers in (1, 2):
        assert as_lists(encoded(tokenizers, LINES[:-1], workers=workers)) == plain(tokenizers, LINES[:-1])
    assert as_lists(encoded(tokenizers, [])) == [[], []]
    assert as_lists(encode(pairs_of(LINES[:2]), tokenizers)[:2]) == plain(tokenizers, LINES[:2])


@given(st.lists(st.text(st.sampled_from("thecatsonmdgrufa  \u2581\ue000\u3000\t\n\0é日"), max_size=40), max_size=6))
def test_word_by_word_is_line_by_line(tokenizer, lines):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("s2s_jax.text.subwords.KNOWN_WORDS", 3)
        patch.setattr("s2s_jax.text.subwords.KNOWN_LETTERS", 4)
        found = Ragged(*Subwords.from_state(tokenizer.state()).encode_all(lines))
    if tokenizer.type == "bpe":
        assert [ids.tolist() for ids in found] == [[*tokenizer.encode(line), EOS] for line in lines]
    assert [ids.tolist() for ids in Ragged(*tokenizer.encode_all(lines))] == [
        [*tokenizer.encode(line), EOS] for line in lines
    ]


def test_pieces_that_go_on_after_a_space_are_found_in_whole_lines(monkeypatch):
    """A model from elsewhere may have them."""
    import sentencepiece

    def train(*, split_by_whitespace=False, **options):
        return trained(split_by_whitespace=False, **options)

    trained = sentencepiece.SentencePieceTrainer.train
    monkeypatch.setattr(sentencepiece.SentencePieceTrainer, "train", train)
    across = Subwords.train(TRAINING, size=320)
    assert any("\u2581" in piece[1:] for piece in across.symbols(range(across.size)))
    assert [ids.tolist() for ids in Ragged(*across.encode_all(TRAINING))] == [
        [*across.encode(line), EOS] for line in TRAINING
    ]


def test_what_is_learned_from_few_of_many_lines_is_told(monkeypatch):
    monkeypatch.setattr("s2s_jax.run.tokenizers.LARGE", 3)
    changes = ("tokenizer.source.type=bpe", "tokenizer.source.size=300", "tokenizer.source.lines=20")
    corpus, printed = Corpus.of(Example(line, "a") for line in TRAINING), []
    config = tiny.experiment(*changes).tokenizer
    tokenizers = make_tokenizers(config, corpus, None, copy_slots=0, print_line=printed.append)
    assert printed == [
        "source vocabulary: bpe, learned from 20 of 60 lines",
        "target vocabulary: word, learned from 60 lines",
    ]
    few = Subwords.train([*corpus.lines("source", most=20)], size=300)
    assert tokenizer_fingerprint(tokenizers.source) == tokenizer_fingerprint(few)


# --- processes --------------------------------------------------------------------------------------------------------


class Own(Words):
    type = "own"

    def encode(self, line: str) -> list[int]:
        if line == "bad":
            raise ZeroDivisionError("of my own")
        return super().encode(line)


@pytest.fixture
def own(monkeypatch, small_blocks):
    monkeypatch.setitem(TOKENIZERS, "own", Own)
    return PairTokenizer(Own(["the", "cat"]), Words(["a"]))


def test_a_tokenizer_that_no_new_process_knows_is_used_in_this_one(own, capfd):
    printed = []
    assert as_lists(encoded(own, LINES, workers=2, print_line=printed.append)) == plain(own, LINES)
    assert printed == [
        "note: the data is tokenized in one process (ValueError: the type 'own' of a tokenizer is known only to files "
        "that --import names)."
    ]
    assert capfd.readouterr() == ("", "")


OWN_FILE = """
from s2s_jax.text.symbol_tokenizers import Words
from s2s_jax.text.tokenizers import TOKENIZERS

print("this is no answer")

class Mine(Words):
    type = "mine"

    def encode(self, line):
        if line == "bad":
            raise ZeroDivisionError("of my own")
        return super().encode(line)

TOKENIZERS["mine"] = Mine
"""


@pytest.fixture
def imported(tmp_path, monkeypatch, small_blocks):
    """Tokenizers of an imported file."""
    from s2s_jax import imports

    (tmp_path / "mine_tokenizer.py").write_text(OWN_FILE)
    for table in ("LOADED", "_extending"):
        monkeypatch.setattr(imports, table, type(getattr(imports, table))())
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = imports.import_once(str(tmp_path / "mine_tokenizer.py"))
    yield PairTokenizer(module.Mine(["the", "cat"]), Words(["a"]))
    del TOKENIZERS["mine"], sys.modules["mine_tokenizer"]


def test_an_imported_tokenizer_is_known_to_new_processes_and_its_error_is_its_own(imported):
    with encoding.EncodingProcesses(imported, 1) as processes:  # a second one would take seconds more
        answers = list(processes.encode(Corpus.of(pairs_of(LINES)).packed()))
        sides = [Ragged(*map(np.concatenate, zip(*side, strict=True))) for side in zip(*answers, strict=True)]
        assert as_lists(sides) == plain(imported, LINES)
        with pytest.raises(ZeroDivisionError, match="of my own") as error:
            list(processes.encode([pack_lines([word], ["a"]) for word in ("the", "bad", "cat")]))
    assert "mine_tokenizer.py" in str(error.traceback[-1].path)


def children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(each) for each in text.split() if b"encoding_processes" in Path(f"/proc/{each}/cmdline").read_bytes()]


def test_processes_are_ended_after_the_last_line_and_after_an_error(small_blocks):
    tokenizers = PairTokenizer(Words(["a"]), Words(["a"]))
    with encoding.EncodingProcesses(tokenizers, 2) as processes:
        assert len(children()) == 2
        assert len(list(processes.encode(Corpus.of(pairs_of(LINES)).packed()))) == 3
    assert not children()
    with pytest.raises(KeyboardInterrupt), encoding.EncodingProcesses(tokenizers, 2):
        raise KeyboardInterrupt
    assert not children()


def test_a_process_that_died_is_told_with_what_to_do(small_blocks):
    with encoding.EncodingProcesses(PairTokenizer(Words(["a"]), Words(["a"])), 2) as processes:
        answers = processes.encode(Corpus.of(pairs_of(LINES * 3)).packed())
        next(answers)
        for child in children():
            os.kill(child, signal.SIGKILL)
        with pytest.raises(OSError, match=r"a process that tokenizes has died \(signal 9\).*data.workers=1"):
            list(answers)


INTERRUPTED = """
import sys, itertools
from s2s_jax.text import encoding
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.symbol_tokenizers import Words
from s2s_jax.text.corpus import pack_lines
with encoding.EncodingProcesses(PairTokenizer(Words(["a"]), Words(["a"])), 2) as processes:
    for _ in processes.encode(itertools.repeat(pack_lines(["a"], ["b"]))):
        print("x", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_one_that_started_it(number):
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"x\n"
    started = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(started) == 2
    process.send_signal(number)
    process.communicate(timeout=30)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{each}").exists() for each in started):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_per_processor_tokenizes_what_is_large(monkeypatch):
    monkeypatch.setattr(encoding, "_cores", lambda: 64)
    assert worker_count(99_999, 0) == worker_count(99_999, 8) == worker_count(5_000_000, 1) == 1
    assert worker_count(100_000, 0) == encoding.MOST_WORKERS
    assert worker_count(100_000, 40) == 40


def test_ids_beyond_the_size_of_a_tokenizer_are_refused(monkeypatch):
    words = Words(["a", "b"])
    monkeypatch.setattr(Words, "encode", lambda self, line: [4, 6])
    with pytest.raises(ValueError, match="a tokenizer of 6 ids gives id 6; make its `size` count all of its ids"):
        encoded(PairTokenizer(words, words), ["a"])


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cached(tokenizer, monkeypatch, tmp_path, small_blocks):
    """A function that encodes lines with a cache; whether it was computed, the files of the cache, what was printed."""
    tokenizers = PairTokenizer(tokenizer, tokenizer)
    computed = []
    encode_all = type(tokenizer).encode_all
    monkeypatch.setattr(Subwords, "encode_all", lambda self, lines: computed.append(lines) or encode_all(self, lines))

    def encode_again(lines=LINES[:-1], folder=tmp_path / "cache"):
        computed.clear()
        printed = []
        found = encoded(tokenizers, lines, cache=str(folder), workers=1, print_line=printed.append)
        assert as_lists(found) == plain(tokenizers, lines)
        return bool(computed), sorted(folder.iterdir()) if folder.is_dir() else [], printed

    return encode_again


def test_a_corpus_is_encoded_once(cached, tmp_path):
    computed, files, printed = cached()
    assert computed
    assert [file.name[-11:] for file in files] == [".source.ids", ".target.ids"]
    assert printed == []
    assert cached() == (False, files, [f"the ids of 7 pairs were found in {tmp_path / 'cache'}"])
    computed, more, _ = cached([*LINES[1:-1], LINES[0]])  # other lines
    assert computed
    assert len(more) == 4
    assert cached(LINES[:2])[:2] == (True, more)  # too few to be kept


def test_what_ids_depend_on_is_in_their_fingerprint(tokenizer):
    other = Subwords.train(["other words", "entirely"] * 20, size=300)
    words = Words(["a"])

    def fingerprint(lines, *sides, **options):
        return encoding._fingerprint(Corpus.of(Example(*line) for line in lines), PairTokenizer(*sides, **options))

    line = [("ab", "c")]
    found = {
        fingerprint(line, tokenizer, tokenizer),
        fingerprint(line, tokenizer, other),
        fingerprint(line, other, tokenizer),
        fingerprint([("a", "bc")], tokenizer, tokenizer),
        fingerprint([*line, ("", "")], tokenizer, tokenizer),
        fingerprint(line, words, words),
        fingerprint(line, words, words, slots=2),
        fingerprint(line, words, words, reverses_target=True),
    }
    assert len(found) == 8


def test_a_tokenizer_of_ones_own_is_not_kept_since_its_code_may_change(own, tmp_path):
    encoded(own, LINES, cache=str(tmp_path), workers=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
        lambda data: data[: id_cache.HEADER] + bytes([data[id_cache.HEADER] ^ 1]) + data[id_cache.HEADER + 1 :],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"PK" + data,
        lambda data: bytes(len(data)),
        lambda data: data.replace(b'"lines": 7', b'"lines": 8'),
        lambda data: b"[]".ljust(len(data)),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
def test_a_damaged_file_is_told_and_made_anew(cached, harm, side):
    _, files, _ = cached()
    files[side].write_bytes(harm(files[side].read_bytes()))
    computed, _, printed = cached()
    assert computed
    (line,) = printed
    assert line.startswith(f"warning: {files[side]} is damaged (")
    assert cached()[:2] == (False, files)


def test_the_file_of_another_corpus_is_refused(cached):
    _, files, _ = cached()
    for file in cached([*LINES[1:-1], "z"])[1]:
        if file not in files:
            side = next(each for each in files if each.suffixes == file.suffixes)
            file.replace(side)
    assert cached()[0]


def test_a_write_that_fails_is_told_and_leaves_nothing(cached, monkeypatch, tmp_path):
    def full(side):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(id_cache, "_parts_of", full)
        computed, files, (line,) = cached()
    assert (computed, files) == (True, [])
    assert line == (
        f"warning: the ids are not kept in {tmp_path / 'cache'}: [Errno 28] No space left on device; the next run "
        "tokenizes again."
    )
    assert cached()[0]


def test_a_folder_that_cannot_be_written_costs_time_alone(cached, tmp_path):
    (tmp_path / "file").write_text("no folder")
    computed, files, printed = cached(folder=tmp_path / "file")
    assert (computed, files, len(printed)) == (True, [], 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named_with_what_to_do(small_blocks, monkeypatch, tmp_path):
    monkeypatch.setattr("s2s_jax.text.ragged.temporary_file", lambda folder: open("/dev/full", "wb"))  # noqa: SIM115
    with pytest.raises(OSError, match=f"^{tmp_path}: no space left on device, .*: --data.cache DIR$"):
        encoded(PairTokenizer(Words(["a"]), Words(["a"])), LINES * 3, cache=str(tmp_path), workers=1)


def test_files_that_were_not_used_for_longest_and_old_drafts_are_removed(cached, monkeypatch, tmp_path):
    monkeypatch.setattr(id_cache, "CACHED_FILES", 4)
    folder = tmp_path / "cache"
    folder.mkdir()
    for name, age in (("old.ids.x.part", 2 * id_cache.STALE_SECONDS), ("new.ids.x.part", 0), ("other.txt", 10**6)):
        (folder / name).write_text("")
        os.utime(folder / name, (time.time() - age,) * 2)
    for number in range(4):
        _, files, _ = cached([*LINES[:-1], str(number)])
    assert [file.name for file in files if file.suffix != ".ids"] == ["new.ids.x.part", "other.txt"]
    assert len(files) == 6
    assert cached([*LINES[:-1], "3"])[0] is False


def test_a_corpus_gives_back_its_pairs_and_links(small_blocks):
    from s2s_jax.text.pairs import parse_alignment

    words = parse_alignment("0-0 1p1 1-0", "a bc", "de f", "x:1")
    examples = [Example("a bc", "de f", words), Example("ab", "c", ((0, 0), (1, 0))), Example("", "", ())]
    examples += [Example(line, line[::-1]) for line in LINES]
    corpus = Corpus.of(examples, links=True)
    for _ in range(2):
        assert [one[:2] for one in corpus] == [one[:2] for one in examples]
        for one, other in zip(corpus, examples, strict=True):
            assert (one.links is None) == (other.links is None)
            assert one.links is None or sorted(one.links) == sorted(other.links)
    assert next(iter(corpus)).links.sure.tolist() == words.sure.tolist()
    assert list(corpus.lines("target")) == [one.target for one in examples]
    assert len(corpus) == len(examples)
    for most in range(1, len(examples) + 2):
        lines, everything = corpus.lines("source", most=most), iter(one.source for one in examples)
        assert len([*lines]) == len(lines) == min(most, len(examples))
        assert all(line in everything for line in lines)  # in their order
    assert all(one.links is None for one in Corpus.of(examples))


def test_the_cache_and_the_processes_are_settings_that_change_nothing_that_is_learned():
    from s2s_jax.config import learned_settings

    learned = [learned_settings(tiny.experiment(*changes)) for changes in ((), ("data.cache=x", "data.workers=3"))]
    assert json.dumps(learned[0]) == json.dumps(learned[1])


# --- tokenizers that were learned -------------------------------------------------------------------------------------


@pytest.fixture
def learned(monkeypatch, tmp_path):
    """A function that makes the tokenizers of a corpus; their states, what was printed, and the files of the cache."""
    monkeypatch.setattr("s2s_jax.run.tokenizers.LARGE", 3)

    def make(*changes, lines=TRAINING, cache=tmp_path / "kept"):
        corpus, printed = Corpus.of(Example(line, "a") for line in lines), []
        config = tiny.experiment("tokenizer.source.type=bpe", "tokenizer.source.size=300", *changes).tokenizer
        pair = make_tokenizers(config, corpus, None, copy_slots=0, cache=str(cache), print_line=printed.append)
        files = sorted(cache.iterdir()) if cache.is_dir() else []
        return [pair.source.state(), pair.target.state()], [line.split(",")[0] for line in printed], files

    return make


def test_a_vocabulary_is_learned_once_for_the_same_lines_and_settings(learned, tmp_path):
    states, _, files = learned()
    assert len(files) == 2
    again, printed, _ = learned()
    assert again == states
    assert printed == ["source vocabulary: bpe", "target vocabulary: word"]
    for changes in (("tokenizer.source.size=290",), ("tokenizer.source.unicode=NFC",), ("tokenizer.source.lines=9",)):
        assert learned(*changes)[2] != files
        files = learned()[2]
    assert learned(lines=[*TRAINING, "a"])[2] != files
    (tmp_path / "file").write_text("")
    assert learned(cache=tmp_path / "file")[0] == states


@pytest.mark.parametrize("harm", [lambda text: "", lambda text: text.replace('"a"', '"b"'), lambda text: text[:-9]])
def test_a_damaged_vocabulary_of_the_cache_is_told_and_learned_again(learned, harm):
    states, _, files = learned()
    (file,) = [each for each in files if '"word"' in each.read_text()]
    file.write_text(harm(file.read_text()))
    again, printed, _ = learned()
    assert again == states
    assert sum(line.startswith(f"warning: {file} is damaged (") for line in printed) == 1
    assert not any("warning" in line for line in learned()[1])


# --- memory -----------------------------------------------------------------------------------------------------------


def test_no_python_object_is_kept_per_pair(tmp_path, monkeypatch):
    """Each pair more takes less than 200 bytes, copies included; a line of text takes 70 and an array more than 100."""
    monkeypatch.setattr("s2s_jax.text.corpus.BLOCK", 100)
    monkeypatch.setattr("s2s_jax.text.ragged.ROWS_AT_ONCE", 100)
    monkeypatch.setattr("s2s_jax.text.corpus.IN_MEMORY", 1000)
    monkeypatch.setattr(ragged, "IN_MEMORY", 1000)
    peaks = []
    for count in (100, 300, 1300):
        for name in "ab":
            (tmp_path / name).write_text("".join(f"{number} b c d e f g h i j\n" for number in range(count)))
        (tmp_path / "held").write_text("a\tb\n")
        files = [f"data.train={tmp_path / 'a'},{tmp_path / 'b'}", f"data.validation={tmp_path / 'held'}"]
        settings = [*files, "data.lengths=[0, 0]", "data.cache="]
        experiment = tiny.experiment(*settings, *(f"tokenizer.{side}.type=char" for side in ("source", "target")))
        gc.collect()
        if count > 100:  # the first time, what is imported late is imported
            tracemalloc.start()
        inputs = read_inputs(experiment, lambda line: None, resumed=None)
        BatchPlan(inputs.training, experiment.batch, seed=0).batch(0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert isinstance(inputs.training.sources.flat.base, np.memmap)
    assert (peaks[2] - peaks[1]) / 1000 < 200, peaks
