"""Scripts are tested as modules."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[3] / "scripts"


@pytest.fixture(scope="module")
def script(request) -> Iterator[ModuleType]:
    """The one that a file of tests is named after; it may import others, as it does when it is run."""
    name = request.path.stem.removeprefix("test_")
    spec = importlib.util.spec_from_file_location(f"tto_script_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(FOLDER)
        patched.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module
