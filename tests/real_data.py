"""Real pictures and other people's results that some tests use: in the folder that ZFCORE_TEST_DATA names, and where it names
none, in shared/data beside the checkout."""
import os
from pathlib import Path

import pytest

REAL_DATA = Path(os.environ.get("ZFCORE_TEST_DATA") or Path(__file__).resolve().parents[2]/"shared/data")


def needs(name):
    """A mark that skips a test where the file or folder `name` is not among the real data."""
    missing = f"{name} is not in the folder of real data, {REAL_DATA}, which ZFCORE_TEST_DATA names"
    return pytest.mark.skipif(not (REAL_DATA/name).exists(), reason=missing)
