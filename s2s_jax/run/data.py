"""The data of a run: training and validation examples, and what was dropped or changed."""

from collections.abc import Callable
from typing import NamedTuple

from s2s_jax.text.data_checks import overlap_shares, training_shares
from s2s_jax.text.data_report import DataReport
from s2s_jax.text.example import Example
from s2s_jax.text.sources import DataConfig, has_splits, read_split


class RunData(NamedTuple):
    """The examples that a run reads, with a report per split."""

    training: list[Example]
    validation: list[Example]
    reports: dict[str, DataReport]  # by split: train, validation, and test where its files are named


def read_data(config: DataConfig, print_line: Callable[[str], None]) -> RunData:
    """The training and validation splits; the files of a test split are compared with the training data.

    Raises:
        FileNotFoundError, ValueError: with file and line where the data is at fault.
    """
    splits = ["validation", *["test"] * (bool(config.test) and not has_splits(config.test))]
    training, report = read_split(config, "train")
    print_line(f"training data: {report.read:,} pairs read")
    report.shares = training_shares(training)
    reports, held_out = {"train": report}, {}
    for split in splits:
        held_out[split], reports[split] = read_split(config, split)
        reports[split].shares = overlap_shares(held_out[split], training)
    return RunData(training, held_out["validation"], reports)


def print_reports(reports: dict[str, DataReport], print_line: Callable[[str], None]) -> None:
    """Print what was kept and dropped of each split, and why."""
    names = {"train": "training", "validation": "validation", "test": "test"}
    for split, report in reports.items():
        for line in report.lines():
            print_line(f"{names[split]} data: {line}")
