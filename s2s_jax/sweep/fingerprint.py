"""The fingerprint of a trial: everything that decides what is trained, and the directory that is named after it."""

import ast
import functools
import hashlib
import importlib.util
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s2s_jax.config import Experiment, settings
from s2s_jax.imports import LOADED, is_file_name
from s2s_jax.run.run_dir import RUN_FORMAT, read_json, write_json
from s2s_jax.run.starting_digests import starting_digests
from s2s_jax.sweep.sweep import Trial
from s2s_jax.sweep.trial_files import TRIAL_FILE, read_record
from s2s_jax.text.example import Example, WordLinks
from s2s_jax.text.sources import SPLITS, TARGETS_ONLY, DataConfig, has_splits, read_split

# Settings that decide where and how a trial runs, and not what is trained.
RUNTIME_GROUPS = ("device.", "record.", "batch.prefetch", "data.directory", "data.manual_dir", "data.cache", "imports")
# Settings that are applied to a trained run; but search.rules have a part in the choice of the checkpoint.
POST_TRAINING_GROUPS = ("search.", "evaluation.")
# Folders of this package that neither train nor score.
OUTER_CODE = ("cli/", "bench/", "export/", "sweep/report/", "sweep/executors/")
FILE_SETTINGS = (
    *("data.train", "data.validation", "data.test"),
    *("data.alignment", "data.validation_alignment", "data.test_alignment"),
)
# Settings of what a trial takes before its first step; of these, digests count and not the paths.
START_SETTINGS = ("warm_start.run", "data.embeddings")


class TrialDir(NamedTuple):
    """A trial with its directory and with what its fingerprint is computed from."""

    trial: Trial
    folder: Path
    identity: dict[str, Any]


def assign_dirs(trials: Sequence[Trial], folder: Path) -> list[TrialDir]:
    """Give each trial the directory `trials/TITLE-FINGERPRINT` in the folder of the sweep.

    Raises:
        ValueError: a directory of that title was trained from something else (the message lists the differences), or
            the trials were trained by more than one version of this package.
    """
    known = read_known_data(folder)
    before = len(known)
    identities = [trial_identity(trial.experiment, known) for trial in trials]
    prints = list(map(trial_fingerprint, identities))
    names = [f"{trial.title}-{fingerprint}" for trial, fingerprint in zip(trials, prints, strict=True)]
    folders = _with_renamed(folder / "trials", names, prints)
    trial_dirs = [TrialDir(*each) for each in zip(trials, folders, identities, strict=True)]
    if len(known) > before:
        write_known_data(folder, known)
    _check_no_drift(trial_dirs)
    _check_one_package([trial_dir.folder for trial_dir in trial_dirs])
    return trial_dirs


def _with_renamed(root: Path, names: Sequence[str], fingerprints: Sequence[str]) -> list[Path]:
    """The directory of each trial: its own, or the one that it had before the label of its point was renamed."""
    free = {path.name for path in root.glob("*") if path.is_dir()} - set(names)
    folders = []
    for name, fingerprint in zip(names, fingerprints, strict=True):
        earlier = [] if (root / name).exists() else sorted(each for each in free if each.endswith(f"-{fingerprint}"))
        free -= set(earlier[:1])
        folders.append(root / next(iter(earlier), name))
    return folders


def read_known_data(folder: Path) -> dict[str, str]:
    """The fingerprints of data that were computed before; a damaged file is computed anew."""
    try:
        return read_json(folder / "data.json")
    except (FileNotFoundError, ValueError):
        return {}


def write_known_data(folder: Path, known: dict[str, str]) -> None:
    """Keep the fingerprints of data for later."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "data.json", known)


def trial_identity(experiment: Experiment, known: dict[str, str]) -> dict[str, Any]:
    """Everything that decides what is trained.

    Args:
        known: fingerprints of data that were computed before; new ones are added to it.
    """
    values = {setting.name: setting.value for setting in settings(experiment) if _counts(setting.name, setting.value)}
    code = {"code": _code_digests(experiment.imports)} if experiment.imports else {}
    data = _data_fingerprint(experiment.data, known)
    start = starting_digests(experiment, known)
    identity = {"format": RUN_FORMAT, "package": package_digest(), "data": data, **code, **start, **values}
    return json.loads(json.dumps(identity))


def _counts(name: str, value: Any) -> bool:
    if name in START_SETTINGS:
        return False
    if name in FILE_SETTINGS:
        return str(value).startswith(("task:", "tfds:"))  # of a file, the content counts and not the path
    if name.startswith(RUNTIME_GROUPS):
        return False
    return name.startswith("search.rules") or not name.startswith(POST_TRAINING_GROUPS)


def trial_fingerprint(identity: dict[str, Any]) -> str:
    """The fingerprint of an identity: eight hexadecimal digits.

    The version of this package is not in it, so that a finished sweep is found, and reported, by later versions too.
    """
    named = {name: value for name, value in identity.items() if name != "package"}
    return hashlib.blake2b(json.dumps(named, sort_keys=True).encode(), digest_size=4).hexdigest()


@functools.cache
def package_digest() -> str:
    """A digest of the code of this package that trains and scores. Comments and docstrings do not count."""
    root, hashed = Path(__file__).parent.parent, hashlib.blake2b(digest_size=8)
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(OUTER_CODE):
            code = ast.dump(_WithoutText().visit(ast.parse(path.read_bytes())))
            hashed.update(f"{name}\0{code}\0".encode("utf-8", "surrogatepass"))
    return hashed.hexdigest()


class _WithoutText(ast.NodeTransformer):
    """Removes the docstrings of modules, classes, functions and settings."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """The statement; None if it is a text alone."""
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node


def check_same_package(folders: Iterable[Path]) -> None:
    """Refuse to train more trials beside those that another version of this package has begun.

    Raises:
        ValueError: naming both versions.
    """
    _check_one_package(folders, package_digest())


def _check_one_package(folders: Iterable[Path], *present: str) -> None:
    begun = [(folder, record) for folder in folders if (record := read_record(folder / TRIAL_FILE)) is not None]
    versions = Counter(record["identity"].get("package", "unknown") for _, record in begun)
    if len({*versions, *present}) > 1:
        counts = ", ".join(f"{version}: {number} of them" for version, number in versions.items())
        now = f"; it is {present[0]} now" if present else ""
        raise ValueError(
            f"the trials in {begun[0][0].parent} were trained by other code of s2s_jax ({counts}{now}), and trials "
            "from before and after a change never share one table; choose another --out, or delete the older trials."
        )


def _code_digests(names: Iterable[str]) -> dict[str, str]:
    """A digest of the code of each imported file or module, by its name without folder and suffix.

    Comments do not count, nor do functions that return an experiment or a sweep: a trial's settings count instead.
    """
    digests = {}
    for name in names:
        path = _source_of(name)
        tree = ast.parse(path.read_bytes() if path is not None and path.is_file() else b"")
        tree.body = [statement for statement in tree.body if not _makes_config(statement)]
        code = ast.dump(tree).encode("utf-8", "surrogatepass")
        digests[Path(name).stem if is_file_name(name) else name] = hashlib.blake2b(code, digest_size=8).hexdigest()
    return digests


def _makes_config(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.FunctionDef):
        return False
    returned = ast.unparse(statement.returns).split(".")[-1] if statement.returns else ""
    return statement.name in ("experiment", "sweep") or returned in ("Experiment", "Sweep", "Tuning")


def _source_of(name: str) -> Path | None:
    if is_file_name(name):
        return Path(name)
    if name in LOADED:
        file = getattr(LOADED[name], "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        file = spec.origin if spec else None
    return Path(file) if file else None


def _data_fingerprint(data: DataConfig, known: dict[str, str]) -> str:
    """A fingerprint of all pairs of all splits, and of their alignments; files are read again only when they change.

    A source of the user's own is read each time: what it reads is not known.
    """
    every = [*data.corpora, *map(data.spec, SPLITS[1:])]
    specs = [spec for spec in every if not spec.startswith(("task:", "tfds:"))]
    if any(map(has_splits, specs)):  # no file, and no source of ours
        return _data_digest(data)
    names = [
        name
        for spec in (spec.removeprefix(TARGETS_ONLY) for spec in specs)
        for name in ([spec] if Path(spec).exists() else spec.split(","))
    ]
    names += filter(None, (data.alignment, data.validation_alignment, data.test_alignment))
    stats = [(path.stat().st_size, path.stat().st_mtime_ns) for path in map(Path, names) if path.exists()]
    key = f"{data!r} {stats}"
    if key not in known:
        known[key] = _data_digest(data)
    return known[key]


def _data_digest(data: DataConfig) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    for split in SPLITS:
        examples, report = read_split(data, split)
        if len(report.corpus_sizes) > 1:  # where one ends and the next begins counts too
            hashed.update(repr(report.corpus_sizes).encode())
        for example in examples:
            features = "".join(f"{feature}\0" for feature in example.features)
            texts = f"{split}\0{example.source}\0{example.target}\0{features}"
            hashed.update(texts.encode() + _link_bytes(example) + b"\n")
    return hashed.hexdigest()


def _link_bytes(example: Example) -> bytes:
    links = example.links
    return links.words.tobytes() if isinstance(links, WordLinks) else b"" if links is None else repr(links).encode()


def _check_no_drift(trial_dirs: Sequence[TrialDir]) -> None:
    """Refuse a sweep whose settings have changed since trials of the same title were trained."""
    current = {trial_dir.folder for trial_dir in trial_dirs}
    for trial_dir in trial_dirs:
        for other in trial_dir.folder.parent.glob(f"{trial_dir.trial.title}-????????"):
            record = None if other in current else read_record(other / TRIAL_FILE)
            if record is None:
                continue
            before, now = record["identity"], trial_dir.identity
            changed = [
                f"{name}: {before.get(name)!r} before, {now.get(name)!r} now"
                for name in {**before, **now}
                if before.get(name) != now.get(name)
            ]
            raise ValueError(
                f"{other} was trained from other settings ({'; '.join(changed)}); set them back, choose another --out, "
                "or delete that directory."
            )
