"""What a run reads: its data, tokenized; and the files that keep what was read in its directory."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from s2s_jax.config import Experiment
from s2s_jax.evaluate.config import evaluation_notes
from s2s_jax.run.batches import encode_training, encode_validation, facts_of
from s2s_jax.run.data import RunData, print_reports, read_data
from s2s_jax.run.model import tokenizer_options
from s2s_jax.run.run_dir import SIDES, WARM_START_FILE, write_config, write_facts, write_json
from s2s_jax.run.tokenizers import make_tokenizers, save_tokenizers
from s2s_jax.run.warm_start import Start
from s2s_jax.text.batches import Noise, Pairs
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.corpora import Mixture
from s2s_jax.text.token_dropout import token_dropout


class Inputs(NamedTuple):
    """The data of a run as the model reads it."""

    data: RunData
    tokenizers: PairTokenizer
    training: Pairs
    validation: Pairs
    facts: dict[str, Any]  # what must not change when the run is resumed
    mixture: Mixture | None = None  # of several training corpora
    noise: Noise = (None, None)  # of the tokens of training pairs

    def with_facts(self, **facts: Any) -> "Inputs":
        """The same with further facts."""
        return self._replace(facts={**self.facts, **facts})


def read_inputs(experiment: Experiment, print_line: Callable[[str], None], *, resumed: Path | None) -> Inputs:
    """Data, tokenizers and training pairs of a run; nothing is written.

    Args:
        resumed: the directory of the run whose tokenizers are used: of the one that is resumed, or of a warm start.

    Raises:
        FileNotFoundError, ValueError: the data cannot be read.
    """
    if not _data or resumed is not None:
        return _read(experiment, print_line, resumed=resumed)
    options, guided = tokenizer_options(experiment.model), experiment.loss.guided
    read = (experiment.data, experiment.tokenizer, experiment.batch, experiment.evaluation, guided, repr(options))
    key = (*_data, *read)
    if key in _kept:
        print_line("data: the same as in the run before, which this process has read")
    else:
        _kept.clear()  # first: memory has room for one
        _kept[key] = _read(experiment, print_line, resumed=None)
    return _kept[key]


_data: list[str] = []  # the digest of the data that is read within `kept_inputs`
_kept: dict[Any, Inputs] = {}


@contextlib.contextmanager
def kept_inputs(data: str) -> Iterator[None]:
    """A block in which what a new run reads is kept for the next one in this process, if its data is the same.

    Args:
        data: a digest of the content of the data.
    """
    _data[:] = [data]
    try:
        yield
    finally:
        _data.clear()


def _read(experiment: Experiment, print_line: Callable[[str], None], *, resumed: Path | None) -> Inputs:
    guided, batch = experiment.loss.guided, experiment.batch
    data = read_data(experiment.data, print_line, links=guided > 0)
    with contextlib.closing(data.training):  # what is trained on are ids
        learning = {
            "tags": experiment.data.tags,
            "cache": experiment.data.cache,
            "print_line": print_line,
            **tokenizer_options(experiment.model),
        }
        tokenizers = make_tokenizers(experiment.tokenizer, data.training, resumed, **learning)
        noise = _noise(tokenizers, experiment)
        options = {"guided": guided, "print_line": print_line}
        pairs, mixed = encode_training(data, tokenizers, experiment.data, batch, **options)
    validation = encode_validation(data, tokenizers, batch)
    print_reports(data.reports, print_line)
    for note in evaluation_notes(data.validation, len(data.validation), experiment.evaluation):
        print_line(f"note: {note}.")
    return Inputs(
        data, tokenizers, pairs, validation, facts_of(pairs, data.validation, tokenizers, mixed), mixed, noise
    )


def _noise(tokenizers: PairTokenizer, experiment: Experiment) -> Noise:
    """The noise of both sides."""
    source, target = (
        token_dropout(
            getattr(tokenizers, side),
            getattr(experiment.tokenizer, side),
            f"tokenizer.{side}",
            guided=experiment.loss.guided,
            reverses=side == "target" and tokenizers.reverses_target,
        )
        for side in SIDES
    )
    return source, target


def write_run(experiment: Experiment, inputs: Inputs, directory: Path, start: Start | None = None) -> None:
    """Write settings, data report, tokenizers, facts and what a warm start took into a run directory."""
    write_config(directory, experiment)  # first: by it the directory is known as a run
    reports = {split: report.record() for split, report in inputs.data.reports.items()}
    write_json(directory / "data_report.json", reports)
    save_tokenizers(inputs.tokenizers, directory)
    write_facts(directory, inputs.facts)
    if start is not None and start.record:
        write_json(directory / WARM_START_FILE, start.record)
