"""Labelled rows for the tests of this room."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def row_source() -> ModuleType:
    """The module that reads labelled rows, shared with the benchmarks."""
    return _benchmark_module("verification_rows")


@pytest.fixture(scope="session")
def hostile() -> ModuleType:
    """The module that makes hostile answers, shared with the benchmarks."""
    return _benchmark_module("verification_hostile")


def _benchmark_module(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
