"""What all tests share: repeatable property tests, and a bound on the programs kept in memory."""

import atexit
import gc
import os
import tempfile
from pathlib import Path

import jax
import pytest
from hypothesis import settings

# The same cases every time, so that a run of the tests can be repeated. `--hypothesis-profile=default` draws new
# ones; whoever changes clock, partition, split or aggregation should.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# What scripts that tests start keep between processes stays among the tests.
_CACHE = tempfile.TemporaryDirectory(prefix="prfl_cache_")
atexit.register(_CACHE.cleanup)
os.environ["XDG_CACHE_HOME"] = _CACHE.name

# One device, whatever a test sets for the scripts later: how many there are is settled here.
jax.devices()

# A compiled program takes hundreds of memory mappings, and Linux gives a process 65,530 of them: XLA then crashes.
MOST_MAPPINGS = 25_000


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
    yield
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
