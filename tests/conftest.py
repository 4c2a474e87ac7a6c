"""What holds for every test: no network, no cache, no state from the test before, no blocked event loop."""

from __future__ import annotations

import copy
import gc
import importlib
import inspect
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Generator, Iterator

# Before anything imports litellm or DSPy: both read these once.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="escalade-tests-"))

from tests import _loop_watch, _network

_network.block()

import dspy
import pytest
from hypothesis import HealthCheck, settings

from escalade.registry import secrets
from escalade.scopes import set_default
from tests.servers.postgres_server import PostgresServer

dspy_settings = importlib.import_module("dspy.dsp.utils.settings")  # the package hides its module behind an object

# What is imported when it is first used, 15 MB of it native code: before any loop runs, not within that of whichever
# test comes first.
for _late in (
    "jsonschema_rs",
    "semver",
    "dspy.clients.execution",
    "dspy.clients.typesafe",
    "escalade.registry.governed",
):
    importlib.import_module(_late)

settings.register_profile(  # the default: the same examples in every run, on a machine of any speed
    "ci",
    max_examples=60,  # the same each time: it is regressions that they find; `explore` looks for what is new
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", parent=settings.get_profile("ci"), derandomize=False, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


MEASURED = 2
"""Of the parameters of a test, so many are run with coverage: the first, and one that is another way."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Watch the event loop of every async test. Tests that repeat themselves are measured the first time only, and not
    at all when they do so a thousand times: coverage doubles their time and learns nothing. Modules with long ones come
    first: none is left alone at the end.
    """
    seen: Counter[tuple[object, ...]] = Counter()
    for item in items:
        function = (item.parent, getattr(item, "originalname", item.name))
        seen[function] += 1
        if seen[function] > MEASURED or item.get_closest_marker("slow") or _generates(item):
            item.add_marker("no_cover")
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            mark = item.get_closest_marker("blocking")
            item.obj = _loop_watch.watched(item.obj, mark.args[0] if mark else _loop_watch.LIMIT_MS)
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid}: its id is another one in each process, which xdist refuses")
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: -slow[item.path])


def _generates(item: pytest.Item) -> bool:
    """Is it a test of hypothesis, or one of its state machines?"""
    return getattr(getattr(item, "obj", None), "is_hypothesis_test", item.name == "runTest")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Fixtures of such a test are not measured either: in some of them it does its work."""
    coverage = item.config.pluginmanager.getplugin("_cov")
    controller = getattr(coverage, "cov_controller", None) if item.get_closest_marker("no_cover") else None
    if controller is None:
        return (yield)
    controller.pause()
    try:
        return (yield)
    finally:
        controller.resume()


def pytest_collection_finish() -> None:
    """What is there now stays: to look for garbage in it took a second each time, in the middle of some test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _clean_dspy() -> Iterator[None]:
    """DSPy as it is after its import, without a cache; no default scope, no secret managers of another test."""
    _reset()
    yield
    _reset()


def _reset() -> None:
    """DSPy has no public way back to its defaults, and ties `configure` to the first thread that called it."""
    set_default(None)
    secrets._managers.clear()
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    dspy_settings.main_thread_config = copy.deepcopy(dspy_settings.DEFAULT_CONFIG)
    dspy_settings.config_owner_thread_id = None
    dspy_settings.config_owner_async_task = None


@pytest.fixture(autouse=True)
def _imports_end() -> Iterator[None]:
    """A gateway that began to import litellm in a thread doesn't hold up the tests after it."""
    yield
    for thread in threading.enumerate():
        if thread.name == "escalade-litellm-preload":
            thread.join()


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    """A blocked attempt fails the test even if a library swallowed the exception."""
    _network.attempts.clear()
    yield
    tried, _network.attempts[:] = list(_network.attempts), []
    if tried:
        pytest.fail(f"tried to leave the machine: {'; '.join(tried)}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests of this process. Who stops it starts it again."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """An empty database of one's own."""
    url = postgres.database()
    yield url
    postgres.drop(url)
