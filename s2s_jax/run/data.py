"""The data of a run: training and validation examples, and what was dropped or changed."""

from collections.abc import Callable
from typing import NamedTuple

from s2s_jax.text.corpus import Corpus, blocks_of
from s2s_jax.text.data_checks import TrainingPairs
from s2s_jax.text.data_report import DataReport
from s2s_jax.text.encoding import folder_for_data
from s2s_jax.text.example import Example
from s2s_jax.text.progress import reported
from s2s_jax.text.sources import DataConfig, corpus_streams, has_splits, read_split


class RunData(NamedTuple):
    """The pairs that a run reads, with a report per split."""

    training: Corpus  # which may be closed when it is encoded
    validation: list[Example]
    reports: dict[str, DataReport]  # by split: train, validation, and test where its files are named


def read_data(config: DataConfig, print_line: Callable[[str], None], *, links: bool) -> RunData:
    """The training and validation splits; the files of a test split are compared with the training data.

    Args:
        links: whether the alignments of the training pairs are kept.

    Raises:
        FileNotFoundError, ValueError: with file and line where the data is at fault.
        OSError: the disk is full.
    """
    splits = ["validation", *["test"] * (bool(config.test) and not has_splits(config.test))]
    report, known = DataReport(), TrainingPairs()
    training = Corpus(folder_for_data(config.cache), links=links)
    blocks = (block for examples in corpus_streams(config, report) for block in blocks_of(examples))
    for block in reported(blocks, print_line, "training data read", count=lambda block: len(block.sources)):
        training.append(block)
        known.add(block.sources, block.targets, block.features)
    print_line(f"training data: {report.read:,} pairs read")
    report.shares = known.shares()
    reports, held_out = {"train": report}, {}
    for split in splits:
        held_out[split], reports[split] = read_split(config, split)
        reports[split].shares = known.overlap_shares(held_out[split])
    return RunData(training, held_out["validation"], reports)


def print_reports(reports: dict[str, DataReport], print_line: Callable[[str], None]) -> None:
    """Print what was kept and dropped of each split, and why."""
    names = {"train": "training", "validation": "validation", "test": "test"}
    for split, report in reports.items():
        for line in report.lines():
            print_line(f"{names[split]} data: {line}")
