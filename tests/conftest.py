"""Settings and fixtures that all tests share.

How the suite is organised:

- tests/ mirrors prfl_jax/: `tests/clock/test_faults.py` tests `prfl_jax/clock/faults.py` or that topic of the room.
- tests/strategies/test_contract.py runs every method of the table end to end; a new method is tested there by itself.
- tests/helpers/ is on the path: `tiny` (small runs), oracles (slow, obvious second implementations), fakes, workers.
- `python -m pytest` runs the fast tests, in at most five minutes on two cores.
- `slow` marks what takes long: repetitions over further methods or settings, large networks, long runs.
- `processes` marks tests that start several processes or kill one; `browser` marks tests that need Chromium.
- `python -m pytest -m ""` runs everything; `-m slow`, `-m browser` or `-m processes` runs one group.
- One folder of compiled programs serves all workers of a test run and the processes that tests start.
- `-n 0` runs in one process (to debug); `--hypothesis-profile=default` draws new cases instead of the fixed ones.
"""

import atexit
import gc
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings

# What a test run keeps. The controller makes the folder and passes its name to the workers through the environment.
# JAX reads these variables when it is imported, so they are set before. Entries of the cache are not locked: one that
# another process is still writing cannot be decompressed, and JAX then compiles that program itself.
FOLDER = "PRFL_TESTS_FOLDER"
if FOLDER not in os.environ:
    os.environ[FOLDER] = tempfile.mkdtemp(prefix="prfl_tests_")
    atexit.register(shutil.rmtree, os.environ[FOLDER], ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = f"{os.environ[FOLDER]}/cache"
os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{os.environ[FOLDER]}/compiled"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# Compilation is most of the time of these tests. LLVM's level 1 instead of 2 saves a third of it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

import jax  # noqa: E402

# The same cases every time, so that a run of the tests can be repeated. `--hypothesis-profile=default` draws new
# ones; whoever changes clock, partition, split or aggregation should.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# One device, whatever a test sets for the scripts later: how many there are is settled here.
jax.devices()

# Tracing makes many objects and little garbage: collecting it less often saves a fifth of the time of a small run.
gc.set_threshold(100_000, 20, 50)

# A compiled program takes hundreds of memory mappings, and Linux gives a process 65,530 of them: XLA then crashes.
MOST_MAPPINGS = 25_000
# Counting them takes longer than a small test does.
COUNT_EVERY_S = 1.0
_counted_s = 0.0


@pytest.fixture(autouse=True)
def flags_of_a_script_end_with_the_test(monkeypatch):
    """What scripts set before JAX starts (`startup.py`) does not reach the processes that other tests start."""
    for name in ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"):
        if name in os.environ:
            monkeypatch.setenv(name, os.environ[name])
        else:
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def few_compiled_programs():
    """Drops what is compiled where it has become too much; the tests compile into a folder, so little is lost."""
    global _counted_s
    yield
    if time.monotonic() < _counted_s + COUNT_EVERY_S:
        return
    _counted_s = time.monotonic()
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def experiment():
    """A tiny experiment of twelve windows, for what may befall a run; some files have another of this name."""
    import tiny  # only where it is asked for: importing it sets up where programs are kept

    from prfl_jax import Experiment

    return Experiment(tiny.config(rounds=12))


@pytest.fixture(scope="module")
def whole(experiment, tmp_path_factory):
    """An uninterrupted run of it."""
    return experiment.run(tmp_path_factory.mktemp("whole") / "run", progress=False)


@pytest.fixture(scope="module")
def browser():
    """For the tests of pages; without Chromium they are skipped."""
    from page_browser import chromium

    with chromium() as found:
        yield found


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks what uses the fixture `browser`."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
