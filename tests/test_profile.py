"""Are ten steps traced, whether the run goes on after them or ends among them?"""

import jax
import pytest

from s2s_jax.training.profile import BEFORE, TRACED, Profile


@pytest.fixture
def traced(monkeypatch):
    """What the profiler was told, in order."""
    said = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda directory: said.append(f"start {directory}"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: said.append("stop"))
    return said


@pytest.mark.parametrize(("steps", "count"), [(BEFORE, 0), (BEFORE + 3, 3), (BEFORE + TRACED, 10), (BEFORE + 50, 10)])
def test_a_trace_that_is_started_is_ended_once(tmp_path, traced, steps, count):
    heard = []
    with Profile(tmp_path, heard.append) as profile:
        for _ in range(steps):
            profile.before_step()
    assert traced == ([f"start {tmp_path}", "stop"] if count else [])
    assert heard == ([f"profile of {count} steps: tensorboard --logdir {tmp_path}"] if count else [])


def test_without_a_directory_nothing_is_traced(traced):
    with Profile(None, print) as profile:
        for _ in range(BEFORE + TRACED + 1):
            profile.before_step()
    assert traced == []
