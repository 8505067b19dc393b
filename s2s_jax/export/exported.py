"""Translation with an exported run, whose programs hold model and search: it needs jax and the tokenizers alone."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jaxtyping import Array, Int

from s2s_jax.decode.batching import Ready
from s2s_jax.decode.lexical_constraints import ConstrainedLine
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.search import CompiledSearch, SearchConfig
from s2s_jax.decode.translate import Translation, Translator
from s2s_jax.export.manifest import MANIFEST, PARAMETERS, TOKENIZER_SIDES, other_version, read_manifest, tokenizer_file
from s2s_jax.extras import needs_extra
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.tokenizers import load_tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """An exported run, which translates as the run itself does."""

    manifest: dict[str, Any]  # export.json
    params: dict[str, jax.Array]  # by name, as in parameters.safetensors
    translators: dict[int, Translator]  # by beam; 1 is greedy search

    def translate(self, lines: Iterable[str | ConstrainedLine], *, beam: int | None = None) -> list[Translation]:
        """One translation per line, in order.

        Args:
            beam: beam width of one of the exported searches; the widest where it is None.
        """
        if isinstance(lines, str):
            raise TypeError("lines must be several, got one text; put it in a list: [text].")
        return list(self.stream(lines, beam=beam))

    def stream(
        self,
        lines: Iterable[str | ConstrainedLine],
        *,
        window: int = 0,
        ready: Ready | None = None,
        beam: int | None = None,
    ) -> Iterator[Translation]:
        """As `translate`, but lazily; `window` and `ready` as in `Run.stream`."""
        return self.translator(beam=beam).translate(self.params, lines, window=window, ready=ready)

    def search(self, *, beam: int | None = None) -> SearchConfig:
        """The settings of one of the searches."""
        return self.translator(beam=beam).config

    def translator(self, *, beam: int | None = None) -> Translator:
        """One of the searches.

        Raises:
            ValueError: no search of this beam width was exported.
        """
        wanted = max(self.translators) if beam is None else beam
        if wanted not in self.translators:
            known = " and ".join(map(str, sorted(self.translators)))
            raise ValueError(f"beam must be one that was exported ({known}), got {wanted}; s2s export has --beam.")
        return self.translators[wanted]


def load_exported(directory: str | Path) -> Exported:
    """The exported run in a directory, whose files are all checked.

    Raises:
        ValueError: it is not there, a file has changed, or it has no programs.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    if not manifest["searches"]:
        raise ValueError(f"{directory} holds parameters alone, no programs; export without --parameters-only.")
    _check_platform(directory, manifest)
    for search in manifest["searches"]:
        _check_settings(directory, manifest, search["settings"])
    pair = PairTokenizer(
        *(load_tokenizer(directory / tokenizer_file(side)) for side in TOKENIZER_SIDES),
        slots=manifest["slots"],
        reverses_target=manifest.get("reverse_target", False),
    )
    translators = {
        search["settings"]["beam"]: Translator(
            _load_search(directory / search["program"], jax_version=manifest["jax"], **manifest["source_tokens"]),
            pair,
            SearchConfig(**search["settings"]),
        )
        for search in manifest["searches"]
    }
    return Exported(manifest=manifest, params=_parameters(directory / PARAMETERS), translators=translators)


def _check_platform(directory: Path, manifest: dict[str, Any]) -> None:
    platform = export.default_export_platform()
    if platform not in manifest["platforms"]:
        known = ", ".join(manifest["platforms"])
        raise ValueError(
            f"{directory} has programs for {known}, and jax runs on {platform} here; set JAX_PLATFORMS to one of those "
            "that this machine has, or translate with the run itself."
        )


def _check_settings(directory: Path, manifest: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuse settings of the search that this version does not have."""
    unknown = sorted(set(settings) - set(SearchConfig.__dataclass_fields__))
    if unknown:
        raise ValueError(
            f"{directory / MANIFEST} has a setting that this version does not know, search.{unknown[0]}: "
            f"{other_version(manifest)}"
        )


def _parameters(path: Path) -> dict[str, jax.Array]:
    try:
        from safetensors.numpy import load_file
    except ImportError:
        raise ValueError(needs_extra("an exported run", "export")) from None
    return jax.device_put(load_file(path))


def _load_search(path: Path, *, jax_version: str, least: int, most: int) -> CompiledSearch:
    """The search of a program, which is read when it is first called; sources have `least` to `most` tokens."""

    @functools.cache
    def program() -> Callable[..., tuple[Array, ...]]:
        try:
            exported = export.deserialize(bytearray(path.read_bytes()))
        except Exception as error:  # of several types, from a format that this jax does not read
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{path} cannot be read by jax {jax.__version__} ({reason}); install jax {jax_version}, which wrote "
                "it, or export the run again."
            ) from None
        return jax.jit(exported.call)

    def search(
        params: dict[str, Array],
        source: Int[np.ndarray, "B S"],
        numbers: Int[np.ndarray, " B"],
        compactions: int = 0,
        **constraints: np.ndarray,
    ) -> SearchResult:
        if constraints:
            names = " and ".join(constraints)
            raise ValueError(f"an exported run cannot translate with {names}; translate with the run itself.")
        tokens = source.shape[1]
        if most and tokens > most:
            raise ValueError(
                f"an exported run reads sources padded to at most {most} tokens, got {tokens}; leave longer lines out, "
                "or train with a larger model.attention.positions."
            )
        source = np.pad(source, [(0, 0), (0, max(0, least - tokens))])
        result = SearchResult(*program()(params, source))
        return result._replace(alignment=result.alignment[..., :tokens])

    return search
