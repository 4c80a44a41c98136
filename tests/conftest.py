"""What every test has: a cache of drawn pictures and mean images that one run of pytest shares, and not the user's."""
import pytest


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZFCORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
