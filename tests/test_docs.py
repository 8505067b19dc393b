"""The how-to pages, followed to the letter: their Python blocks as a file, their shell blocks in fresh processes."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from json_page import sections

from s2s_jax.cli.arguments import COMMANDS
from s2s_jax.cli.experiments import find
from s2s_jax.config import override, settings
from s2s_jax.imports import import_once

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "how-to"


def blocks(page: str, language: str) -> str:
    """All code blocks of a page in one language, put together."""
    text = (PAGES / page).read_text(encoding="utf-8")
    return "\n\n".join(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))


def environment() -> dict[str, str]:
    """A shell that finds this checkout, and nothing of the test process's own strictness."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return {**kept, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def typed(commands: str, folder: Path) -> list[subprocess.CompletedProcess]:
    """Each line of a shell block, run in the folder by a process of its own."""
    lines = [line.replace("s2s ", f"{sys.executable} -m s2s_jax ") for line in commands.splitlines() if line.strip()]
    return [
        subprocess.run(
            ["timeout", "300", "bash", "-c", line],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        for line in lines
    ]


@pytest.fixture(scope="module")
def score_page(tmp_path_factory):
    """The folder in which a reader has followed the page about scores, and what each command printed."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "my_score.py").write_text(blocks("add-a-score.md", "python"), encoding="utf-8")
    return folder, typed(blocks("add-a-score.md", "sh"), folder)


def test_every_command_of_the_score_page_succeeds(score_page):
    _, results = score_page
    assert len(results) == 5
    for result in results:
        assert result.returncode == 0, f"{result.args[-1]}\n{result.stdout}\n{result.stderr}"


def test_the_second_command_of_the_score_page_resumes_the_run_of_the_first(score_page):
    _, results = score_page
    assert "resuming at step 20" in results[1].stdout + results[1].stderr


def test_the_sweep_of_the_score_page_trains_every_trial(score_page):
    folder, _ = score_page
    outcomes = [path.read_text() for path in folder.glob("runs/sweeps/my_score/*/*/outcome.json")]
    assert len(outcomes) == 2
    assert all('"done"' in outcome for outcome in outcomes)


def test_a_run_with_code_of_its_own_names_the_missing_import(score_page):
    folder, _ = score_page
    (result,) = typed("echo 'a b c' | s2s translate runs/distance", folder)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "--import my_score.py" in result.stderr


FILES = {
    "add-a-cell.md": "my_cell.py",
    "add-a-search.md": "my_search.py",
    "add-an-objective.md": "my_objective.py",
    "add-anything-else.md": "mine.py",
    "sequence-training.md": "",  # settings alone
}
IN_ONE_PROCESS = """
import shlex, sys
from s2s_jax.cli import main
for line in sys.stdin.read().splitlines():
    assert main(shlex.split(line.removeprefix("s2s "))) == 0, line
"""


WIDE_PAGES = ("add-a-search.md", "add-anything-else.md", "sequence-training.md")


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.wide if page in WIDE_PAGES else ()) for page in FILES]
)
def test_the_code_of_every_page_trains_and_is_used(page, tmp_path):
    """One process per page, since a start of jax takes seconds."""
    if FILES[page]:
        (tmp_path / FILES[page]).write_text(blocks(page, "python"), encoding="utf-8")
    commands = "".join(line + "\n" for line in blocks(page, "sh").splitlines() if line.strip())
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS],
        input=commands,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if FILES[page]:
        assert commands.count("--import") == commands.count(f"--import {FILES[page]}") > 0


@pytest.mark.wide
def test_two_processes_train_as_the_page_about_many_hosts_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")  # one device per process, as on the page
    (training,) = typed(blocks("many-hosts.md", "sh"), tmp_path)
    assert training.returncode == 0, training.stderr
    assert "in 2 processes" in training.stdout + training.stderr
    assert (tmp_path / "runs" / "two" / "checkpoints" / "6").is_dir()


def test_the_class_of_the_score_page_is_ten_lines_without_its_docstrings():
    body = blocks("add-a-score.md", "python").partition("class Distance")[2].partition("s2s.SCORES[")[0]
    code = [line for line in body.splitlines() if line.strip() and not line.strip().startswith('"""')]
    assert len(code) <= 10


def test_the_page_about_json_has_every_command_that_prints_it():
    actions = {f"sweep {action}" for action in ("plan", "run", "status", "report", "verify", "simulate")}
    printing = {*COMMANDS, *actions, "checkpoint verify"} - {"sweep", "checkpoint", "completion"}
    assert set(sections()) == printing


def test_every_fault_of_the_page_is_held_by_tests_that_exist():
    rows = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", (ROOT / "docs" / "faults.md").read_text("utf-8"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert f"lists {len(rows)} faults" in (ROOT / "README.md").read_text("utf-8")
    for number, cell in rows:
        names = re.findall(r"`(test_\w+)::(test_\w+)`", cell)
        assert names, number
        for file, test in names:
            assert f"def {test}(" in (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"), f"{file}::{test}"


RECIPES = {
    "back-translation.md": ("runs/reverse", "back.en", "mono.de"),
    "distillation.md": ("runs/teacher", "teacher.de", "train.en"),
}
SMALL = """
import s2s_jax as s2s
import tiny


def experiment() -> s2s.Experiment:
    return tiny.experiment("steps=3", "validation.sentences=0")
"""


@pytest.mark.parametrize("page", RECIPES)
def test_a_recipe_with_several_corpora_works(page, s2s, trained_run, tmp_path, monkeypatch):
    """Its commands on tiny data, with a tiny model; the first one, a training as any other, has been done before."""
    monkeypatch.chdir(tmp_path)
    begun, made, given = RECIPES[page]
    for name, content in {"train": "a b\nb c\n\nc d\n" * 5, "dev": "a b\nb a c\n", "mono": "c d\ne\n"}.items():
        for language in ("en", "de"):
            (tmp_path / f"{name}.{language}").write_text(content)
    (tmp_path / "parallel_text.py").write_text(SMALL)

    def done(line: str) -> str:
        """What a line of the page prints, with the tiny experiment in the place of the shipped one."""
        command = shlex.split(line.removeprefix("s2s ").replace("train parallel_text", "train parallel_text.py"))
        code, out, errors = s2s(*command)
        assert code == 0, errors
        return out

    first, translate, train = filter(None, blocks(page, "sh").splitlines())
    assert first.startswith("s2s train parallel_text ")
    assert first.endswith(f"--run {begun}")
    shutil.copytree(trained_run, begun)
    command, _, file = translate.partition(" > ")
    (tmp_path / file).write_text(done(command))
    assert file == made
    assert len((tmp_path / made).read_text().splitlines()) == len((tmp_path / given).read_text().splitlines())
    done(train)
    (run,) = [path for path in (tmp_path / "runs").iterdir() if path.name != Path(begun).name]
    report = json.loads((run / "data_report.json").read_text())["train"]
    weights = json.loads(re.findall(r"--data.weights '(.*?)'", train)[0])
    assert [each["share"] for each in report["corpora"]] == [weight / sum(weights) for weight in weights]
    if page == "back-translation.md":
        assert json.loads((run / "source.tokenizer.json").read_text())["tags"] == ["<bt>"]
        before = (run / "source.tokenizer.json").read_bytes()
        done(train)  # resumed
        assert (run / "source.tokenizer.json").read_bytes() == before


SIZES = {"size", "layers", "readout", "copy_slots"}  # numbers of which no paper asks whether they are there


def test_every_ablation_of_the_page_changes_its_setting_and_is_legal():
    """And every choice of encoder and decoder has a row: whoever adds one adds a row."""
    text = (PAGES / "ablations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \|([^|]*)\| [^|]+ \| `s2s train reverse (.*) --run runs/[\w-]+` \|$", text, re.M)
    assert len(rows) == text.count("`s2s train reverse ")
    base, _ = find("reverse", "runs/reverse")
    plain = {setting.name: setting for setting in settings(base)}
    for name, papers, flags in rows:
        changes = dict(re.findall(r"--(\S+) (\S+)", flags))
        assert " ".join(f"--{flag} {value}" for flag, value in changes.items()) == flags
        experiment = override(base, *(f"{flag}={value}" for flag, value in changes.items()))
        changed = {setting.name for setting in settings(experiment) if setting.value != plain[setting.name].value}
        assert name in changed
        assert changed == {flag.replace("-", "_") for flag in changes}
        for paper in filter(None, papers.strip().split("; ")):
            assert re.fullmatch(r"[A-Z][\w ]+(& [A-Z]\w+ )?(et al\. )?\d{4}", paper), paper
    choices = {name for name in plain if re.match(r"model\.(en|de)coder\.", name) and name.split(".")[-1] not in SIZES}
    assert choices <= {name for name, *_ in rows}, "docs/how-to/ablations.md has no row for a setting"


def test_the_page_of_results_is_what_its_command_writes():
    results = import_once(str(ROOT / "scripts" / "results.py"))
    assert results.page() == results.PAGE.read_text(encoding="utf-8"), "run python scripts/results.py"
