"""Does a finished cell come out the same when it is trained once more?"""

import tempfile
from pathlib import Path
from typing import NamedTuple

from s2s_jax.run import info
from s2s_jax.run.run_dir import read_json
from s2s_jax.sweep.trial import TrialSpec, launch_mode, outcome, run_trial


class Verified(NamedTuple):
    """A cell and its repetition."""

    digests: tuple[str, str]  # of all parameters, before and now
    metrics: dict[str, tuple[float | None, float | None]]  # those that differ

    @property
    def same(self) -> bool:
        """Whether all bits of the parameters and all numbers are as before."""
        return self.digests[0] == self.digests[1] and not self.metrics


def verify(work: TrialSpec) -> Verified:
    """Train and score a finished cell again, in a folder of its own that is taken away afterwards.

    Raises:
        ValueError: the cell is not done, or its repetition failed.
    """
    if outcome(work.folder)["status"] != "done":
        raise ValueError(f"{work.folder} is not done, so there is nothing to verify; run the sweep first.")
    if launch_mode(work.folder) != "single":
        raise ValueError(f"{work.folder} was trained with others in one program; verify a single run.")
    with tempfile.TemporaryDirectory(prefix="s2s-verify-") as scratch:
        again = work._replace(folder=Path(scratch))
        if run_trial(again) != "done":
            raise ValueError(f"{work.folder} could not be trained again: {outcome(again.folder)['error']}")
        digests = tuple(info(one.folder / "run")["parameters_digest"] for one in (work, again))
        before, now = (read_json(one.folder / "scores.json")["metrics"] for one in (work, again))
    return Verified(digests, {name: (before[name], now[name]) for name in before if before[name] != now[name]})
