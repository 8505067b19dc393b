"""What does one checkpoint hold, what does it say of itself, and is every bit of it as it was saved?

Orbax writes a step: its arrays as Zarr 3 in an OCDBT store, and beside them `_CHECKPOINT_METADATA`. There our record is
kept (format, step, metrics, about, and the dtype, shape and CRC-32 of each leaf), and a CRC-32 of the record, the seal.

Arrays are read by TensorStore, the library beneath Orbax. Orbax itself returns a flipped bit without a word, casts to
whatever dtype it is asked for, takes any shape, and meets damage with tracebacks from its threads.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from orbax.checkpoint import v1 as orbax

from s2s_jax.train.checkpoint.pytree_io import checksum, described, empty, to_json

FORMAT = 1  # raised when an older s2s could no longer read what this one writes
BEST_BY = "loss"  # the metric, lower is better, by which the best steps are kept
STATE, METADATA = "state", "_CHECKPOINT_METADATA"  # where Orbax puts the arrays, and what is said about them
RECORD, SEAL = "s2s_jax", "crc32"  # in the custom metadata: what we say, and the checksum of what we say


class CheckpointError(OSError):
    """A checkpoint cannot be written, or none that is good can be found."""


class DamageError(Exception):
    """What is wrong with one step, so that the next may be tried."""

    def __init__(self, step: Path, problems: Sequence[str]):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"step {step.name}: {problems[0]}{more}")
        self.problems = list(problems)


def record_of(
    step: int, arrays: Mapping[str, np.ndarray], *, metrics: Mapping[str, float] | None, about: Mapping[str, Any]
) -> dict[str, Any]:
    """What a checkpoint is to say of itself, as JSON gives it back.

    Raises:
        ValueError: the metrics lack the loss, or JSON cannot say what `about` holds.
    """
    if metrics is not None and BEST_BY not in metrics:
        raise ValueError(
            f"metrics must hold {BEST_BY!r}, by which the best checkpoint is chosen, got {sorted(metrics)}"
        )
    numbers = {name: float(value) for name, value in (metrics or {}).items()}
    try:
        said = json.loads(json.dumps(dict(about), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"about must be what JSON can say, got {dict(about)!r} ({error})") from None
    return {
        "format": FORMAT,
        "step": step,
        "metrics": {name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "about": said,
        "leaves": described(arrays),
    }


def loss_of(record: Mapping[str, Any]) -> float | None:
    """The validation loss that was given at the save, None when none was or when it was not finite."""
    return record["metrics"].get(BEST_BY)


def start_writing(step: Path, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any], *, replace: bool) -> Any:
    """The write in the background, whose `result()` returns when it has ended, or raises what went wrong."""
    storable = {path: leaf for path, leaf in arrays.items() if leaf.size}  # Orbax refuses arrays without elements
    said: Any = {RECORD: record, SEAL: _seal(record)}
    context = orbax.Context()
    context.array.saving.use_ocdbt = context.array.saving.use_zarr3 = True  # what `read_arrays` reads
    with context:
        return orbax.save_async(str(step), storable, overwrite=replace, custom_metadata=said)


def read_record(step: Path) -> dict[str, Any]:
    """What a step says of itself.

    Raises:
        DamageError: nothing that can be believed.
        CheckpointError: the step was written by a newer s2s.
    """
    file = step / METADATA
    with _as_damage(step, reading=file):
        said = json.loads(file.read_bytes())["custom_metadata"]
        record, seal = said[RECORD], said[SEAL]
    if seal != _seal(record):
        raise DamageError(step, [f"{file} is damaged: its checksum does not fit what it says"])
    if record["format"] > FORMAT:
        text = f"{step} has format {record['format']}, and this s2s reads formats up to {FORMAT}; update s2s"
        raise CheckpointError(text)
    if record["step"] != int(step.name):
        raise DamageError(step, [f"{step} holds step {record['step']}; was it renamed?"])
    return record


def read_arrays(step: Path, record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Every leaf of a step under its path, once it is found to be, bit for bit, what was saved.

    Raises:
        DamageError: it is not.
    """
    forms, shared = record["leaves"], tensorstore.Context({"cache_pool": {"total_bytes_limit": 100_000_000}})
    stores = {path: _opened(step / STATE, path, shared) for path, form in forms.items() if math.prod(form["shape"])}
    arrays: dict[str, np.ndarray] = {}
    problems = []
    for path, form in forms.items():
        try:
            arrays[path] = _read(stores[path], form) if path in stores else empty(form)
        except (OSError, ValueError) as error:
            problems.append(f"leaf {path!r}: {one_line(error)}")
    if problems:
        raise DamageError(step, problems)
    return arrays


def one_line(error: BaseException) -> str:
    """What an error says, and its kind; of a long story the middle goes, since the cause stands last."""
    said = " ".join(str(error).split(" [tensorstore_spec=")[0].split())
    short = said if len(said) <= 400 else f"{said[:200]} ... {said[-200:]}"
    return short if type(error) is ValueError else f"{type(error).__name__}: {short}"  # TensorStore knows no other kind


def _opened(state: Path, path: str, shared: tensorstore.Context) -> Any:
    base = {"driver": "file", "path": f"{state}/"}
    store = {"driver": "zarr3", "kvstore": {"driver": "ocdbt", "base": base, "path": f"{path}/"}}
    return tensorstore.open(store, open=True, read=True, context=shared)


def _read(opening: Any, form: Mapping[str, Any]) -> np.ndarray:
    store = opening.result()
    there = {"dtype": store.dtype.name, "shape": list(store.shape)}
    if to_json(there) != to_json(form):  # before any memory is taken for it
        raise ValueError(f"it is {to_json(there)}, was {to_json(form)} when saved")
    array = np.asarray(store.read().result())
    if checksum(array) != form["crc32"]:
        raise ValueError(f"its checksum is {checksum(array):08x}, was {form['crc32']:08x} when saved")
    return array


def _seal(record: Any) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


@contextmanager
def _as_damage(step: Path, *, reading: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:  # all that strange JSON can lead to
        raise DamageError(step, [f"{reading} cannot be read: {one_line(error)}"]) from error
