"""The names of `import s2s_jax as s2s`; the user's own code: what it adds, what runs record, what loading refuses."""

import ast
import contextlib
import io
import pydoc
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import tiny
from rich.console import Console

import s2s_jax as s2s
from s2s_jax import imports
from s2s_jax.config import override
from s2s_jax.run.run_dir import read_experiment, read_json

QUIET = Console(quiet=True)
SCORE = """
import sibling
from s2s_jax.model.attention.scores import SCORES
from s2s_jax.model.attention.scores.content import Dot

class Mine(Dot):
    \"\"\"The dot product under another name.\"\"\"

SCORES[sibling.NAME] = Mine
"""


def python(code: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, cwd=folder
    )


def test_the_public_names_are_those_that_editors_see():
    tree = ast.parse(Path(s2s.__file__).with_suffix(".pyi").read_text())
    imported = {alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert dir(s2s) == sorted(s2s.__all__) == sorted([*imported, "__version__"])
    assert set(imports.TABLES) <= imported
    for name in s2s.__all__:
        assert getattr(s2s, name) is not None
    for name, module in imports.TABLES.items():
        assert s2s._HOMES[name] == module
    page = pydoc.render_doc(s2s, renderer=pydoc.plaintext)
    for name in ("class Experiment", "train(", "override(", "SCORES ="):
        assert name in page
    with pytest.raises(AttributeError, match="module 's2s_jax' has no attribute 'lood'"):
        _ = s2s.lood


def test_train_is_the_function_whatever_was_imported_before(tmp_path):
    code = "import s2s_jax.training.loop, s2s_jax as s2s, inspect; print(*inspect.signature(s2s.train).parameters)"
    done = python(code, tmp_path)
    assert done.stdout.startswith("experiment directory"), done.stderr


def test_a_run_is_trained_without_a_console_and_fits_one_line(tmp_path):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        trained = s2s.train(tiny.experiment("steps=1"), str(tmp_path / "run"))
    assert "parameters" in output.getvalue()
    assert repr(trained) == f"<Run {tmp_path / 'run'}: step 1, 13,982 parameters>"
    assert isinstance(trained, s2s.Run)


def test_loading_changes_nothing_of_the_process(tmp_path, monkeypatch):
    s2s.train(tiny.experiment("steps=1"), tmp_path / "run", QUIET)
    changed = []
    monkeypatch.setattr(jax.config, "update", lambda *change: changed.append(change))
    monkeypatch.setattr("ctypes.CDLL", lambda *name: changed.append(name))
    s2s.load(tmp_path / "run").translate(["a b"])
    assert changed == []


@pytest.fixture
def own_score(tmp_path):
    (tmp_path / "sibling.py").write_text("NAME = 'mine'\n")
    (tmp_path / "own_score.py").write_text(SCORE)
    path = str(tmp_path / "own_score.py")
    before = list(sys.path)
    _forget_modules()  # those of another test's files
    yield path
    s2s.SCORES.pop("mine", None)
    imports.LOADED.pop(path, None)
    sys.path[:] = before
    _forget_modules()


def _forget_modules():
    for name in ("own_score", "sibling"):
        sys.modules.pop(name, None)


def test_own_code_is_recorded_by_name_and_never_run_by_loading(own_score, tmp_path):
    assert imports.extends_tables(own_score)
    experiment = override(tiny.experiment("steps=1", "model.decoder.size=32"), "model.attention.score=mine")
    experiment = s2s.with_settings(experiment, {"imports": [own_score]})
    trained = s2s.train(experiment, tmp_path / "run", QUIET)
    assert read_json(tmp_path / "run" / "config.json")["imports"] == [own_score]
    (expected,) = (one.text for one in trained.translate(["a b c"]))
    load = f"import s2s_jax as s2s\n{{}}\nprint(s2s.load({str(tmp_path / 'run')!r}).translate(['a b c'])[0].text)"
    for given in (f"s2s.import_code([{own_score!r}])", "import own_score"):
        done = python(load.format(given), tmp_path)
        assert done.stdout == expected + "\n", done.stderr
    done = python(load.format(""), tmp_path)
    assert done.stderr.splitlines()[-1] == (
        f"ValueError: {tmp_path / 'run'} needs code of yours, which loading a run does not execute; "
        f"give --import {own_score}."
    )


def test_a_name_that_no_table_has_is_answered_with_the_flag(own_score, tmp_path):
    s2s.import_code([own_score])
    s2s.train(tiny.experiment("steps=1", "model.attention.score=mine"), tmp_path / "run", QUIET)
    del s2s.SCORES["mine"]
    with pytest.raises(ValueError, match="config.json: .*'mine'.* give the file that adds it with --import"):
        read_experiment(tmp_path / "run")


def test_a_file_that_adds_nothing_is_not_recorded(tmp_path):
    file = tmp_path / "adds_nothing.py"
    file.write_text("VALUE = 3\n")
    assert not imports.extends_tables(str(file))
    assert imports.import_once(str(file)).VALUE == 3
    with pytest.raises(FileNotFoundError, match="there is no such file; give a Python file"):
        s2s.import_code([str(tmp_path / "absent.py")])


def test_an_import_that_fails_leaves_the_tables_as_they_were_and_can_be_tried_again(own_score):
    """Also what a sibling added that was imported on the way."""
    importer = Path(own_score).with_name("importer.py")
    importer.write_text("import own_score\nfrom s2s_jax import METRICS\nMETRICS['half'] = None\n1 / 0\n")
    tables = {name: (getattr(s2s, name), dict(getattr(s2s, name))) for name in imports.TABLES}
    try:
        with pytest.raises(ZeroDivisionError):
            s2s.import_code([str(importer)])
        for name, (table, before) in tables.items():
            assert getattr(s2s, name) is table
            assert table == before, name
        importer.write_text("import own_score\n")
        s2s.import_code([str(importer)])
        assert "mine" in s2s.SCORES
        assert imports.extends_tables(str(importer))
    finally:
        imports.LOADED.pop(str(importer), None)
        sys.modules.pop("importer", None)


@pytest.mark.parametrize(
    ("recorded", "given", "merged"),
    [
        (["a.py", "lab.b"], ["../a.py"], ["lab.b", "../a.py"]),
        (["a.py", "b.py"], ["a.py"], ["b.py", "a.py"]),
        (["lab.a"], ["lab.a", "x/a.py", "y/a.py"], ["lab.a", "x/a.py", "y/a.py"]),
        (["a.py"], [], ["a.py"]),
    ],
)
def test_a_given_file_stands_for_a_recorded_one_of_the_same_base_name(recorded, given, merged):
    assert imports.merged_names(recorded, given) == tuple(merged)


def test_a_run_with_own_code_is_used_from_other_folders(tmp_path):
    """Each command in a process of its own, with the code as a file and as a module of the current folder."""
    lab, other = tmp_path / "lab", tmp_path / "other"
    lab.mkdir()
    other.mkdir()
    (lab / "sibling.py").write_text("NAME = 'mine'\n")
    (lab / "my_score.py").write_text(SCORE)
    command = f"""
import sys
sys.path[:] = [{str(Path(__file__).parent)!r}, *[path for path in sys.path if path]]  # as in the script `s2s`
from s2s_jax.cli import main
sys.exit(main(sys.argv[1:]))
"""

    def s2s_in(folder: Path, *words: str, text: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-c", command, *words],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=folder,
            input=text,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    (lab / "small.py").write_text("from tiny import experiment\n")
    settings = ["--steps", "1", "--model.attention.score", "mine", "--model.decoder.size", "32"]
    s2s_in(lab, "train", "small.py", *settings, "--import", "my_score.py", "--run", "r")
    given = ["--import", "../lab/my_score.py"]
    s2s_in(other, "train", "../lab/r", *given)
    assert read_json(lab / "r" / "config.json")["imports"] == ["../lab/my_score.py"]
    s2s_in(lab, "train", "r", "--import", "my_score.py")
    translated = s2s_in(other, "translate", "../lab/r", *given, text="a b\n")
    assert translated.count("\n") == 1
    assert s2s_in(lab, "translate", "r", "--import", "my_score", text="a b\n") == translated
