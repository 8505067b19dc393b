"""The data of a run: training and validation examples, and what was dropped or changed."""

from collections.abc import Callable
from typing import NamedTuple

from s2s_jax.text.data_report import DataReport
from s2s_jax.text.example import Example
from s2s_jax.text.sources import DataConfig, read_split


class RunData(NamedTuple):
    """The examples that a run reads, with a report per split."""

    training: list[Example]
    validation: list[Example]
    reports: dict[str, DataReport]  # by split: train, validation


def read_data(config: DataConfig, print_line: Callable[[str], None]) -> RunData:
    """The training and validation splits, with their reports printed.

    Raises:
        FileNotFoundError, ValueError: with file and line where the data is at fault.
    """
    training, training_report = read_split(config, "train")
    for line in training_report.lines():
        print_line(f"training data: {line}")
    validation, validation_report = read_split(config, "validation")
    print_line(f"validation data: {validation_report.lines()[0]}")
    return RunData(training, validation, {"train": training_report, "validation": validation_report})
