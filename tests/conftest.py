"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = [
    "tests.fixtures.prefect_server",
    "tests.fixtures.s3",
    "tests.fixtures.tiny_model",
]

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real problems and model outputs beside the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder ../shared/data with real problems and outputs is not here")
    return SHARED_DATA
