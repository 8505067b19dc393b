import gzip
import json
import re
import subprocess
import sys
import types

import numpy as np
import pytest
import tiny

from s2s_jax.run.batches import encode
from s2s_jax.run.data import read_data
from s2s_jax.text import synthetic_tasks, tfds
from s2s_jax.text.batches import BatchPlan
from s2s_jax.text.data_report import Places
from s2s_jax.text.example import Example
from s2s_jax.text.pairs import stream_pairs
from s2s_jax.text.sources import SOURCES, DataConfig, read_split

TASK_NAMES = ", ".join(sorted(synthetic_tasks.TASKS))

PAIRS = [Example("ein Haus", "a house"), Example("zwei \u2028 Hunde", "two\u0085dogs"), Example("drei", "three")]


@pytest.fixture
def file(tmp_path):
    """A function that writes text to a file, compressed if its name ends in .gz, and returns its path."""

    def write(name: str, text: str):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


def read(train, *, split: str = "train", **settings):
    return read_split(DataConfig(train=str(train), **settings), split)


def refusal(train, *, error=ValueError, **settings) -> str:
    with pytest.raises(error) as refused:
        read(train, **settings)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def tsv(pairs) -> str:
    return "".join(f"{pair.source}\t{pair.target}\n" for pair in pairs)


def one_side(pairs, side: str) -> str:
    return "".join(f"{getattr(pair, side)}\n" for pair in pairs)


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_every_format_gives_the_same_pairs(file, packed):
    """No line ends at U+2028 or U+0085."""
    both = [file(f"{side}.txt{packed}", one_side(PAIRS, side)) for side in ("source", "target")]
    records = "".join(json.dumps({"source": one.source, "target": one.target}) + "\n" for one in PAIRS)
    sources = [
        file(f"a.tsv{packed}", tsv(PAIRS)),
        f"{both[0]},{both[1]}",
        file(f"a.jsonl{packed}", records),
        file(f"a.json{packed}", records),
    ]
    for source in sources:
        examples, report = read(source)
        assert examples == PAIRS
        assert (report.read, report.kept, report.counts) == (3, 3, {})


def test_a_file_with_a_comma_in_its_name_is_one_file(file):
    assert read(file("a,b.tsv", tsv(PAIRS)))[0] == PAIRS


def test_columns_of_a_tsv_file_are_named_by_number(file):
    path = file("a.tsv", "1\tein\tone\textra\n2\tzwei\ttwo\t\n")
    assert read(path, source="2", target="3")[0] == [Example("ein", "one"), Example("zwei", "two")]
    assert read(path, source="3", target="2")[0][0] == Example("one", "ein")
    assert read(path, target="3")[0][0] == Example("1", "one")


def test_three_columns_are_refused_unless_two_are_named(file):
    path = file("a.tsv", "ein\tone\neins\tone\textra\n")
    assert refusal(path) == (
        f"{path}:2: 3 tab-separated columns, 2 are wanted (source, target); for other columns set data.source=1 "
        "data.target=3, for two parallel files name them as A,B."
    )


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("ein one\n", {}, ":1: 1 tab-separated column, 2 are wanted"),
        (
            "ein\tone\n",
            {"target": "3"},
            ":1: 2 tab-separated columns, and column 3 is wanted (source is column 1, target column 3); set "
            "data.source and data.target to columns that every line has.",
        ),
        (
            "ein\tone\n",
            {"source": "de"},
            "data.source names a column of a TSV file by number (1 is the first), got 'de'",
        ),
        ("ein\tone\n", {"target": "0"}, "data.target names a column of a TSV file by number (1 is the first), got '0'"),
        ("ein\tone\n", {"source": "2"}, "source and target are both column 2 of "),
    ],
)
def test_missing_columns_are_refused(file, text, settings, message):
    assert message in refusal(file("a.tsv", text), **settings)


def test_fields_of_json_are_named_and_alignments_become_character_links(file):
    record = {"de": "ein Haus", "en": "a  house", "alignment": "0-0 1-1", "more": 1}
    path = file("a.jsonl", json.dumps(record) + "\n" + json.dumps({"de": "x", "en": "y", "alignment": ""}) + "\n")
    examples, _ = read(path, source="de", target="en")
    links = {(i, 0) for i in range(3)} | {(i, j) for i in range(4, 8) for j in range(3, 8)}
    assert set(examples[0].links) == links
    assert examples[0][:2] == ("ein Haus", "a  house")
    assert len(examples[0].links) == len(links)
    assert (3, 3) not in examples[0].links
    assert list(examples[1].links) == []
    assert read(file("b.jsonl", '{"source": "a", "target": "b", "alignment": null}\n'))[0][0].links is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "{",
            "not JSON (Expecting property name enclosed in double quotes at column 2); one object per line is wanted.",
        ),
        ("\n{}", "a blank line, one object per line is wanted; remove it."),
        ("nothing", "not JSON (Expecting value at column 1); one object per line is wanted."),
        ("[1]", "a JSON list, one object per line is wanted."),
        ("[" * 100_000, "not JSON (maximum recursion depth exceeded"),
        ("1" * 9999, "not JSON (Exceeds the limit (4300 digits)"),
        (
            '{"source": "a", "tgt": "b"}',
            "no text field 'target' (found: source, tgt); set data.source and data.target.",
        ),
        ('{"source": "a", "target": 3}', "no text field 'target' (found: source, target); set data.source"),
        (
            '{"source": "a", "target": "\\ud83d"}',
            "field 'target' holds half a surrogate pair, which is not a character;",
        ),
        (
            '{"source": "a b", "target": "b", "alignment": "1-1"}',
            "alignment '1-1' is no i-j (sure) or ipj (possible) inside",
        ),
        (
            '{"source": "a b", "target": "b", "alignment": "0:0"}',
            "alignment '0:0' is no i-j (sure) or ipj (possible) inside",
        ),
        (
            '{"source": "a b", "target": "b", "alignment": [[0, 0]]}',
            "alignment '[[0,' is no i-j (sure) or ipj (possible) inside",
        ),
    ],
)
def test_unsuitable_json_is_refused_with_its_line(file, line, message):
    good = '{"source": "a", "target": "\\ud83d\\ude00"}'  # a whole surrogate pair is one character
    path = file("a.jsonl", f"{good}\n{line}\n")
    assert refusal(path).startswith(f"{path}:2: {message}")


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv"])
@pytest.mark.parametrize("blank", ["\n", " \n\n", "\u00a0"])
def test_blank_lines_at_the_end_are_no_records_and_are_reported(file, name, blank):
    record = '{"source": "a", "target": "b"}\n' if name.endswith("l") else "a\tb\n"
    path = file(name, record + blank)
    examples, report = read(path)
    assert examples == [Example("a", "b")]
    count = len(blank.splitlines())
    assert report.places == {"blank line at the end, ignored": [f"{path}:{line + 2}" for line in range(count)]}
    assert list(stream_pairs(str(path), stdin=())) == examples


def test_a_tab_at_the_end_is_a_pair_with_blank_sides(file):
    assert read(file("a.tsv", "a\tb\n\t\n"))[1].counts == {"blank source and target, pair dropped": 1}


@pytest.mark.parametrize("head", ["source\ttarget", "en\tde", "Word\tPronunciation"])
def test_a_line_that_names_the_columns_is_reported(file, head):
    path = file("a.tsv", f"{head}\na\tb\n")
    examples, report = read(path)
    assert len(examples) == 2
    reason = "first line that may be a header, used as a pair (remove it if it is one)"
    assert report.places == {reason: [f"{path}:1"]}
    assert read(file("b.tsv", f"a\tb\n{head}\n"))[1].counts == {}


# --- gold alignments in a separate file -------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("form", ["parallel", "tsv"])
def test_a_line_of_the_alignment_file_belongs_to_its_pair(file, form, packed):
    """Also after pairs that are dropped; an empty line means that nothing is aligned."""
    pairs = [Example("ab c", "x yz"), Example("", "x"), Example("a", "b"), Example("d e", "f")]
    both = [file(f"{side}.txt", one_side(pairs, side)) for side in ("source", "target")]
    spec = f"{both[0]},{both[1]}" if form == "parallel" else file("a.tsv", tsv(pairs))
    alignment = file(f"gold{packed}", "0-0 1-1\n\n\n1-0\n")
    examples, _ = read(spec, alignment=str(alignment))
    assert [set(one.links) for one in examples] == [{(0, 0), (1, 0), (3, 2), (3, 3)}, set(), {(2, 0)}]
    held, _ = read(spec, split="validation", validation=str(spec), alignment=str(alignment))
    assert [one.links for one in held] == [None] * 4


@pytest.mark.parametrize(("split", "used"), [("validation", "validation"), ("test", "validation"), ("test", "test")])
def test_every_split_may_have_alignments_with_sure_and_possible_links(file, split, used):
    pairs, alignment = file("a.tsv", "a b\tc d\na\tb\n"), file("gold", "0-0 1p1 0p0\n\n")
    examples, _ = read(pairs, split=split, **{used: str(pairs), f"{used}_alignment": str(alignment)})
    assert examples[0].links.words.tolist() == [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1]]
    assert examples[0].links.sure.tolist() == [True, False, False]
    assert list(examples[1].links) == []
    short = file("short", "0-0\n")
    message = refusal(pairs, split=split, **{used: str(pairs), f"{used}_alignment": str(short)})
    assert message.startswith(f"{short} has 1 lines, data.{used}={pairs} has 2; one line per pair is wanted")


@pytest.mark.parametrize("form", ["parallel", "tsv"])
def test_a_skipped_pair_skips_its_line_of_the_alignment_file(tmp_path, file, form):
    (tmp_path / "a.tsv").write_bytes(b"a b\tx\n\xff b\ty\nc d\tz\n\xff\tz\n")
    (tmp_path / "a.txt").write_bytes(b"a b\n\xff b\nc d\n\xff\n")
    target = file("b.txt", "x\ny\nz\nz\n")
    spec = f"{tmp_path / 'a.txt'},{target}" if form == "parallel" else tmp_path / "a.tsv"
    alignment = file("gold", "0-0\n9-9\n1-0\n\n")  # the words of a skipped line are not counted
    examples, _ = read(spec, alignment=str(alignment), encoding_errors="skip")
    assert [list(one.links) for one in examples] == [[(0, 0)], [(2, 0)]]


@pytest.mark.parametrize(
    ("line", "pair"), [("0-0 2-0", "2-0"), ("0-1", "0-1"), ("-1-0", "-1-0"), ("0-0-0", "0-0-0"), ("0 0", "0")]
)
def test_links_between_missing_words_are_refused_with_file_and_line(file, line, pair):
    alignment = file("gold", f"\n{line}\n")
    text = f"{alignment}:2: alignment '{pair}' is no i-j (sure) or ipj (possible) inside 2 and 1 words."
    assert refusal(file("a.tsv", "a b\tc\na b\tc\n"), alignment=str(alignment)) == text


@pytest.mark.parametrize("lines", [1, 3])
def test_an_alignment_file_of_another_length_is_refused(file, lines):
    alignment, pairs = file("gold", "5-5\n" * lines), file("a.tsv", "a\tb\nc\td\n")
    assert refusal(pairs, alignment=str(alignment)) == (
        f"{alignment} has {lines} lines, data.train={pairs} has 2; one line per pair is wanted, an empty one where "
        "nothing is aligned."
    )


def test_an_alignment_file_needs_tsv_or_parallel_files(file):
    for spec in ("task:copy", file("a.jsonl", '{"source": "a", "target": "b"}\n')):
        assert refusal(spec, alignment="gold") == (
            f"data.alignment=gold goes with a TSV file or two parallel ones, not with data.train={spec}; leave it "
            "empty. Synthetic tasks know their alignment, JSON lines have the field 'alignment'."
        )
    text = "no file none; give the path of a text file (plain or .gz)."
    assert refusal(file("a.tsv", "a\tb\n"), error=FileNotFoundError, alignment="none") == text


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    missing = tmp_path / "none.tsv"
    text = f"no file {missing}; give the path of a text file (plain or .gz)."
    assert refusal(missing, error=FileNotFoundError) == text
    assert refusal(f"{missing},{missing}", error=FileNotFoundError) == text
    assert refusal(tmp_path) == f"{tmp_path} is a directory; a text file is wanted."


@pytest.mark.parametrize("spec", ["a,b,", "a,", ",b"])
def test_other_numbers_of_parallel_files_are_refused(spec):
    assert refusal(spec) == f"two parallel files are wanted as A,B, got {spec!r}."


# --- parallel files of different length -------------------------------------------------------------------------------


def sentences(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    return ["x" * length for length in rng.integers(5, 80, count)]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(("place", "extra"), [(1, 1), (40, 1), (120, 7), (200, 1)])
def test_the_first_probable_shift_is_named(file, side, place, extra):
    """Both counts are named, and the line from which an offset fits better."""
    sides = [sentences(200), [line * 2 for line in sentences(200)]]
    del sides[side][place - 1 : place - 1 + extra]
    paths = [file(f"{number}.txt", "".join(f"{line}\n" for line in lines)) for number, lines in enumerate(sides)]
    counts = [len(lines) for lines in sides]
    text = refusal(f"{paths[0]},{paths[1]}")
    head = f"{paths[0]} has {counts[0]} lines, {paths[1]} has {counts[1]}; the shift probably starts near line "
    tail = "; make them the same length."
    assert text.startswith(head)
    assert text.endswith(tail)
    assert int(text.removeprefix(head).removesuffix(tail)) == pytest.approx(place, abs=1)


def test_the_shift_starts_at_an_extra_blank_line(file):
    left = file("a.txt", "x\n" * 9 + "\n" + "x\n" * 5)
    right = file("b.txt", "y\n" * 14)
    assert "has 15 lines" in (text := refusal(f"{left},{right}"))
    assert "near line 10;" in text


def test_a_file_that_was_split_at_u_2028_is_recognized(file):
    """Python's splitlines has split one side, the other still has the character."""
    left = file("a.txt", "ein\nzwei\ndrei\nvier\n")
    right = file("b.txt", "one\ntwo\u2028three\nfour\n")
    assert refusal(f"{left},{right}") == (
        f"{left} has 4 lines, {right} has 3; from line 2 on, one was probably split elsewhere at U+2028 or the like; "
        "here only \\n ends a line; make them the same length."
    )


def test_an_empty_file_beside_a_full_one_is_refused(file):
    left, right = file("a.txt", ""), file("b.txt", "y\n")
    assert f"{left} has 0 lines, {right} has 1; the shift probably starts near line 1;" in refusal(f"{left},{right}")


# --- policies ---------------------------------------------------------------------------------------------------------

ODD = [
    Example("a", "b"),
    Example("", "b"),
    Example("a", "\u00a0\u200b"),
    Example(" ", ""),
    Example("a\0c", "b"),
    Example("a", "b\x1b[1m"),
    Example("a\u2028\u200b", "\u0085b"),
]


def test_blank_sides_drop_the_pair_and_are_reported(file):
    """All pairs after an empty line are read."""
    path = file("a.tsv", tsv(ODD))
    examples, report = read(path)
    assert examples == [ODD[0], ODD[6]]
    assert (report.read, report.kept) == (7, 2)
    assert report.places == {
        "blank source, pair dropped": [f"{path}:2"],
        "blank target, pair dropped": [f"{path}:3"],
        "blank source and target, pair dropped": [f"{path}:4"],
        "control characters, pair dropped": [f"{path}:5", f"{path}:6"],
    }


def test_blank_sides_and_control_characters_are_kept_by_policy_and_reported(file):
    examples, report = read(file("a.tsv", tsv(ODD)), blank_lines="keep", control_characters="keep")
    assert examples == ODD
    assert report.kept == 7
    assert report.counts == {
        "blank source, pair kept": 1,
        "blank target, pair kept": 1,
        "blank source and target, pair kept": 1,
        "control characters, pair kept": 2,
    }


def test_a_blank_side_is_an_error_by_policy(file):
    path = file("a.tsv", tsv(ODD))
    assert refusal(path, blank_lines="error") == f"{path}:2: blank source; set data.blank_lines=drop or keep to go on."


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("empty", ["drop", "error"])
def test_validation_and_test_pairs_are_never_filtered(file, split, empty):
    path = file("a.tsv", tsv(ODD))
    examples, report = read("task:copy", split=split, blank_lines=empty, **{split: str(path)})
    assert examples == ODD
    assert (report.read, report.kept, report.counts) == (7, 7, {})


@pytest.mark.parametrize("form", ["parallel", "tsv", "jsonl"])
def test_a_line_that_is_not_utf_8_is_treated_by_policy_and_files_stay_parallel(tmp_path, form):
    sources, targets = [b"a", b"b\xff", b"c"], [b"A", b"B", b"C"]
    pairs = list(zip(sources, targets, strict=True))
    if form == "parallel":
        paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
        for path, lines in zip(paths, (sources, targets), strict=True):
            path.write_bytes(b"\n".join(lines) + b"\n")
        spec = f"{paths[0]},{paths[1]}"
    else:
        spec = str(tmp_path / f"a.{form}")
        pattern = b"%s\t%s" if form == "tsv" else b'{"source": "%s", "target": "%s"}'
        (tmp_path / f"a.{form}").write_bytes(b"\n".join(pattern % pair for pair in pairs))
    assert re.search(r":2: byte \d+ is not UTF-8", refusal(spec))
    skipped, report = read(spec, encoding_errors="skip")
    assert [tuple(one[:2]) for one in skipped] == [("a", "A"), ("c", "C")]
    assert report.counts == {"line that is not UTF-8 (skip)": 1}
    replaced, _ = read(spec, encoding_errors="replace")
    assert [one.source for one in replaced] == ["a", "b\ufffd", "c"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "0 of 0 pairs left: it is empty."),
        ("\tb\n\0\tb\n\tc\n", "0 of 3 pairs left: 2 x blank source, pair dropped ({0}:1, {0}:3); 1 x control "
        "characters, pair dropped ({0}:2)."),
    ],
)  # fmt: skip
def test_a_split_without_usable_pairs_is_refused_with_the_reasons(file, text, reason):
    path = file("a.tsv", text)
    assert refusal(path) == f"data.train={path}: {reason.format(path)}"
    nothing = file("empty.tsv", "")
    text = refusal("task:copy", split="validation", validation=str(nothing))
    assert text == f"data.validation={nothing}: 0 of 0 pairs left: it is empty."


@pytest.mark.parametrize("form", ["tsv", "parallel"])
def test_a_megabyte_in_one_line_without_an_end_is_a_pair(file, form):
    pair = Example("ein " * (1 << 18), "one")
    both = [file("a.txt", pair.source), file("b.txt", pair.target)]
    spec = file("a.tsv", tsv([pair])[:-1]) if form == "tsv" else f"{both[0]},{both[1]}"
    assert read(spec)[0] == [pair]


# --- lengths: the part that `prepare` does ------------------------------------------------------------------------


@pytest.fixture
def lengths(file, tmp_path):
    """Prepares a run with 20 training pairs, of which `long` have 9 words, and 3 validation pairs, one of 9 words."""

    def prepared(*changes, long: int = 1):
        pairs = [Example("a b", "a b")] * (20 - long) + [Example(" ".join("abcabcabc"), "a")] * long
        train = file("train.tsv", tsv(pairs))
        held = file("held.tsv", tsv([Example("z", ""), Example(" ".join("abcabcabc"), "a"), Example("a", "b")]))
        files = (f"data.train={train}", f"data.validation={held}", "data.lengths=[0, 0]")
        (tmp_path / "run").mkdir()
        printed = []
        inputs = tiny.prepare(tiny.experiment(*files, *changes), tmp_path / "run", printed.append)
        return types.SimpleNamespace(**inputs._asdict(), printed=printed)

    return prepared


@pytest.mark.parametrize(("policy", "kept"), [("error", 19), ("drop", 19), ("truncate", 20)])
def test_over_long_training_pairs_are_dropped_or_truncated_and_reported(lengths, tmp_path, policy, kept):
    prepared = lengths("data.max_length=4", f"data.too_long={policy}")
    assert len(prepared.training.sources) == kept
    assert prepared.training.lengths().max() == (5 if policy == "truncate" else 3)  # EOS counts one
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())["train"]
    assert (report["read"], report["kept"]) == (20, kept)
    reason = f"longer than data.max_length=4, pair {'truncated' if policy == 'truncate' else 'dropped'}"
    assert report["counts"] == {reason: 1}
    assert report["places"] == {reason: [f"{tmp_path / 'train.tsv'}:20"]}
    assert f"training data: {kept} of 20 pairs kept" in prepared.printed
    assert f"training data: 1 x {reason} ({tmp_path / 'train.tsv'}:20)" in prepared.printed


def test_more_than_a_few_over_long_training_pairs_are_refused(lengths):
    with pytest.raises(ValueError, match=r"data.max_length=4 would drop 10% of the training pairs; raise it, or set"):
        lengths("data.max_length=4", long=2)


def test_over_long_and_empty_validation_pairs_are_kept_and_have_a_bucket(lengths):
    prepared = lengths("data.max_length=4")
    plan = BatchPlan(encode(prepared.data.validation, prepared.tokenizers), tiny.experiment().batch, seed=0)
    batches = list(plan.in_order())
    assert sum(int(batch.source.any(1).sum()) for batch in batches) == 3
    assert max(batch.source.shape[1] for batch in batches) == 10


def test_a_place_is_named_after_earlier_pairs_were_dropped(file, tmp_path):
    train = file("train.tsv", "\tblank\na\tb\n\0\tcontrol\na a a a\tb\n")
    (tmp_path / "run").mkdir()
    files = (f"data.train={train}", f"data.validation={train}", "data.lengths=[0, 0]")
    tiny.prepare(tiny.experiment(*files, "data.max_length=3", "data.too_long=drop"), tmp_path / "run", print)
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())["train"]
    assert report["places"]["longer than data.max_length=3, pair dropped"] == [f"{train}:4"]
    assert (report["read"], report["kept"]) == (4, 1)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_pair_too_long_for_any_batch_is_refused_before_training(file, tmp_path, split):
    """Rows 14 and 16 of the faults: it would end training hours later, at the first validation."""
    long = f"{split}.tsv"
    paths = {name: file(f"{name}.tsv", "a\tb\na\tb\n") for name in ("train", "validation")}
    paths[split] = file(long, "a\tb\n\tb\n" + "a " * 600_000 + "\tb\na\t" + "b " * 20_000 + "\n")
    files = (f"data.train={paths['train']}", f"data.validation={paths['validation']}", "data.lengths=[0, 0]")
    with pytest.raises(ValueError) as refused:
        tiny.prepare(tiny.experiment(*files), tmp_path, print)
    assert str(refused.value).startswith(
        f"{paths[split]}:3: a pair of 600,001 and 2 tokens (and 1 more), over the 16,384 positions of batch.tokens; "
        "split or remove it, or raise batch.tokens, which takes memory"
    )
    assert str(refused.value).endswith("set data.max_length and data.too_long." if split == "train" else "memory.")


def test_suspicious_pairs_are_reported_as_shares_in_one_line(file, tmp_path):
    """Row 27 of the faults."""
    train = file("train.tsv", f"a\tb\na\tb\nc\tc\nd\t{'e ' * 20}\nx\ty\n")
    held, test = file("held.tsv", "a\tb\na\tz\nq\tr\ns\tt\n"), file("test.tsv", "u\tv\n")
    (tmp_path / "run").mkdir()
    files = (f"data.train={train}", f"data.validation={held}", f"data.test={test}", "data.lengths=[0, 0]")
    printed = []
    tiny.prepare(tiny.experiment(*files), tmp_path / "run", printed.append)
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert report["train"]["shares"] == pytest.approx(
        {"duplicates": 0.2, "with source = target": 0.2, "with one side over 9 times as long": 0.2}
    )
    overlap = {"of the pairs in the training data": 0.25, "of the sources in the training data": 0.5}
    assert report["validation"]["shares"] == overlap
    assert report["test"]["shares"] == dict.fromkeys(overlap, 0.0)
    assert printed == [
        "training data: 5 pairs read",
        "training data: 5 of 5 pairs kept",
        "training data: 20.00% duplicates, 20.00% with source = target, 20.00% with one side over 9 times as long",
        "validation data: 4 of 4 pairs kept",
        "validation data: 25.00% of the pairs in the training data, 50.00% of the sources in the training data",
        "test data: 1 of 1 pairs kept",
    ]


def test_the_empty_sources_of_a_language_model_are_not_suspicious(file):
    lines = file("lines.txt", f"{'a' * 90}\n{'b' * 90}\n")
    data = read_data(DataConfig(train=f"lines:{lines}", validation=f"lines:{lines}"), print, links=False)
    assert set(data.reports["train"].shares.values()) == {0.0}
    overlap = {"of the pairs in the training data": 1.0, "of the sources in the training data": 0.0}
    assert data.reports["validation"].shares == overlap


def test_places_of_many_pairs_are_those_that_were_added():
    places, added = Places(), ["a.tsv:1", "a.tsv:20", "b:c:3", "odd", "odd:x", "a:07", "a:-1", "a.tsv:3", ""]
    for place in added:
        places.append(place)
    assert [places[index] for index in range(len(places))] == added


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        ({"train": "a.tsv", "validation": "b.tsv"}, "validation"),
        ({"train": "a.tsv", "validation": "b.tsv", "test": "c.tsv"}, "test"),
        ({"train": "task:copy", "validation": "b.tsv"}, "test"),
        ({"train": "a.tsv"}, "test"),
    ],
)
def test_the_split_that_stands_for_a_missing_test_split_is_named(settings, used):
    assert DataConfig(**settings).split_used("test") == used


def test_vocabularies_come_from_training_lines_alone(lengths):
    prepared = lengths()
    assert prepared.tokenizers.source.vocabulary == ["a", "b", "c"]  # no "z"
    assert prepared.tokenizers.target.vocabulary == ["a", "b"]


# --- synthetic tasks and TFDS -----------------------------------------------------------------------------------------


def test_a_task_gets_its_sizes_seed_and_lengths_from_the_config():
    config = DataConfig(train="task:copy", train_size=30, eval_size=7, seed=5, lengths=(3, 4))
    expected = synthetic_tasks.make_examples(
        "copy", split="train", count=30, seed=5, minimum_length=3, maximum_length=4
    )
    assert read_split(config, "train")[0] == expected
    for split in ("validation", "test"):
        expected = synthetic_tasks.make_examples(
            "copy", split=split, count=7, seed=5, minimum_length=3, maximum_length=4
        )
        assert read_split(config, split)[0] == expected


@pytest.mark.parametrize(
    ("lengths", "found"), [((0, 0), (1, 10)), ((0, 3), (1, 3)), ((9, 0), (9, 10)), ((2, 12), (2, 12))]
)
def test_lengths_of_zero_are_the_tasks_own(lengths, found):
    examples, _ = read("task:reverse", train_size=300, lengths=lengths)
    words = [len(one.source.split()) for one in examples]
    assert (min(words), max(words)) == found
    assert all(one.links for one in examples)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"train": "task:copi"},
            f"task must be one of {TASK_NAMES}, got 'copi'; did you mean",
        ),
        ({"train": "task:copy", "lengths": (5, 3)}, "the lengths are data.lengths"),
        ({"train": "task:copy", "lengths": (-1, 3)}, "minimum_length must be positive, got -1"),
        ({"train": "task:copy", "lengths": (1, 1), "train_size": 500}, "count is data.train_size, the"),
        ({"train": "task:copy", "lengths": (1, 1), "split": "test"}, "count is data.eval_size, the"),
        ({"train": "task:dates", "lengths": (1, 1)}, "task 'dates' has no maximum_length, got 1; leave it out"),
    ],
)
def test_impossible_settings_of_a_task_are_refused_by_name(settings, message):
    assert message in refusal(**settings)


def test_a_tfds_source_is_read_with_its_folders(monkeypatch):
    calls = []

    def reader(spec, **options):
        calls.append((spec, options))
        return [Example("a", ""), Example("a", "b")]

    monkeypatch.setattr(tfds, "read_dataset", reader)
    folders = {"directory": "/sets", "manual_dir": "/mine"}
    examples, report = read("tfds:scan/length@train[:9]", source="in", target="out", **folders)
    assert examples == [Example("a", "b")]
    assert report.places == {"blank target, pair dropped": ["tfds:scan/length@train[:9]@train:1"]}
    read("tfds:scan/length@train[:9]", split="test")
    empty = {"source": "", "target": "", "data_directory": "", "manual_directory": ""}
    given = {"source": "in", "target": "out", "data_directory": "/sets", "manual_directory": "/mine"}
    assert calls == [
        ("tfds:scan/length@train[:9]", {"split": "train", **given}),
        ("tfds:scan/length", {"split": "test", **empty}),
    ]


# --- a source of the user's own ---------------------------------------------------------------------------------------


def read_quiz(name, split, config, report):
    """Two questions, one line that is skipped, and one without an answer."""
    report.add("seen by the reader", f"{name}:1")
    for number, answer in enumerate([f"{split} {config.seed}", None, "", "b"], 1):
        yield None if answer is None else (Example(f"question {number}", answer), f"quiz:{name}:{number}")


def test_a_source_of_your_own_is_one_entry_of_the_table(monkeypatch):
    monkeypatch.setitem(SOURCES, "quiz:", read_quiz)
    config = DataConfig(train="quiz:easy@1", seed=3)
    assert [config.spec(split) for split in ("train", "validation", "test")] == ["quiz:easy@1"] * 3
    examples, report = read_split(config, "train")
    assert examples == [Example("question 1", "train 3"), Example("question 4", "b")]
    assert (report.read, report.kept) == (3, 2)
    assert report.places == {
        "seen by the reader": ["easy@1:1"],
        "blank target, pair dropped": ["quiz:easy@1:3"],
    }
    assert [one.target for one in read_split(config, "test")[0]] == ["test 3", "", "b"]
    assert refusal("quiz:easy", alignment="gold").startswith("data.alignment=gold goes with a TSV file")


def test_an_unknown_source_is_named():
    assert refusal("quiz:easy", error=FileNotFoundError) == (
        "no file quiz:easy, and no source quiz: among task:, tfds:, lines:; a source of your own needs --import FILE."
    )


# --- splits and settings ----------------------------------------------------------------------------------------------


def test_splits_fall_back_on_other_splits():
    files = DataConfig(train="a.tsv", validation="b.tsv")
    assert [files.spec(split) for split in ("train", "validation", "test")] == ["a.tsv", "b.tsv", "b.tsv"]
    task = DataConfig(train="task:copy", test="c.tsv")
    assert [task.spec(split) for split in ("train", "validation", "test")] == ["task:copy", "task:copy", "c.tsv"]
    assert DataConfig(train="tfds:x/y@train[:9]").spec("validation") == "tfds:x/y"
    assert DataConfig(train="tfds:x", validation="tfds:x@train[9:]").spec("validation") == "tfds:x@train[9:]"


@pytest.mark.parametrize(
    ("settings", "split", "message"),
    [
        ({}, "train", "data.train is empty; name a source: task:dates, tfds:NAME, pairs.tsv or a.txt,b.txt."),
        ({"train": "a.tsv"}, "validation", "data.validation is empty; name a file of pairs like data.train=a.tsv."),
        ({"train": "a.tsv"}, "test", "data.test is empty; name a file of pairs like data.train=a.tsv."),
        (
            {"train": "a.tsv"},
            "tests",
            "split must be one of test, train, validation, got 'tests'; did you mean 'test'?",
        ),
        (
            {"blank_lines": "dorp"},
            "train",
            "data.blank_lines must be one of drop, error, keep, got 'dorp'; did you mean 'drop'?",
        ),
        ({"control_characters": "error"}, "train", "data.control_characters must be one of drop, keep, got 'error'."),
        ({"encoding_errors": "ignore"}, "train", "data.encoding_errors must be one of replace, skip, strict, got"),
        ({"too_long": "cut"}, "train", "data.too_long must be one of drop, error, truncate, got 'cut'"),
        ({"train_size": 0}, "train", "data.train_size must be positive, got 0"),
        ({"eval_size": 0}, "train", "data.eval_size must be positive, got 0"),
        ({"max_length": -1}, "train", "data.max_length must be zero or more, got -1"),
    ],
)
def test_impossible_settings_are_refused(settings, split, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        read_split(DataConfig(**settings), split)


def test_heavy_packages_are_imported_only_where_they_are_used():
    """A command that reads no data set and trains nothing does not wait for them."""
    code = (
        "import sys, s2s_jax.text.sources, s2s_jax.text.batches, s2s_jax.text.copy_vocabulary\n"
        "print({'tensorflow_datasets', 'grain', 'array_record', 'sentencepiece', 'babel', 'jax'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
