"""Kernels counted by hand in a small program, and the budgets of kernels that the workloads have on an H100."""

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest
from json_page import check_keys

from s2s_jax.bench import h100
from s2s_jax.bench.kernels import Loop, read_program
from s2s_jax.cli import main

PROGRAM = """
HloModule jit_step, is_scheduled=true

%fused (p: f32[4,8]) -> f32[4,8] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %copy.9 = f32[4,8]{0,1} copy(%p)
}

%inner_body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  %x = f32[4,8]{1,0} get-tuple-element(%p), index=1
  %copy.1 = f32[4,8]{1,0} copy(%x)
  ROOT %t = (s32[], f32[4,8]{1,0}) tuple(%p, %copy.1)
}

%inner_condition (p: (s32[], f32[4,8])) -> pred[] {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  ROOT %less = pred[] fusion(%p), kind=kLoop, calls=%fused
}

%body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  %while.1 = (s32[], f32[4,8]{1,0}) while(%p), condition=%inner_condition, body=%inner_body, metadata={op_name="jit(step)/jvp(decoder)/while/body/while"}, backend_config={"known_trip_count":{"n":"3"}}
  %f = f32[4,8]{1,0} fusion(%while.1), kind=kLoop, calls=%fused
  ROOT %t = (s32[], f32[4,8]{1,0}) tuple(%p, %f)
}

%condition (p: (s32[], f32[4,8])) -> pred[] {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  %less = pred[] fusion(%p), kind=kLoop, calls=%fused
  ROOT %and = pred[] fusion(%less), kind=kLoop, calls=%fused
}

%kept (p: f32[4,8]) -> f32[4,8] {
  %p = f32[4,8]{1,0} parameter(0)
  %copy.2 = f32[4,8]{1,0} copy(%p)
  %copy.3 = f32[4,8]{1,0} copy(%copy.2)
  ROOT %copy.4 = f32[4,8]{1,0} copy(%copy.3)
}

%updated (p: f32[4,8]) -> f32[4,8] {
  %p = f32[4,8]{1,0} parameter(0)
  %gemm = (f32[4,8]{1,0}, s8[32]{0}) custom-call(%p, %p), custom_call_target="__cublas$gemm"
  %out = f32[4,8]{1,0} get-tuple-element(%gemm), index=0
  ROOT %f.1 = f32[4,8]{1,0} fusion(%out), kind=kLoop, calls=%fused
}

ENTRY %main (x: f32[4,8], n: s32[]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %n = s32[] parameter(1)
  %half = bf16[4,8]{1,0} copy(%x)
  %start = (s32[], f32[4,8]{1,0}) tuple(%n, %x)
  %while.2 = (s32[], f32[4,8]{1,0}) while(%start), condition=%condition, body=%body, metadata={op_name="jit(step)/while"}
  %y = f32[4,8]{1,0} get-tuple-element(%while.2), index=1
  %cond.1 = f32[4,8]{1,0} conditional(%n, %y, %y), branch_computations={%kept, %updated}
  ROOT %out = f32[4,8]{1,0} call(%cond.1), to_apply=%updated
}
"""  # noqa: E501


def test_kernels_are_counted_by_hand_in_loops_branches_and_calls():
    found = read_program(PROGRAM, unknown_turns=10)
    inner, turn = 1, 3 * 1 + 1 + 2  # of the outer loop: three inner turns, a fusion, and the condition
    assert found.loops == [Loop("step", turn, 10), Loop("jvp(decoder)", inner, 3)]
    assert found.kernels == 1 + 10 * turn + 2 + 2  # the branch that computes, though it has fewer kernels
    assert found.copies == 1 + 10 * 3
    assert found.copied_bytes == 4 * 8 * 2 + 10 * 3 * 4 * 8 * 4
    assert read_program(PROGRAM).kernels == 1 + turn + 2 + 2


def test_without_the_plugin_one_line_says_what_to_install(s2s, monkeypatch):
    wanted = metadata.version("jaxlib")
    versions = {"jaxlib": wanted, "jax-cuda13-plugin": "0.0.1"}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(h100.metadata, "version", version)
    code, out, err = s2s("bench", "W1", "--target", "h100")
    assert (code, out) == (2, "")
    assert err == (
        f"s2s: --target h100 needs the CUDA plugin of jaxlib's version {wanted} (jax-cuda13-plugin 0.0.1, "
        "jax-cuda13-pjrt is not installed); pip install --no-deps --upgrade --target h100-wheels "
        f"jax-cuda13-plugin=={wanted} jax-cuda13-pjrt=={wanted}, and run the command with PYTHONPATH=h100-wheels.\n"
    )
    versions |= dict.fromkeys(h100.PACKAGES, wanted)
    h100.check_plugin()


@pytest.mark.parametrize(
    "option", [("--batches", "1"), ("--against", "torch"), ("--compare", "a=1,2"), ("--rounds", "2")]
)
def test_a_count_refuses_the_options_of_a_measurement(capsys, option):
    assert main(["bench", "W1", "--target", "h100", *option]) == 2
    assert capsys.readouterr().err == (
        f"s2s: --target h100 measures no time, and does not read {' '.join(option)}; leave one out\n"
    )


# What each phase may need at most; a change lowers a number, or leaves it.
# (workload, phase, precision): kernels of the whole step, of each loop's turn in their order; megabytes copied
BUDGETS = {
    ("W1", "train", "float32"): (589, [5, 8, 11, 6], 3),
    ("W1", "train", "bfloat16"): (633, [6, 9, 12, 6], 3),
    ("W1", "greedy", "float32"): (622, [4, 18], 0.1),
    ("W1", "greedy", "bfloat16"): (640, [5, 18], 0.1),
    ("W1", "beam5", "float32"): (1084, [4, 29, 4], 0.2),
    ("W1", "beam5", "bfloat16"): (1103, [5, 29, 4], 0.2),
    ("W3", "train", "bfloat16"): (1304, [5, 5, 22, 30, 7, 7], 39),
    ("W3", "greedy", "bfloat16"): (1207, [5, 5, 34], 0.1),
    ("W3", "beam5", "bfloat16"): (1579, [5, 5, 42, 4], 0.2),
}


def installed() -> bool:
    try:
        h100.check_plugin()
    except ValueError:
        return False
    return True


def counted(*words: str) -> list[dict]:
    """The rows of the command, in a process without what the tests set for XLA."""
    clean = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "s2s_jax", "bench", *words, "--target", "h100", "--json"]
    finished = subprocess.run(command, env=clean, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    check_keys("bench", found)
    return found["rows"]


@pytest.mark.wide
@pytest.mark.skipif(not installed(), reason="the CUDA plugin of jaxlib's version is not on PYTHONPATH")
@pytest.mark.parametrize("work", ["W1", "W3"])
def test_no_program_launches_more_than_its_budget(work):
    precisions = sorted({precision for name, _, precision in BUDGETS if name == work})
    for row in counted(work, "--precisions", ",".join(precisions)):
        kernels, turns, megabytes = BUDGETS.get((work, row["phase"], row["precision"]), (None, [], 0))
        if kernels is None:
            continue
        seen = [loop["kernels"] for loop in row["loops"]]
        assert len(seen) == len(turns), row
        assert all(count <= budget for count, budget in zip(seen, turns, strict=True)), row
        assert row["kernels"] <= kernels, row
        assert row["copied_megabytes"] <= megabytes, row
        assert row["graphs"] == 1, row
