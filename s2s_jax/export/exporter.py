"""How is a run exported? Programs by `jax.export`, parameters as safetensors, in a folder that says what it holds.

Rows and source length are symbols: one program serves every batch. It is lowered for CPU, CUDA and TPU at once, and
compiled where it is used. A batch goes on, whole, for its longest sentence: rows that are a symbol are not halved.
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
from s2s_jax.export.manifest import PARAMETERS, SIDES, tokenizer_file, write_manifest
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.interface import Model
from s2s_jax.run.loaded_run import Run
from s2s_jax.text.tokenizers import save_tokenizer
from s2s_jax.train.checkpoint.pytree_io import form_of, nested, on_host

PLATFORMS = ("cpu", "cuda", "tpu")


def export_run(run: Run, directory: Path, *, beam: int = 5, max_length: int = 0, programs: bool = True) -> None:
    """Write a run to a folder that did not exist, all of it or nothing.

    Args:
        beam: of the search that is exported beside greedy search; 1 for none.
        max_length: most tokens of a translation; 0 for the run's own bound.
        programs: whether there are any; else parameters, tokenizers and the description alone.

    Raises:
        ValueError: the folder exists, or the run's search is none that can be exported.
    """
    if directory.exists():
        raise ValueError(f"{directory} exists already; name a new folder, or remove it.")
    searches = _searches(run, beam=beam, max_length=max_length) if programs else []
    draft = directory.with_name(directory.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    parameters = named_parameters(run)
    _save(parameters, draft / PARAMETERS)
    for side in SIDES:
        save_tokenizer(run.tokenizers[side], draft / tokenizer_file(side))
    tokens = lengths(run.experiment.model.attention)
    described = [_write_program(run, search, parameters, tokens, draft) for search in searches]
    facts = {
        "s2s_jax": s2s_jax.__version__,
        "jax": jax.__version__,
        "platforms": PLATFORMS,
        "step": run.step,
        "vocabularies": {side: run.tokenizers[side].size for side in SIDES},
        "slots": run.pair.slots,
        "parameters": {name: form_of(value) for name, value in parameters.items()},
        "source_tokens": tokens,
        "searches": described,
        "config": configs.to_json(run.experiment),
    }
    write_manifest(draft, facts)
    draft.rename(directory)


def named_parameters(run: Run) -> dict[str, np.ndarray]:
    """The parameters, each by the names that lead to it: `model.decoder.readout.weight`."""
    return {path.replace("/", "."): value for path, value in on_host(run.params).items()}


def _save(parameters: dict[str, np.ndarray], path: Path) -> None:
    try:
        from safetensors.numpy import save_file
    except ImportError:
        raise ValueError('an export needs safetensors and flatbuffers; install "s2s_jax[export]".') from None
    save_file(parameters, path, metadata={"s2s_jax": s2s_jax.__version__})


def _searches(run: Run, *, beam: int, max_length: int) -> list[SearchConfig]:
    """Greedy search by the run's rules, and the run's own search with a beam."""
    own = run.search(beam=beam)
    if own.method != "beam":
        raise ValueError(
            f"search.method={own.method} cannot be exported, only greedy and beam search; say search.method=beam."
        )
    if own.language_model:
        raise ValueError(f"search.language_model={own.language_model} cannot be exported; leave it out.")
    own = dataclasses.replace(own, max_length=max_length or own.max_length or run.max_length)
    plain = {"beam": 1, "n_best": 0, "groups": 1, "group_penalty": 0.0, "sibling_penalty": 0.0, "stopping": "full"}
    greedy = dataclasses.replace(own, **plain)
    return [greedy] if beam == 1 else [greedy, own]


def _plain(search: SearchConfig) -> dict[str, Any]:
    """The settings that the host reads; those of groups, such as the rules, are part of the program."""
    return {name: value for name, value in vars(search).items() if not dataclasses.is_dataclass(value)}


def lengths(attention: AttentionConfig) -> dict[str, int]:
    """The least and the most tokens that a source may be padded to; 0 for no bound.

    Programs are traced without the length, so what looks at several tokens at once must be sure that they are there.
    """
    most = attention.positions if attention.score == "location" else 0
    return {"least": rounded_length(max(attention.mocha_chunk, attention.top_k)), "most": most}


def _write_program(
    run: Run, search: SearchConfig, parameters: dict[str, np.ndarray], tokens: dict[str, int], directory: Path
) -> dict[str, Any]:
    """Write a search; what there is to say of it."""
    file = "greedy.program" if search.beam == 1 else f"beam{search.beam}.program"
    (directory / file).write_bytes(program(run.model, search, parameters, **tokens))
    return {"program": file, "settings": _plain(search)}


def program(
    model: Model, search: SearchConfig, parameters: Mapping[str, np.ndarray], *, least: int = 8, most: int = 0
) -> bytes:
    """A search as a function of named parameters, and source ids, serialized.

    Args:
        search: with a `max_length` of its own.
        least: tokens that every source is padded to.
        most: tokens that no source is padded beyond; 0 for no bound.
    """
    find = compiled_search(model, search, search.max_length)

    def found(parameters: dict[str, Array], source: Int[Array, "B S"]) -> tuple[Array, ...]:
        params = nested({name.replace(".", "/"): value for name, value in parameters.items()})
        return tuple(find(params, source, jnp.zeros(source.shape[0], jnp.int32)))

    bounds = [f"length >= {least}", *([f"length <= {most}"] if most else [])]
    shape = export.symbolic_shape("rows, length", constraints=bounds)
    shapes = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in parameters.items()}
    source = jax.ShapeDtypeStruct(shape, jnp.int32)
    return bytes(export.export(jax.jit(found), platforms=PLATFORMS)(shapes, source).serialize())
