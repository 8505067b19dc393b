"""Digests of what a run would take before its first step, without reading a single array: for the plan of a sweep."""

import hashlib
import json
from pathlib import Path

from s2s_jax.config import Experiment
from s2s_jax.run.run_dir import CHECKPOINTS, SIDES
from s2s_jax.run.tokenizers import tokenizer_path
from s2s_jax.text.corpus import feature_sides
from s2s_jax.text.embedding_file import embedding_files
from s2s_jax.training.checkpoint.checkpoints import Checkpoints
from s2s_jax.training.warm_start import source_of


def starting_digests(experiment: Experiment, known: dict[str, str]) -> dict[str, str]:
    """A digest of the checkpoint of a warm start, and of the files of word vectors, where there are any.

    Args:
        known: digests that were computed before; new ones are added to it. One of them stands for a run or a file that
            is gone, which trials that have begun do not need any more.

    Raises:
        FileNotFoundError: there is no such run or file, and never was.
    """
    digests = {}
    if text := experiment.warm_start.run:
        directory, key = Path(source_of(text).directory), f"warm start {text}"
        if (directory / CHECKPOINTS).is_dir() or key not in known:
            known[key] = _checkpoint_digest(experiment)
        digests["warm_start"] = known[key]
    for side, name in embedding_files(experiment.data.embeddings).items():
        path, key = Path(name), f"vectors {name}"
        if path.exists():
            stat = path.stat()
            version = f"{key} {stat.st_size} {stat.st_mtime_ns}"
            if version not in known:
                known[version] = known[key] = _file_digest(path)
            digests[f"embeddings {side}"] = known[version]
        elif key in known:
            digests[f"embeddings {side}"] = known[key]
        else:
            raise FileNotFoundError(f"data.embeddings: no file {path}.")
    return digests


def _checkpoint_digest(experiment: Experiment) -> str:
    """A digest of the checksums of the parameters that are taken, and of the tokenizers that come with them."""
    source = source_of(experiment.warm_start.run)
    directory, hashed = Path(source.directory), hashlib.blake2b(digest_size=16)
    try:
        with Checkpoints(directory / CHECKPOINTS) as checkpoints:
            for step in checkpoints.chosen(source.step, average=source.average):
                leaves = checkpoints.record(step)["leaves"]
                prefix = "ema/" if any(path.startswith("ema/") for path in leaves) else "params/"
                taken = {path: form for path, form in leaves.items() if path.startswith(prefix)}
                hashed.update(json.dumps(taken, sort_keys=True).encode())
        if experiment.warm_start.tokenizers:
            features = [tokenizer_path(directory, side) for side in feature_sides(len(experiment.data.features))]
            for path in [*(tokenizer_path(directory, side) for side in SIDES), *filter(Path.exists, features)]:
                hashed.update(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"warm_start.run={experiment.warm_start.run}: {error}") from None
    return hashed.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
