"""Verification that a finished trial comes out the same, bit for bit, when it is trained once more."""

import tempfile
from pathlib import Path
from typing import NamedTuple

from s2s_jax.run import info
from s2s_jax.sweep.trial import TrialSpec, run_trial
from s2s_jax.sweep.trial_files import SCORES_FILE, launch_mode, read_outcome, read_record


class Verification(NamedTuple):
    """A trial compared with its repetition."""

    digests: tuple[str, str]  # of all parameters, before and now
    metrics: dict[str, tuple[float | None, float | None]]  # those that differ, before and now

    @property
    def same(self) -> bool:
        """Whether all bits of the parameters and all metrics are as before."""
        return self.digests[0] == self.digests[1] and not self.metrics


def verify_trial(spec: TrialSpec) -> Verification:
    """Train and score a finished trial again, in a temporary directory.

    Raises:
        ValueError: the trial is not done, or its repetition failed.
    """
    if read_outcome(spec.folder)["status"] != "done":
        raise ValueError(f"{spec.folder} is not done, so there is nothing to verify; run the sweep first.")
    recorded = read_record(spec.folder / SCORES_FILE)
    if recorded is None:
        raise ValueError(
            f"{spec.folder / SCORES_FILE} is missing or damaged; run the sweep again, which makes it anew."
        )
    if launch_mode(spec.folder) != "single":
        raise ValueError(
            f"{spec.folder} was trained with others in one program; verify a trial that was trained alone."
        )
    with tempfile.TemporaryDirectory(prefix="s2s-verify-") as scratch:
        again = spec._replace(folder=Path(scratch))
        if run_trial(again) != "done":
            raise ValueError(f"{spec.folder} could not be trained again: {read_outcome(again.folder)['error']}")
        digests = tuple(info(one.folder / "run")["parameters_digest"] for one in (spec, again))
        before, now = recorded["metrics"], (read_record(again.folder / SCORES_FILE) or {})["metrics"]
    return Verification(digests, {name: (before[name], now[name]) for name in before if before[name] != now[name]})
