import contextlib
import gzip
import hashlib
import io
import json
import sys
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager, downloader, extractor
from tensorflow_datasets.testing import mocking

from s2s_jax.text import builders
from s2s_jax.text import tfds as tfds_source
from s2s_jax.text.builders.cmudict_g2p import CmudictG2p
from s2s_jax.text.builders.cogs import Cogs
from s2s_jax.text.builders.scan import SPLIT_FOLDERS, Scan
from s2s_jax.text.builders.small_parallel_enja import SmallParallelEnja
from s2s_jax.text.example import Example

# 41 words; the third has two pronunciations, and so has the 20th, which is held out
WORDS = [f"WORD{number}" for number in range(41)]
CMUDICT = "".join(f"{word}\tW ER D {number}\n" for number, word in enumerate(WORDS))
CMUDICT += "WORD2\tV ER T\nWORD19\tV ER T\n"
COGS = {name: f"{name} slept .\tsleep . agent ( x _ 1 , {name} )\tkind\n" for name in ("train", "dev", "test", "gen")}
SCAN = "".join(f"IN: walk {number} OUT: I_WALK I_{number}\n" for number in range(45))


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test downloads anything, through the builders or through TFDS."""

    def refuse(url, **_):
        raise ConnectionError(f"no network in tests: {url}")

    monkeypatch.setattr(builders, "download", refuse)
    monkeypatch.setattr(downloader, "_open_url", refuse)


def publish(folder, files, *, packed=False):
    """Writes files under their published names and returns their checksums."""
    folder.mkdir(exist_ok=True)
    sums = {}
    for path, content in files.items():
        name, data = path.rsplit("/", 1)[-1], content.encode()
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
        sums[path] = (len(data), hashlib.sha256(data).hexdigest())
    return sums


def reader(tmp_path):
    def read(spec, split="train", **settings):
        folders = {"manual_directory": str(tmp_path / "manual"), "data_directory": str(tmp_path / "data")}
        return list(tfds_source.read_dataset(spec, split=split, **{**folders, **settings}))

    return read


@pytest.fixture
def cogs(tmp_path, monkeypatch):
    files = {f"data/{name}.tsv": content for name, content in COGS.items()}
    monkeypatch.setattr(Cogs, "FILES", publish(tmp_path / "manual", files))
    return reader(tmp_path)


@pytest.fixture
def scan(tmp_path, monkeypatch):
    files = {
        "length_split/tasks_train_length.txt": SCAN,
        "length_split/tasks_test_length.txt": "IN: jump OUT: I_JUMP\n",
    }
    monkeypatch.setattr(Scan, "FILES", publish(tmp_path / "manual", files, packed=True))
    return reader(tmp_path)


def test_cmudict_holds_out_every_20th_word_with_all_its_lines(tmp_path, monkeypatch):
    files = {"g014b2b.train": CMUDICT, "g014b2b.test": "WORT\tV ER T\n"}
    monkeypatch.setattr(CmudictG2p, "FILES", publish(tmp_path / "manual", files))
    read = reader(tmp_path)
    kept = read("tfds:cmudict_g2p")
    assert [example.source for example in kept] == [*(w for w in WORDS if w not in ("WORD19", "WORD39")), "WORD2"]
    assert kept[-1] == Example("WORD2", "V ER T")
    assert read("tfds:cmudict_g2p@validation") == [
        Example("WORD19", "W ER D 19"),
        Example("WORD39", "W ER D 39"),
        Example("WORD19", "V ER T"),
    ]
    assert read("tfds:cmudict_g2p", "test") == [Example("WORT", "V ER T")]


def test_cogs_has_four_splits(cogs):
    for split, name in {"train": "train", "validation": "dev", "test": "test", "gen": "gen"}.items():
        ((source, target, *_),) = cogs("tfds:cogs", split)
        assert (source, target) == (f"{name} slept .", f"sleep . agent ( x _ 1 , {name} )")


def test_a_logical_form_is_aligned_with_the_words_whose_numbers_it_has(cogs, tmp_path):
    (example,) = cogs("tfds:cogs", "test")
    positions = [*range(len("sleep")), example.target.index("1")]
    assert {(example.source[s], t) for s, t in example.links} == {
        (letter, place) for letter in "slept" for place in positions
    }
    builder = Cogs(data_dir=str(tmp_path / "data"))
    form = "* cake ( x _ 12 ) ; like . agent ( x _ 1 , Mila ) AND like . ccomp ( x _ 1 , x _ 0 )"
    assert cogs("tfds:cogs", "test", source="target", target="source")[0].links is None
    assert builder.alignment("Liam and Mila", form) == "12-1 12-5 1-8 1-14 2-16 1-19 1-25 0-29"
    assert builder.alignment("Mila and Mila", form) == "12-1 12-5 1-8 1-14 1-19 1-25 0-29"
    assert builder.alignment("Paula", "Paula") == "0-0"
    assert builder.alignment("touch", "LAMBDA b . LAMBDA e . touch . agent ( e , b )") == ""


def test_scan_holds_out_every_20th_line_and_keeps_file_order(scan):
    rows = [int(example.source.split()[1]) for example in scan("tfds:scan/length")]
    assert rows == [row for row in range(45) if row not in (19, 39)]
    assert scan("tfds:scan/length", "validation") == [
        Example("walk 19", "I_WALK I_19"),
        Example("walk 39", "I_WALK I_39"),
    ]
    assert scan("tfds:scan/length", "test") == [Example("jump", "I_JUMP")]
    assert len(scan("tfds:scan/length@train[:10]", "test")) == 10
    assert len(scan("tfds:scan/length:2.0.0@train+validation")) == 45
    assert "tensorflow" not in sys.modules


def test_parallel_files_are_read_in_both_directions(tmp_path, monkeypatch):
    names = ("train", "dev", "test")
    files = {f"{name}.{side}": f"{name} {side} 1\n{name} {side} 2\n" for name in names for side in ("ja", "en")}
    monkeypatch.setattr(SmallParallelEnja, "FILES", publish(tmp_path / "manual", files))
    read = reader(tmp_path)
    assert read("tfds:small_parallel_enja/ja-en") == [Example(f"train ja {row}", f"train en {row}") for row in (1, 2)]
    assert read("tfds:small_parallel_enja/en-ja", "validation")[1] == Example("dev en 2", "dev ja 2")
    with pytest.raises(ValueError, match="name one"):
        read("tfds:small_parallel_enja")


def test_a_prepared_data_set_does_not_need_its_files(scan):
    first = scan("tfds:scan/length", "test")
    assert scan("tfds:scan/length", "test", manual_directory="") == first


def test_data_that_another_process_prepared_is_read(scan, monkeypatch):
    prepare = Scan.download_and_prepare

    def late(self, **settings):
        prepare(self, **settings)
        raise OSError("Directory not empty")

    monkeypatch.setattr(Scan, "download_and_prepare", late)
    assert scan("tfds:scan/length", "test") == [Example("jump", "I_JUMP")]


def test_a_downloaded_data_set_can_be_prepared_by_its_builder_alone(tmp_path, monkeypatch):
    files = {f"data/{name}.tsv": content for name, content in COGS.items()}
    monkeypatch.setattr(Cogs, "FILES", publish(tmp_path / "elsewhere", files))
    monkeypatch.setattr(builders, "download", lambda url: files[url.removeprefix(Cogs.ROOT)].encode())
    builder = Cogs(data_dir=str(tmp_path / "data"))
    builder.download_and_prepare()
    record = builder.as_data_source("gen")[0]
    assert record == {"source": b"gen slept .", "target": b"sleep . agent ( x _ 1 , gen )"}


@pytest.mark.parametrize("config", sorted(SPLIT_FOLDERS))
def test_every_scan_configuration_has_its_checksums(config, tmp_path):
    paths = Scan(config=config, data_dir=str(tmp_path)).published()
    assert sorted(paths) == ["test", "train"]
    assert {path for files in paths.values() for path in files} <= set(Scan.FILES)


def test_checksums_are_well_formed_and_addresses_name_a_commit():
    for builder in tfds_source.OWN_BUILDERS:
        assert builder.ROOT.startswith("https://raw.githubusercontent.com/")
        assert any(len(part) == 40 for part in builder.ROOT.split("/"))
        assert all(size > 0 and len(bytes.fromhex(digest)) == 32 for size, digest in builder.FILES.values())


def test_a_changed_file_is_refused_by_name(cogs, tmp_path):
    path = tmp_path / "manual" / "gen.tsv"
    path.write_text("changed")
    got, wanted = hashlib.sha256(b"changed").hexdigest(), Cogs.FILES["data/gen.tsv"]
    with pytest.raises(ValueError, match="this is not the file") as caught:
        cogs("tfds:cogs")
    assert str(caught.value) == (
        f"{path}: wanted {wanted[0]} bytes with SHA-256 {wanted[1]}, got 7 bytes with SHA-256 {got}; this is not the "
        "file that was published, download it again"
    )
    assert not (tmp_path / "data" / "cogs" / "1.0.0").exists()


def test_a_changed_download_is_refused_by_address(scan, tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "download", lambda _: b"404: Not Found")
    with pytest.raises(ValueError, match=r"^https://raw\S+/length_split/tasks_train_length.txt: wanted \d+ bytes"):
        scan("tfds:scan/length", manual_directory="")


def test_a_broken_gzip_file_is_named(scan, tmp_path):
    path = tmp_path / "manual" / "tasks_test_length.txt.gz"
    path.write_bytes(b"not gzip")
    with pytest.raises(ValueError, match=r"tasks_test_length.txt.gz: wanted a gzip file .*, or put it there unpacked"):
        scan("tfds:scan/length")


def test_without_a_network_the_error_names_the_files_and_the_flag(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        list(tfds_source.read_dataset("tfds:cogs", split="train", data_directory=str(tmp_path)))
    address = (
        "https://raw.githubusercontent.com/najoungkim/COGS/165a7b669eade971fa47bf568a2e51925360fed8/data/train.tsv"
    )
    assert str(caught.value) == (
        f"tfds:cogs: could not download {address} (no network in tests: {address}); without a network, put dev.tsv, "
        "gen.tsv, test.tsv, train.tsv (plain or .gz) in a folder and name it with --data.manual-dir DIR"
    )


def test_without_a_network_a_data_set_of_tfds_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        list(tfds_source.read_dataset("tfds:ted_hrlr_translate/pt_to_en", split="train", data_directory=str(tmp_path)))
    assert str(caught.value) == (
        f"tfds:ted_hrlr_translate/pt_to_en is not in {tmp_path}/ted_hrlr_translate/pt_to_en/1.0.0 and cannot be "
        "downloaded (no network in tests: http://www.phontron.com/data/qi18naacl-dataset.tar.gz); copy that folder "
        "from a machine where it was prepared, or put the published files in a folder: --data.manual-dir DIR"
    )


def ted_archive():
    """An archive laid out as that of the TED talks, with one pair per split."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for split in ("train", "dev", "test"):
            for language, line in (("pt", f"olá {split}"), ("en", f"hello {split}")):
                member = tarfile.TarInfo(f"datasets/pt_to_en/pt_to_en.{split}".replace("pt_to_en.", f"{language}."))
                member.size = len(line.encode())
                archive.addfile(member, io.BytesIO(line.encode()))
    return buffer.getvalue()


@pytest.fixture
def ted(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def serve(url, **_):
        yield SimpleNamespace(headers={}, url=url), [ted_archive()]

    monkeypatch.setattr(downloader, "_open_url", serve)
    monkeypatch.setattr(download_manager.DownloadManager, "_register_or_validate_checksums", lambda *_, **__: None)
    spec, folder = "tfds:ted_hrlr_translate/pt_to_en", str(tmp_path)
    return lambda split: list(tfds_source.read_dataset(spec, split=split, data_directory=folder))


def test_a_data_set_of_tfds_is_unpacked_and_prepared_without_tensorflow(ted):
    before = extractor.tf, downloader.MAX_RETRIES
    assert ted(split="test") == [Example("olá test", "hello test")]
    assert (extractor.tf, downloader.MAX_RETRIES) == before
    assert "tensorflow" not in sys.modules


def test_records_that_only_tensorflow_reads_are_refused(ted, tmp_path):
    ted(split="test")
    path = tmp_path / "ted_hrlr_translate" / "pt_to_en" / "1.0.0" / "dataset_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match=r"without random access; name another folder with --data.directory DIR"):
        ted(split="test")


@pytest.mark.parametrize(
    ("spec", "languages"),
    [
        ("tfds:wmt14_translate/de-en", ("de", "en")),
        ("tfds:wmt16_translate/ro-en", ("ro", "en")),
        ("tfds:ted_hrlr_translate/pt_to_en", ("pt", "en")),
        ("tfds:ted_hrlr_translate/aztr_to_en", ("az_tr", "en")),
    ],
)
def test_translations_of_tfds(spec, languages, tmp_path, monkeypatch):
    # TFDS 4.9.10 gives its mocked sources a __getitems__ that wants a `self` which it never gets
    monkeypatch.setattr(mocking, "_getitems", lambda keys, generator: [generator[key] for key in keys])
    source, target = languages

    def read(**names):
        return list(tfds_source.read_dataset(spec, split="train", data_directory=str(tmp_path), **names))

    with tfds.testing.mock_data(num_examples=3, policy=tfds.testing.MockPolicy.USE_CODE):
        examples = read()
        assert examples == read(source=source, target=target)
        backwards = read(source=target, target=source)
    assert len(examples) == 3
    assert all(example.source != example.target for example in examples)
    assert [(example.target, example.source) for example in examples] == [(e.source, e.target) for e in backwards]


def test_supervised_keys_are_source_and_target(tmp_path):
    builder = tfds.builder("gigaword", data_dir=str(tmp_path))
    assert tfds_source.text_features(builder, spec=tfds_source.parse_spec("tfds:gigaword"), source="", target="") == (
        "document",
        "summary",
    )


def with_features(folder, **kinds):
    class Custom(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(kinds))

        def _split_generators(self, dl_manager):
            raise NotImplementedError

        def _generate_examples(self):
            raise NotImplementedError

    return Custom(data_dir=str(folder))


def test_two_texts_are_source_and_target_and_three_are_refused(tmp_path):
    text, spec = tfds.features.Text(), tfds_source.parse_spec("tfds:custom")
    builder = with_features(tmp_path, question=text, answer=text, row=tfds.features.Scalar(np.int32))
    assert tfds_source.text_features(builder, spec=spec, source="", target="") == ("question", "answer")
    builder = with_features(tmp_path, question=text, answer=text, title=text)
    with pytest.raises(
        ValueError, match=r"custom does not say what is source .* name both, its texts: answer, question, title$"
    ):
        tfds_source.text_features(builder, spec=spec, source="", target="")
    with pytest.raises(ValueError, match="name both source and target, or neither; its texts: answer, question, title"):
        tfds_source.text_features(builder, spec=spec, source="title", target="")
    with pytest.raises(
        ValueError, match=r"target 'titel' is not one of its texts; did you mean 'title'\?; it has: answer"
    ):
        tfds_source.text_features(builder, spec=spec, source="answer", target="titel")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "scan/length",
            r"^'scan/length' does not name a TensorFlow data set; wanted tfds:NAME\[/CONFIG\]\[:VERSION\]\[@SPLIT\]",
        ),
        ("tfds:scan/length@", "wanted tfds:NAME"),
        ("tfds:scam/length", r"^no data set 'scam'; did you mean 'scan'"),
        (
            "tfds:scan/lenght",
            r"^tfds:scan has no configuration 'lenght'; did you mean 'length'\?; it has simple, length",
        ),
        ("tfds:scan", r"^tfds:scan has several configurations, name one \(tfds:scan/simple\): simple, length"),
        ("tfds:scan/length:9.9.9", "^tfds:scan/length:9.9.9: .*cannot be loaded at version 9.9.9"),
        ("tfds:scan/length@dev", r"^tfds:scan/length has no split 'dev'; it has: test, train, validation$"),
        ("tfds:scan/length@train+tset", r"no split 'tset'; did you mean 'test'\?; it has: test, train, validation$"),
        ("tfds:scan/length@train[:9", r"^tfds:scan/length: split 'train\[:9' cannot be parsed: "),
    ],
)
def test_typing_errors_are_answered_in_one_line(spec, message, scan):
    with pytest.raises(ValueError, match=message) as caught:
        scan(spec)
    assert "\n" not in str(caught.value)


def test_a_missing_manual_directory_is_named():
    with pytest.raises(FileNotFoundError, match=r"--data.manual-dir /none/such: no such folder; create it"):
        list(tfds_source.read_dataset("tfds:cogs", split="train", manual_directory="/none/such"))


def test_missing_packages_of_a_data_set_are_named(scan, monkeypatch):
    def wants_beam(self, **_):
        raise ModuleNotFoundError("No module named 'apache_beam'")

    monkeypatch.setattr(Scan, "download_and_prepare", wants_beam)
    with pytest.raises(ValueError, match=r"cannot be prepared here, its code in TFDS needs more: .*apache_beam"):
        scan("tfds:scan/length")


def test_bytes_are_decoded_strictly():
    assert tfds_source.decode_text("olá".encode(), place="here") == "olá"
    with pytest.raises(ValueError, match=r"^tfds:x, record 3: wanted UTF-8, got invalid start byte at byte 1$"):
        tfds_source.decode_text(b"a\xff", place="tfds:x, record 3")


def test_lines_end_at_line_feeds_only():
    assert builders.utf8_lines("a\u2028b\r\nc\x85\n".encode()) == ["a\u2028b\r", "c\x85"]
