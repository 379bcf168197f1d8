"""Packages that only some commands and options need."""

from __future__ import annotations

from importlib.util import find_spec

from tto.errors import NotInstalled


def require(package: str, extra: str) -> None:
    """Raises `NotInstalled` where there is no `package`, which comes with the extra of that name."""
    if find_spec(package) is None:
        raise NotInstalled(f"this needs the package {package}: pip install 'tto[{extra}]'")
