"""Whether a run may be started, resumed or replaced in a directory: all is checked before anything is written."""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.run.identity import (
    STARTING_FINGERPRINTS,
    Changes,
    Sealed,
    check_settings,
    differing_checkpoint,
    fingerprint_changes,
    sealed_runs,
)
from s2s_jax.run.run_dir import (
    CHECKPOINTS,
    CONFIG_FILE,
    FACTS_FILE,
    METRICS_FILE,
    SIDES,
    checkpoint_steps,
    is_run,
    read_experiment,
    read_facts,
)
from s2s_jax.run.tokenizers import tokenizer_path
from s2s_jax.run.warm_start import taken_settings
from s2s_jax.text.corpus import feature_sides
from s2s_jax.training.checkpoint.checkpoints import Checkpoints
from s2s_jax.training.checkpoint.disk import UNFINISHED
from s2s_jax.training.lock import LOCK_FILE, is_lock
from s2s_jax.training.metrics_writer import read_metrics


class Opening(NamedTuple):
    """How a run is begun in its directory."""

    experiment: Experiment  # the one that was given, with the recorded parts of a run that is extended
    resumed: bool = False
    replaced: bool = False  # what is there is moved aside first
    sealed: Sealed = MappingProxyType({})  # of a resumed run: the run that each checkpoint names, newest first
    moved: Changes = MappingProxyType({})  # locations of the data that have changed, before and now

    @property
    def started_from(self) -> dict[str, Any]:
        """Of a resumed run: fingerprints of what it took from elsewhere before its first step."""
        newest = next(iter(self.sealed.values()), {})
        return {name: newest[name] for name in STARTING_FINGERPRINTS if newest.get(name)}


def check_directory(directory: Path) -> None:
    """Refuse a directory that holds something, and no run: none of that is ours. Nothing is written.

    Raises:
        NotADirectoryError, ValueError: naming what is there.
    """
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"--run {directory} is a file; give a directory, which may be new.")
    if not directory.exists() or is_run(directory) or _sealed(directory):
        return
    strange = sorted(path.name for path in directory.iterdir() if not _is_left_by_a_start(path))
    if strange:
        names = ", ".join(strange[:3]) + (", ..." if len(strange) > 3 else "")
        raise ValueError(f"{directory} is not empty and holds no run (it has {names}); give another --run.")


def _is_left_by_a_start(path: Path) -> bool:
    """Whether a start that was killed before it wrote config.json has made this."""
    if path.name == CHECKPOINTS and path.is_dir():
        return all(child.match(UNFINISHED) for child in path.iterdir())
    return path.name == f"{CONFIG_FILE}.part" or (path.name == LOCK_FILE and is_lock(path))


def open_run(directory: Path, experiment: Experiment, *, overwrite: bool, extend: bool) -> Opening:
    """How the run is begun: anew, resumed, or in the place of another one. Nothing is written.

    Args:
        overwrite: a run that is there is to be moved aside.
        extend: the schedule of a run that is there may change its shape from the newest checkpoint on.

    Raises:
        ValueError: a run is there that is another one, or whose checkpoints are gone.
    """
    if overwrite and (is_run(directory) or checkpoint_steps(directory)):
        return Opening(experiment, replaced=True)
    recorded = read_experiment(directory) if (directory / CONFIG_FILE).exists() else None
    experiment = _with_known_epochs(directory, experiment, recorded)
    if checkpoint_steps(directory):
        return _resumed(directory, experiment, recorded, extend=extend)
    if recorded is not None:
        _check_restart(directory, experiment, recorded)
    return Opening(experiment)


def _with_known_epochs(directory: Path, experiment: Experiment, recorded: Experiment | None) -> Experiment:
    """The experiment with the steps of its epochs, where the run that is there says how many batches they have.

    Raises:
        ValueError: it is to be resumed, and does not say it.
    """
    if not experiment.epochs:
        return experiment
    if recorded is not None and recorded.epochs:
        return configs.with_epochs(experiment, recorded.steps // recorded.epochs)
    facts = read_facts(directory) if (directory / FACTS_FILE).exists() else {}
    if "batches_per_epoch" in facts:
        return configs.with_epochs(experiment, facts["batches_per_epoch"])
    if checkpoint_steps(directory):
        raise ValueError(
            f"{directory} does not say how many batches an epoch has (no batches_per_epoch in {FACTS_FILE}), which "
            f"epochs={experiment.epochs} needs; give --steps instead."
        )
    return experiment


def _check_restart(directory: Path, experiment: Experiment, recorded: Experiment) -> None:
    """Refuse to start where a run had checkpoints, or was begun otherwise; the same one has nothing to lose."""
    remedy = f"give another --run, or --overwrite, which moves what {directory} holds to {aside(directory)}"
    if lost := [record["step"] for record in read_metrics(directory / METRICS_FILE) if record["kind"] == "checkpoint"]:
        raise ValueError(
            f"{directory} had a checkpoint of step {max(lost)}, and {directory / CHECKPOINTS} has none; put it back, "
            f"{remedy}."
        )
    before = configs.learned_settings(recorded)
    experiment = _with_taken_tokenizers(experiment, before)
    changed = configs.differences(before, configs.learned_settings(experiment))
    if changed:
        raise ValueError(
            f"{directory} was begun with other settings ({change_texts(changed)}) and has no checkpoint; give the same "
            f"ones, {remedy}."
        )


def _resumed(directory: Path, experiment: Experiment, recorded: Experiment | None, *, extend: bool) -> Opening:
    sealed = _sealed(directory)
    if recorded is not None:
        check_settings(sealed, recorded, directory)
        before = configs.learned_settings(recorded)
    else:  # `check_directory` has found a record
        before = next(iter(sealed.values()))["settings"]
    experiment = _with_taken_tokenizers(experiment, before)
    newest = max(sealed, default=0)
    if newest > experiment.steps:
        raise ValueError(
            f"{directory} has trained {newest} steps, more than {_length(experiment)}; raise "
            f"--{'epochs' if experiment.epochs else 'steps'}, or give another --run."
        )
    experiment = _with_parts(directory, experiment, before, newest, extend=extend)
    changed = configs.differences(before, configs.learned_settings(experiment))
    if extend:
        changed = {name: values for name, values in changed.items() if name not in ("steps", "optimizer.extended")}
    moved = {name: changed.pop(name) for name in configs.LOCATION_SETTINGS if name in changed}
    if changed:
        raise ValueError(
            f"{directory} holds a run with other settings ({change_texts(changed)}); resume it with the same ones, or "
            "give another --run."
        )
    return Opening(experiment, resumed=True, sealed=sealed, moved=moved)


def _with_taken_tokenizers(experiment: Experiment, before: Mapping[str, Any]) -> Experiment:
    """The experiment with the recorded settings of the tokenizers, where those of a warm start are not read."""
    if not experiment.warm_start.takes_tokenizers:
        return experiment
    recorded = {name: value for name, value in before.items() if name.startswith("tokenizer.")}
    theirs = configs.with_settings(experiment, recorded).tokenizer
    return dataclasses.replace(experiment, tokenizer=taken_settings(experiment.tokenizer, theirs))


def _length(experiment: Experiment) -> str:
    """How long an experiment is trained, as text."""
    of_epochs = f" (epochs={experiment.epochs})" if experiment.epochs else ""
    return f"steps={experiment.steps}{of_epochs}"


def _sealed(directory: Path) -> Sealed:
    if not checkpoint_steps(directory):
        return {}
    with Checkpoints(directory / CHECKPOINTS) as checkpoints:
        return sealed_runs(checkpoints)


def _with_parts(
    directory: Path, experiment: Experiment, before: Mapping[str, Any], newest: int, *, extend: bool
) -> Experiment:
    """The experiment; where the run is extended, with the schedules that it has followed so far.

    Raises:
        ValueError: its number of steps makes another run of it, and it is not to be extended.
    """
    steps, parts = before.get("steps"), before.get("optimizer.extended", [])
    if steps is None or before["optimizer.schedule"] != experiment.optimizer.schedule:
        return experiment
    if extend:
        if steps != experiment.steps:
            parts = [*parts, [newest, steps]]
        return configs.with_settings(experiment, {"optimizer.extended": parts})
    if steps == experiment.steps and parts and not experiment.optimizer.extended:
        raise ValueError(
            f"{directory} was extended; give --extend again, or resume it by itself: s2s train {directory}"
        )
    if steps != experiment.steps:
        schedule = experiment.optimizer.schedule
        raise ValueError(
            f"{directory} is trained with steps={steps}, which optimizer.schedule={schedule} reads: with steps="
            f"{experiment.steps} its rates would have been others from the start. Give --steps {steps}, or another "
            f"--run to train anew, or --extend to follow that of {experiment.steps} steps from step {newest} on."
        )
    return experiment


def check_same_data(opening: Opening, facts: Mapping[str, Any], directory: Path) -> None:
    """Refuse to resume a run on other data, or with other tokenizers, than it was begun with.

    Raises:
        ValueError: with both fingerprints.
    """
    differing = differing_checkpoint(opening.sealed, lambda step, run: fingerprint_changes(run, facts), directory)
    if differing is None:
        return
    _, changed = differing
    for side in (*SIDES, *feature_sides(len(opening.experiment.data.features))):
        path, title = tokenizer_path(directory, side), f"{side} tokenizer"
        if title in changed and path.exists():
            before, now = changed[title]
            raise ValueError(
                f"{path} is not the one the run was trained with (sha256 {now}, the run has {before}); restore it from "
                "a copy, or delete it, and it is trained again on the same data."
            )
    raise ValueError(
        f"{directory} was trained on other data ({change_texts({**opening.moved, **changed})}); restore it, or give "
        "another --run."
    )


def change_texts(changed: Changes) -> str:
    """Changed values as text, for an error."""
    return "; ".join(f"{name}: {before!r} before, {now!r} now" for name, (before, now) in changed.items())


def aside(directory: Path) -> Path:
    """The directory that a run would be moved to: DIR.old-1, or the next number that is free."""
    where = directory.resolve()
    names = (where.with_name(f"{where.name}.old-{number}") for number in itertools.count(1))
    return next(path for path in names if not path.exists())


def move_aside(directory: Path) -> Path:
    """Move all that a directory holds, but for its lock, into a new one beside it; returns that."""
    to = aside(directory)
    to.mkdir()
    for path in sorted(directory.iterdir(), key=lambda path: path.name == CONFIG_FILE):  # by which it is known as a run
        if path.name != LOCK_FILE:
            path.rename(to / path.name)
    return to
