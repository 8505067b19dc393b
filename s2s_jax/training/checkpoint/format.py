"""The format of one checkpoint: its arrays, its record, and the checks that every bit is as it was saved.

Orbax writes a step: its arrays as Zarr 3 in an OCDBT store, and beside them `_CHECKPOINT_METADATA`. There our record is
kept (format, step, metrics, about, run, and the dtype, shape and CRC-32 of each leaf), and a CRC-32 of the record, the
seal.

Arrays are read by TensorStore, the library beneath Orbax. Orbax itself returns a flipped bit without a word, casts to
any requested dtype, takes any shape, and meets damage with tracebacks from its threads.
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

from s2s_jax.training.checkpoint.pytree_io import checksum, empty, form_text

CHECKPOINT_FORMAT = 3  # raised whenever a checkpoint of one format cannot be read by code of another
BEST_BY = "loss"  # the metric, lower is better, by which the best steps are kept
STATE, METADATA = "state", "_CHECKPOINT_METADATA"  # where Orbax puts the arrays and the metadata
RECORD, SEAL = "s2s_jax", "crc32"  # in the custom metadata: our record, and its checksum


class CheckpointError(OSError):
    """A checkpoint cannot be written, or none that is good can be found."""


class DamageError(Exception):
    """The problems of one step; the next one may be tried."""

    def __init__(self, step: Path, problems: Sequence[str]):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"step {step.name}: {problems[0]}{more}")
        self.problems = list(problems)


def record_of(
    step: int,
    leaves: Mapping[str, Mapping[str, Any]],
    *,
    metrics: Mapping[str, float] | None,
    about: Mapping[str, Any],
    run: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of a checkpoint, as JSON gives it back.

    Args:
        leaves: dtype, shape and checksum of each leaf.
        run: what identifies the run that saves it: its settings, and fingerprints of its data and tokenizers.

    Raises:
        ValueError: the metrics lack the loss, or JSON cannot represent `about`.
    """
    if metrics is not None and BEST_BY not in metrics:
        raise ValueError(
            f"metrics must hold {BEST_BY!r}, by which the best checkpoint is chosen, got {sorted(metrics)}"
        )
    numbers = {name: float(value) for name, value in (metrics or {}).items()}
    try:
        plain = json.loads(json.dumps(dict(about), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"about must be what JSON can represent, got {dict(about)!r} ({error})") from None
    return {
        "format": CHECKPOINT_FORMAT,
        "step": step,
        "metrics": {name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "about": plain,
        "run": json.loads(json.dumps(dict(run))),
        "leaves": {path: dict(form) for path, form in leaves.items()},
    }


def loss_of(record: Mapping[str, Any]) -> float | None:
    """The validation loss that was given at the save, None when none was or when it was not finite."""
    return record["metrics"].get(BEST_BY)


def start_writing(step: Path, arrays: Mapping[str, Any], record: Mapping[str, Any], *, replace: bool) -> Any:
    """The write in the background, whose `result()` returns when it has ended, or raises its error."""
    storable = {path: leaf for path, leaf in arrays.items() if leaf.size}  # Orbax refuses arrays without elements
    metadata: Any = {RECORD: record, SEAL: _seal(record)}
    context = orbax.Context()
    context.array.saving.use_ocdbt = context.array.saving.use_zarr3 = True  # what `read_arrays` reads
    with context:
        return orbax.save_async(str(step), storable, overwrite=replace, custom_metadata=metadata)


def read_record(step: Path) -> dict[str, Any]:
    """The record of a step.

    Raises:
        DamageError: it cannot be read or its checksum is wrong.
        CheckpointError: the step has another format.
    """
    file = step / METADATA
    with _as_damage(step, reading=file):
        metadata = json.loads(file.read_bytes())["custom_metadata"]
        record, seal = metadata[RECORD], metadata[SEAL]
    if seal != _seal(record):
        raise DamageError(step, [f"{file} is damaged: its checksum does not match its content"])
    if record["format"] != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{step} has format {record['format']}, and this s2s_jax reads format {CHECKPOINT_FORMAT}; "
            + (
                "update s2s_jax"
                if record["format"] > CHECKPOINT_FORMAT
                else "use the version that wrote it, or train again"
            )
        )
    if record["step"] != int(step.name):
        raise DamageError(step, [f"{step} holds step {record['step']}; was it renamed?"])
    return record


def read_arrays(step: Path, record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Every leaf of a step by its path, after checking that it is, bit for bit, what was saved.

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
            problems.append(f"leaf {path!r}: {error_line(error)}")
    if problems:
        raise DamageError(step, problems)
    return arrays


def error_line(error: BaseException) -> str:
    """The text of an error and its type; a long text loses its middle, since the cause comes last."""
    text = " ".join(str(error).split(" [tensorstore_spec=")[0].split())
    short = text if len(text) <= 400 else f"{text[:200]} ... {text[-200:]}"
    return (
        short if type(error) is ValueError else f"{type(error).__name__}: {short}"
    )  # TensorStore raises no other type


def _opened(state: Path, path: str, shared: tensorstore.Context) -> Any:
    base = {"driver": "file", "path": f"{state}/"}
    store = {"driver": "zarr3", "kvstore": {"driver": "ocdbt", "base": base, "path": f"{path}/"}}
    return tensorstore.open(store, open=True, read=True, context=shared)


def _read(opening: Any, form: Mapping[str, Any]) -> np.ndarray:
    store = opening.result()
    stored = {"dtype": store.dtype.name, "shape": list(store.shape)}
    if form_text(stored) != form_text(form):  # before any memory is taken for it
        raise ValueError(f"it is {form_text(stored)}, was {form_text(form)} when saved")
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
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:  # all that malformed JSON can lead to
        raise DamageError(step, [f"{reading} cannot be read: {error_line(error)}"]) from error
