"""What every test has: a cache of drawn pictures and mean images that one run of pytest shares, and not the user's. Which
tests a run is made of: `-m "not slow"` leaves out what takes long, and only `--all` adds the cases that prove nothing new."""
import pytest

from tests.slow import marked


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZFCORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="with the cases marked exhaustive, which others cover")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in marked(items):
        item.add_marker(pytest.mark.slow)
    if not config.getoption("all"):
        left_out = [item for item in items if item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
