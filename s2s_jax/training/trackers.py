"""Experiment trackers that a run reports to beside its metrics.jsonl: TensorBoard, Weights & Biases, MLflow.

Each is configured as its own documentation says, by environment variables: WANDB_PROJECT, WANDB_MODE,
MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME. A tracker of your own is a subclass of `Tracker` and a line
`TRACKERS["mine"] = Mine`.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from s2s_jax.extras import needs_extra
from s2s_jax.training.checkpoint.disk import replace_file

IDS_FILE = "trackers.json"  # in the run's directory: the names under which the trackers know the run
Pixels = UInt8[np.ndarray, "height width 3"]


class NotInstalled(ValueError):  # noqa: N818
    """The packages of a tracker are missing; the message says what to install."""


class Tracker:
    """The base of all trackers: of what it is not interested in, a subclass need not define the method."""

    def __init__(self, directory: Path, settings: Mapping[str, Any]):
        """Begin, or go on with, the tracker's record of the run in a directory, whose settings these are."""

    def numbers(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Report the finite numbers of a record of metrics.jsonl: of a kind such as train or validation."""

    def picture(self, name: str, step: int, pixels: Pixels) -> None:
        """Report a picture."""

    def close(self) -> None:
        """Send what is left."""


class TensorBoard(Tracker):
    """Files in the folder `tensorboard` of the run."""

    def __init__(self, directory: Path, settings: Mapping[str, Any]):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise NotInstalled(needs_extra("record.trackers=tensorboard", "tensorboard")) from None
        self._board = SummaryWriter(str(directory / "tensorboard"))
        rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
        self._board.add_text("settings", f"| setting | value |\n| --- | --- |\n{rows}")

    def numbers(self, kind, step, values):
        """One curve per number."""
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, name, step, pixels):
        """One picture per step."""
        self._board.add_image(name, pixels, step, dataformats="HWC")

    def close(self):
        """Write the files to their end."""
        self._board.close()


class WeightsAndBiases(Tracker):
    """A run of Weights & Biases; a resumed run goes on in the same one."""

    def __init__(self, directory: Path, settings: Mapping[str, Any]):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise NotInstalled(needs_extra("record.trackers=wandb", "wandb")) from None
        self._wandb = wandb
        name = known_id(directory, "wandb", lambda: uuid.uuid4().hex[:12])
        self._run = wandb.init(
            dir=str(directory),
            id=name,
            name=directory.name,
            resume="allow",
            reinit="create_new",
            config=dict(settings),
            settings=wandb.Settings(console="off", silent=True),
        )
        # a resumed run repeats steps, which W&B's own counter does not allow
        self._run.define_metric("*", step_metric="step")

    def numbers(self, kind, step, values):
        """One curve per number, over our own step."""
        self._run.log({f"{kind}/{name}": value for name, value in values.items()} | {"step": step})

    def picture(self, name, step, pixels):
        """One picture per step."""
        self._run.log({name: self._wandb.Image(pixels), "step": step})

    def close(self):
        """Send what is left."""
        self._run.finish()


class MLflow(Tracker):
    """A run of MLflow; a resumed run goes on in the same one."""

    def __init__(self, directory: Path, settings: Mapping[str, Any]):
        try:
            from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]
            from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise NotInstalled(needs_extra("record.trackers=mlflow", "mlflow")) from None
        self._metric, self._client = Metric, MlflowClient()
        self._id = known_id(directory, "mlflow", lambda: self._create(directory.name))
        values = {name: str(value) for name, value in settings.items()}
        logged = self._client.get_run(self._id).data.params
        params = [Param(name, value) for name, value in values.items() if name not in logged]
        for start in range(0, len(params), 100):  # most of one request
            self._client.log_batch(self._id, params=params[start : start + 100])
        self._client.set_tag(self._id, "directory", str(directory.absolute()))
        self._client.update_run(self._id, status="RUNNING")

    def _create(self, name: str) -> str:
        """A new run in the experiment that MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME names, else in `s2s_jax`."""
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if experiment is None:
            title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "s2s_jax")
            found = self._client.get_experiment_by_name(title)
            experiment = found.experiment_id if found else self._client.create_experiment(title)
        return self._client.create_run(experiment, run_name=name).info.run_id

    def numbers(self, kind, step, values):
        """One curve per number."""
        now = int(time.time() * 1000)
        metrics = [self._metric(f"{kind}/{name}", value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def picture(self, name, step, pixels):
        """One picture per step."""
        self._client.log_image(self._id, pixels, key=name, step=step)

    def close(self):
        """Mark the run as finished."""
        self._client.set_terminated(self._id)


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def known_id(directory: Path, tracker: str, create: Callable[[], str]) -> str:
    """The name under which a tracker knows the run in a directory; created at the first time, and kept there."""
    path = directory / IDS_FILE
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if tracker not in known:
        known[tracker] = create()
        replace_file(path, (json.dumps(known) + "\n").encode())
    return known[tracker]


class Trackers:
    """The trackers of a run; one that fails is left out from then on, and training continues."""

    def __init__(self, names: tuple[str, ...], directory: Path, settings: Mapping[str, Any]):
        """Whoever asks for a tracker is told at once that it cannot be reached.

        Raises:
            ValueError: it is not installed, or cannot be reached.
        """
        self._known: dict[str, Tracker] = {}
        for name in names:
            try:
                self._known[name] = TRACKERS[name](directory, settings)
            except Exception as error:
                self.close()
                if isinstance(error, NotInstalled):
                    raise
                raise ValueError(
                    f"record.trackers={name} cannot be started ({_text(error)}); leave it out, or set it up as it says."
                ) from None

    def numbers(self, kind: str, step: int, values: Mapping[str, Any]) -> list[str]:
        """Report numbers.

        Returns:
            a line for each tracker that has failed.
        """
        numbers = {name: float(value) for name, value in values.items() if type(value) in (int, float)}
        return self._each(lambda tracker: tracker.numbers(kind, step, numbers)) if numbers else []

    def pictures(self, step: int, draw: Callable[[], Mapping[str, Pixels]]) -> list[str]:
        """Report the pictures that a function draws, by name; as `numbers`, with a line where it fails."""
        if not self._known:
            return []
        try:
            drawn = draw()
        except Exception as error:
            return [f"warning: no picture for trackers could be drawn at step {step:,} ({_text(error)})"]
        return [
            line
            for name, pixels in drawn.items()
            for line in self._each(lambda tracker, name=name, pixels=pixels: tracker.picture(name, step, pixels))
        ]

    def close(self) -> list[str]:
        """Send what is left; as `numbers`."""
        return self._each(lambda tracker: tracker.close())

    def _each(self, use: Callable[[Tracker], None]) -> list[str]:
        failed = []
        for name, tracker in list(self._known.items()):
            try:
                use(tracker)
            except Exception as error:
                del self._known[name]
                failed.append(f"warning: tracker {name} failed ({_text(error)}); training continues without it")
        return failed


def _text(error: Exception) -> str:
    """The text of an error on one line; its name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
