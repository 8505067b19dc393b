"""The optional packages: what to install for a feature that needs one."""

import re
from importlib import metadata

DISTRIBUTION = "s2s_jax"


def needs_extra(feature: str, extra: str) -> str:
    """The message for a feature whose packages are not installed, with the packages of that extra.

    The name of the extra alone would not do: `pip install` would look it up on an index, and not in this copy.
    """
    names = " ".join(f"'{package}'" for package in packages_of(extra))
    remedy = f"pip install {names}" if names else f"install those that pyproject.toml lists for the extra {extra}"
    return f"{feature} needs packages that are not installed; {remedy}."


def packages_of(extra: str) -> list[str]:
    """The requirements of an extra, such as `torch>=2.11`, as they were installed; none where that is not known."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # a source tree on PYTHONPATH
        requirements = []
    parts = [re.fullmatch(r"""(.+?)\s*;\s*extra == ["'](.+)["']""", requirement) for requirement in requirements]
    return [part[1] for part in parts if part and part[2] == extra]
