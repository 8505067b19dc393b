"""How does an exported run translate? With jax and the tokenizers alone: the programs hold the model and the search."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jaxtyping import Array, Int

from s2s_jax.decode.lexical_constraints import ConstrainedLine
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.search import CompiledSearch, SearchConfig
from s2s_jax.decode.translate import Translation, Translator
from s2s_jax.export.manifest import PARAMETERS, SIDES, read_manifest, tokenizer_file
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.tokenizers import load_tokenizer
from s2s_jax.train import devices


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """An exported run; it translates as the run itself did."""

    description: dict[str, Any]  # export.json
    params: dict[str, jax.Array]  # by name, as in parameters.safetensors
    translators: dict[int, Translator]  # by beam; 1 is greedy search

    def translate(self, lines: Iterable[str | ConstrainedLine], *, beam: int | None = None) -> list[Translation]:
        """A translation for each line, in order.

        Args:
            beam: one of the exported searches; the widest where it is None.
        """
        if isinstance(lines, str):
            raise TypeError("lines must be several, got one text; put it in a list: [text].")
        return list(self.stream(lines, beam=beam))

    def stream(
        self, lines: Iterable[str | ConstrainedLine], *, window: int = 0, beam: int | None = None
    ) -> Iterator[Translation]:
        """The same, as they come; of `window` lines before the first answer, see `Trained.stream`."""
        return self.translator(beam=beam).translate(self.params, lines, window=window)

    def search(self, *, beam: int | None = None) -> SearchConfig:
        """The settings of one of the searches."""
        return self.translator(beam=beam).config

    def translator(self, *, beam: int | None = None) -> Translator:
        """One of the searches.

        Raises:
            ValueError: there is none of this beam.
        """
        wanted = max(self.translators) if beam is None else beam
        if wanted not in self.translators:
            known = " and ".join(map(str, sorted(self.translators)))
            raise ValueError(f"beam must be one that was exported ({known}), got {wanted}; s2s export has --beam.")
        return self.translators[wanted]


def load_exported(directory: str | Path) -> Exported:
    """What `s2s export` wrote, every file of it checked.

    Raises:
        ValueError: there is none, a file of it has changed, or it holds no programs.
    """
    directory = Path(directory)
    said = read_manifest(directory)
    if not said["searches"]:
        raise ValueError(f"{directory} holds parameters alone, no programs; export without --parameters-only.")
    devices.use_compilation_cache(devices.DeviceConfig(**said["config"]["device"]))
    devices.keep_freed_memory()
    pair = PairTokenizer(*(load_tokenizer(directory / tokenizer_file(side)) for side in SIDES), slots=said["slots"])
    translators = {
        search["settings"]["beam"]: Translator(
            _find(directory / search["program"], **said["source_tokens"]),
            pair,
            SearchConfig(**search["settings"]),
        )
        for search in said["searches"]
    }
    return Exported(description=said, params=_parameters(directory / PARAMETERS), translators=translators)


def _parameters(path: Path) -> dict[str, jax.Array]:
    from safetensors.numpy import load_file  # an extra

    return jax.device_put(load_file(path))


def _find(path: Path, *, least: int, most: int) -> CompiledSearch:
    """A search as a run's own ones are called, from its program, read when it is wanted."""

    @functools.cache
    def program() -> Callable[..., tuple[Array, ...]]:
        return jax.jit(export.deserialize(bytearray(path.read_bytes())).call)

    def find(
        params: dict[str, Array],
        source: Int[np.ndarray, "B S"],
        numbers: Int[np.ndarray, " B"],
        compactions: int = 0,
        **wanted: np.ndarray,
    ) -> SearchResult:
        if wanted:
            raise ValueError(f"what was exported knows no {' and no '.join(wanted)}; translate with the run itself.")
        tokens = source.shape[1]
        if most and tokens > most:
            raise ValueError(
                f"what was exported reads sources padded to at most {most} tokens, got {tokens}; leave longer lines "
                "out, or train with a larger model.attention.positions."
            )
        source = np.pad(source, [(0, 0), (0, max(0, least - tokens))])
        found = SearchResult(*program()(params, source))
        return found._replace(alignment=found.alignment[..., :tokens])

    return find
