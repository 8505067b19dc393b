"""Export of a run: programs by `jax.export`, parameters as safetensors, and a manifest, in a directory.

The numbers of rows and of source tokens are symbolic: one program serves every batch. It is lowered for CPU, CUDA and
TPU at once, and compiled where it is used. A batch is decoded whole until its longest sentence ends: batches whose
number of rows is symbolic are not compacted.
"""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Int

import s2s_jax
from s2s_jax import config as configs
from s2s_jax.decode.batching import rounded_length
from s2s_jax.decode.search import SearchConfig, compiled_search
from s2s_jax.export.manifest import PARAMETERS, TOKENIZER_SIDES, tokenizer_file, write_manifest
from s2s_jax.extras import needs_extra
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.interface import Model
from s2s_jax.run.loaded_run import Run
from s2s_jax.text.tokenizers import save_tokenizer
from s2s_jax.training.checkpoint.pytree_io import form_of, nested, on_host

PLATFORMS = ("cpu", "cuda", "tpu")
DEFAULT_BEAM = 5
# settings that mean nothing on another machine
OF_MACHINE = ("device", "checkpoint", "record", "budget")
FOLDERS_OF_DATA = ("cache", "directory", "manual_dir")


def export_run(
    run: Run, directory: Path, *, beam: int = DEFAULT_BEAM, max_length: int = 0, programs: bool = True
) -> None:
    """Write a run to a new directory, completely or not at all.

    Args:
        beam: beam width of the search that is exported beside greedy search; 1 for greedy search alone.
        max_length: most tokens of a translation; 0 for the run's own bound.
        programs: whether to export searches; without them parameters, tokenizers and manifest alone.

    Raises:
        ValueError: the directory exists, or the run's search cannot be exported.
    """
    if directory.exists():
        raise ValueError(f"{directory} exists already; name a new directory, or remove it.")
    if run.pair.features.tokenizers:
        raise ValueError(
            f"data.features={','.join(run.experiment.data.features)} cannot be exported: its programs read source "
            "lines alone. Translate with the run itself, or train a run without data.features."
        )
    searches = _searches(run, beam=beam, max_length=max_length) if programs else []
    draft = directory.with_name(directory.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    parameters = named_parameters(run)
    _save(parameters, draft / PARAMETERS)
    for side in TOKENIZER_SIDES:
        save_tokenizer(run.tokenizers[side], draft / tokenizer_file(side))
    tokens = source_lengths(run.experiment.model.attention)
    described = [_write_program(run, search, parameters, tokens, draft) for search in searches]
    facts = {
        "s2s_jax": s2s_jax.__version__,
        "jax": jax.__version__,
        "platforms": PLATFORMS,
        "step": run.step,
        "vocabularies": {side: run.tokenizers[side].size for side in TOKENIZER_SIDES},
        "slots": run.pair.slots,
        "reverse_target": run.pair.reverses_target,
        "parameters": {name: form_of(value) for name, value in parameters.items()},
        "source_tokens": tokens,
        "searches": described,
        "config": _portable_settings(run),
    }
    write_manifest(draft, facts)
    draft.rename(directory)


def _portable_settings(run: Run) -> dict[str, Any]:
    """The settings of a run that mean something on another machine."""
    groups = {name: group for name, group in configs.to_json(run.experiment).items() if name not in OF_MACHINE}
    return groups | {"data": {name: value for name, value in groups["data"].items() if name not in FOLDERS_OF_DATA}}


def named_parameters(run: Run) -> dict[str, np.ndarray]:
    """The parameters by dotted name, such as `decoder.readout.weight`."""
    return {path.replace("/", "."): value for path, value in on_host(run.params).items()}


def _save(parameters: dict[str, np.ndarray], path: Path) -> None:
    try:
        from safetensors.numpy import save_file
    except ImportError:
        raise ValueError(needs_extra("an export", "export")) from None
    save_file(parameters, path, metadata={"s2s_jax": s2s_jax.__version__})


def _searches(run: Run, *, beam: int, max_length: int) -> list[SearchConfig]:
    """Greedy search with the run's rules, and the run's own search with the given beam width."""
    own = run.search(beam=beam)
    if own.method != "beam":
        raise ValueError(
            f"search.method={own.method} cannot be exported, only greedy and beam search; set search.method=beam."
        )
    if own.language_model:
        raise ValueError(f"search.language_model={own.language_model} cannot be exported; leave it out.")
    own = dataclasses.replace(own, max_length=max_length or own.max_length or run.max_length)
    plain = {"beam": 1, "n_best": 0, "groups": 1, "group_penalty": 0.0, "sibling_penalty": 0.0, "stopping": "full"}
    greedy = dataclasses.replace(own, **plain)
    return [greedy] if beam == 1 else [greedy, own]


def _outer_settings(search: SearchConfig) -> dict[str, Any]:
    """The settings that are read outside the program; those of groups, such as the rules, are compiled into it."""
    return {name: value for name, value in vars(search).items() if not dataclasses.is_dataclass(value)}


def source_lengths(attention: AttentionConfig) -> dict[str, int]:
    """The least and the most tokens that a source may be padded to; 0 for no bound.

    Programs are traced with a symbolic length, so operations on several tokens at once need a lower bound.
    """
    most = attention.positions if attention.score == "location" else 0
    return {"least": rounded_length(max(attention.mocha_chunk, attention.top_k)), "most": most}


def _write_program(
    run: Run, search: SearchConfig, parameters: dict[str, np.ndarray], tokens: dict[str, int], directory: Path
) -> dict[str, Any]:
    """Write the program of a search, and return its entry of the manifest."""
    file = "greedy.program" if search.beam == 1 else f"beam{search.beam}.program"
    (directory / file).write_bytes(serialized_search(run.model, search, parameters, **tokens))
    return {"program": file, "settings": _outer_settings(search)}


def serialized_search(
    model: Model, search: SearchConfig, parameters: Mapping[str, np.ndarray], *, least: int = 8, most: int = 0
) -> bytes:
    """The serialized program of a search: a function of named parameters and source ids.

    Args:
        search: its `max_length` must be set.
        least: every source is padded to at least so many tokens.
        most: no source is padded to more tokens; 0 for no bound.
    """
    find = compiled_search(model, search, search.max_length)

    def search_fn(parameters: dict[str, Array], source: Int[Array, "B S"]) -> tuple[Array, ...]:
        params = nested({name.replace(".", "/"): value for name, value in parameters.items()})
        return tuple(find(params, source, jnp.zeros(source.shape[0], jnp.int32)))

    bounds = [f"length >= {least}", *([f"length <= {most}"] if most else [])]
    shape = export.symbolic_shape("rows, length", constraints=bounds)
    shapes = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in parameters.items()}
    source = jax.ShapeDtypeStruct(shape, jnp.int32)
    return bytes(export.export(jax.jit(search_fn), platforms=PLATFORMS)(shapes, source).serialize())
