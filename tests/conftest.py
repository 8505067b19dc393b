"""Strict for every test: shapes are checked, ranks and dtypes never promote silently, warnings are errors.

Arguments and results are checked in the modules that name shapes; elsewhere pyright sees as much, and checks would
double the time of tests of settings.

Programs are compiled without optimization, and once: tests ask what is computed, not how fast.
"""

import os
import shutil
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
os.environ.setdefault("JAX_PLATFORMS", "cpu")
FLAGS = ["--xla_force_host_platform_device_count=2", "--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):  # compiles in half the time; later ones know no such flag
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
# in the environment, so that the processes that tests start know it too
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".pytest_cache" / "compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

from jaxtyping import install_import_hook

SHAPED = [
    path.relative_to(ROOT).with_suffix("") for path in ROOT.glob("s2s_jax/**/*.py") if "jaxtyping" in path.read_text()
]
install_import_hook([".".join(path.parts) for path in SHAPED], "checker.check")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> Path:
    """The directory of a tiny run that copies letters; tests only read it."""
    import tiny
    from rich.console import Console

    from s2s_jax import run

    path = tmp_path_factory.mktemp("trained") / "copy run ü"  # row 47 of the faults: spaces and Unicode in a path
    run.train(tiny.experiment("steps=120"), path, Console(quiet=True))
    return path


@pytest.fixture
def s2s(capfdbinary):
    """Run a command; its exit code, its output, its errors."""
    from s2s_jax.cli import main

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        captured = capfdbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    return command


@pytest.fixture(scope="module")
def browser():
    """Chromium; closed with each file's tests, since its event loop would be in the way of those of others."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
