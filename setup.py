"""The packages of a wheel: `s2s_jax`, and `s2s_jax.experiments`, a folder beside it in the source tree."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["s2s_jax", "s2s_jax.*"]),
        *(f"s2s_jax.{name}" for name in find_packages(include=["experiments", "experiments.*"])),
    ],
    package_dir={"s2s_jax.experiments": "experiments"},
)
