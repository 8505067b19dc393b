"""Whether the files of a run belong together: the record of each checkpoint names the run that saved it.

The record holds the learned settings of the run and fingerprints of its data and tokenizers. Resuming and loading
compare them with config.json, with facts.json and with the data that was read.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.run.run_dir import CHECKPOINTS, CONFIG_FILE, FACTS_FILE, SIDES
from s2s_jax.training.checkpoint.checkpoints import Checkpoints
from s2s_jax.training.checkpoint.format import CheckpointError

FINGERPRINTS = {"data": "training data", "validation_data": "validation data"} | {
    f"{side}_tokenizer": f"{side} tokenizer" for side in SIDES
}
# of what a run has taken from elsewhere before its first step, and never reads again
STARTING_FINGERPRINTS = {"warm_start": "warm start", "embeddings": "word vectors"}
FINGERPRINTS |= STARTING_FINGERPRINTS


def fingerprint_titles(*facts: Mapping[str, Any]) -> dict[str, str]:
    """What each fingerprint is of, by its name; those of features are only in runs that have some."""
    names = sorted({name for each in facts for name in each if name.endswith("_tokenizer")} - FINGERPRINTS.keys())
    return FINGERPRINTS | {name: name.replace("_", " ") for name in names}


Changes = Mapping[str, tuple[Any, Any]]  # by name: the value in the record of a checkpoint, and the other one
ChangesOf = Callable[[int, Mapping[str, Any]], Changes]
Sealed = Mapping[int, Mapping[str, Any]]  # by step: the run that the record of a checkpoint names


def identity(experiment: Experiment, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What identifies a run, for the records of its checkpoints."""
    return {
        "settings": configs.learned_settings(experiment),
        **{name: facts[name] for name in fingerprint_titles(facts) if name in facts},
    }


def sealed_runs(checkpoints: Checkpoints) -> dict[int, dict[str, Any]]:
    """The run that each checkpoint names, by step, newest first, without damaged ones, which `restore` reports."""
    sealed = {}
    for step in reversed(checkpoints.steps()):
        try:
            sealed[step] = checkpoints.record(step)["run"]
        except CheckpointError:
            continue
    return sealed


def check_settings(sealed: Sealed, experiment: Experiment, directory: Path) -> None:
    """Refuse a config.json that does not describe the run of the checkpoints.

    Raises:
        CheckpointError: a checkpoint is another run's.
        ValueError: all are.
    """

    def changes(step: int, run: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        wanted = (configs.as_of(experiment, step), experiment)  # the step may have been saved before it was extended
        found = [configs.differences(run["settings"], configs.learned_settings(each)) for each in wanted]
        found = [{name: each[name] for name in each if name not in configs.LOCATION_SETTINGS} for each in found]
        return {} if {} in found else found[0]

    _refuse_other_run(sealed, changes, directory / CONFIG_FILE)


def check_one_run(checkpoints: Checkpoints, experiment: Experiment, facts: Mapping[str, Any], directory: Path) -> None:
    """Refuse a run whose settings, facts and checkpoints are not all of one run.

    Raises:
        CheckpointError: a checkpoint is another run's.
        ValueError: config.json or facts.json is.
    """
    sealed = sealed_runs(checkpoints)
    check_settings(sealed, experiment, directory)
    check_facts(sealed, facts, directory)


def check_facts(sealed: Sealed, facts: Mapping[str, Any], directory: Path) -> None:
    """Refuse a facts.json that is not that of the run of the checkpoints.

    Raises:
        CheckpointError: a checkpoint is another run's.
        ValueError: all are.
    """
    _refuse_other_run(sealed, lambda step, run: fingerprint_changes(run, facts), directory / FACTS_FILE)


def fingerprint_changes(run: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The fingerprints in which a run of the record and facts differ, by what they are of, both shortened."""
    return {
        title: (str(run.get(name))[:12], str(facts.get(name))[:12])
        for name, title in fingerprint_titles(run, facts).items()
        if run.get(name) != facts.get(name)
    }


def differing_checkpoint(sealed: Sealed, changes: ChangesOf, directory: Path) -> tuple[int, Changes] | None:
    """The newest checkpoint, with what differs, where all differ; None where none does.

    Raises:
        CheckpointError: some of the checkpoints differ, so they are another run's.
    """
    differing = {step: found for step, run in sealed.items() if (found := changes(step, run))}
    if not differing:
        return None
    step, found = next(iter(differing.items()))
    if len(differing) < len(sealed):
        folder = directory / CHECKPOINTS
        values = "; ".join(f"{name}: {there!r}, here {here!r}" for name, (there, here) in found.items())
        raise CheckpointError(f"{folder / str(step)} was saved by another run ({values}); move it out of {folder}.")
    return step, found


def _refuse_other_run(sealed: Sealed, changes: ChangesOf, file: Path) -> None:
    if differing := differing_checkpoint(sealed, changes, file.parent):
        step, found = differing
        values = (f"{name}: {here!r} here, {there!r} there" for name, (there, here) in found.items())
        raise ValueError(
            f"{file} is not that of checkpoint {step} ({'; '.join(values)}); restore it from a copy, or move the "
            "checkpoint away if it is another run's."
        )
