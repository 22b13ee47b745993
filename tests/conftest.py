"""Fixtures that several test files use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tiny_survey import finished, finished_survey, first_run, pristine_survey, release_bytes, survey

__all__ = ["finished", "finished_survey", "first_run", "pristine_survey", "release_bytes", "survey"]

# Examples on a busy two-core machine can take longer than hypothesis' 200 ms; the same ones every run.
settings.register_profile("catmorph", deadline=None, derandomize=True, max_examples=30,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("catmorph")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data that CATMORPH_REAL_DATA names; the test is skipped without it."""
    folder = os.environ.get("CATMORPH_REAL_DATA")
    if not folder:
        pytest.skip("CATMORPH_REAL_DATA is not set")
    return Path(folder)
