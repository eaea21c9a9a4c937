"""JAX's settings: the same numbers whatever is set around a run; what counts is recorded, and checked on resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from paths import HELPERS, ROOT

from prfl_jax.runtime.batched_runs import run_batched
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.system import jax_settings
from prfl_jax.system.errors import UserError

# As a user may have it before or after the package is imported.
WORKER = """
import json, os, sys
before, after, folder = sys.argv[1:]
import jax
for pair in filter(None, before.split(",")):
    name, _, value = pair.partition("=")
    jax.config.update(name, json.loads(value))
import tiny
from prfl_jax.runtime.experiment import Experiment
for pair in filter(None, after.split(",")):
    name, _, value = pair.partition("=")
    jax.config.update(name, json.loads(value))
Experiment(tiny.config(rounds=6)).run(folder, progress=False)
"""
SETTINGS = [
    {"JAX_DEFAULT_PRNG_IMPL": "rbg"},
    {"JAX_DEFAULT_PRNG_IMPL": "unsafe_rbg", "JAX_RANDOM_SEED_OFFSET": "7"},
    {"JAX_THREEFRY_PARTITIONABLE": "0"},
    {"JAX_ENABLE_X64": "1"},
    {"JAX_DISABLE_JIT": "1", "JAX_TRANSFER_GUARD": "disallow", "JAX_DEBUG_KEY_REUSE": "1"},
    {"JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_NUMPY_DTYPE_PROMOTION": "strict"},
]


def run(folder: Path, environment: dict[str, str], before: str = "", after: str = "") -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    paths = f"{ROOT}{os.pathsep}{HELPERS}"
    call = [sys.executable, "-c", WORKER, before, after, str(folder)]
    return subprocess.run(
        call, env={**clean, "PYTHONPATH": paths, **environment}, capture_output=True, text=True, timeout=300
    )


def records(folder: Path) -> list[dict]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "host_s"} for line in lines]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "run"
    done = run(folder, {})
    assert done.returncode == 0, done.stderr
    return records(folder)


@pytest.mark.processes
@pytest.mark.parametrize("environment", SETTINGS, ids=lambda e: ",".join(e))
def test_the_environment_changes_no_number(tmp_path, plain, environment):
    done = run(tmp_path / "run", environment)
    assert done.returncode == 0, done.stderr
    assert records(tmp_path / "run") == plain


@pytest.mark.processes
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('jax_default_prng_impl="rbg",jax_enable_x64=true', ""),
        ("", 'jax_default_prng_impl="rbg",jax_threefry_partitionable=false,jax_enable_x64=true'),
    ],
)
def test_jax_config_changes_no_number_either(tmp_path, plain, before, after):
    done = run(tmp_path / "run", {}, before, after)
    assert done.returncode == 0, done.stderr
    assert records(tmp_path / "run") == plain


@pytest.mark.slow
def test_batched_runs_keep_the_fixed_settings_to_the_end(tmp_path):
    """Also in the chunk that the others run when one of them has ended: seed 1 goes on after seed 0."""
    configs = [tiny.config(rounds=rounds, seed=seed) for seed, rounds in enumerate((3, 8))]

    def together(name):
        folders = [tmp_path / f"{name}{number}" for number in range(2)]
        run_batched(configs, folders, progress=False)
        return [records(folder) for folder in folders]

    wanted = together("plain")
    guards = {"jax_disable_jit": True, "jax_transfer_guard": "disallow"}
    before = {name: jax.config.values[name] for name in guards}
    try:
        for name, value in guards.items():
            jax.config.update(name, value)
        assert together("guarded") == wanted
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
def test_the_root_key_is_that_of_the_seed(seed):
    want = np.asarray(jax.random.key_data(jax.random.key(seed, impl="threefry2x32")))
    with jax.default_prng_impl("rbg"), jax.enable_x64(True):
        key = jax_settings.root_key(seed)
        assert str(jax.random.key_impl(key)) == "threefry2x32"
        np.testing.assert_array_equal(np.asarray(jax.random.key_data(key)), want)


def test_every_jax_setting_is_fixed_recorded_or_harmless():
    """One that a new JAX brings is recorded until somebody has looked at it."""
    recorded = jax_settings.settings()
    left = {name for name in jax.config.values if name not in recorded}
    assert all(jax_settings._HARMLESS.fullmatch(name) for name in left)
    for name in ("jax_default_matmul_precision", "jax_random_seed_offset", "jax_softmax_custom_jvp",
                 "jax_disable_most_optimizations", "flax_fix_rng_separator"):  # fmt: skip
        assert name in recorded


def test_flags_of_xla():
    text = "--xla_cpu_max_isa=AVX2 --xla_force_host_platform_device_count=2 --xla_dump_to=x --xla_cpu_max_isa=SSE4_2"
    text += " --b"
    assert jax_settings.xla_flags(text) == {"--xla_cpu_max_isa": "SSE4_2", "--b": ""}


def test_difference():
    full = jax_settings.settings()
    assert jax_settings.difference(full, dict(full)) is None
    assert jax_settings.difference({}, full | {"--xla_a": "1"}) == ("--xla_a", "not set", "1")
    other = full | {"jax_softmax_custom_jvp": True}
    assert jax_settings.difference(full, other) == ("jax_softmax_custom_jvp", False, True)
    assert jax_settings.difference(full | {"jax_of_another_version": 1}, full) is None


def test_a_run_does_not_go_on_under_another_setting(tmp_path):
    experiment = Experiment(tiny.config(rounds=6))
    experiment.run(tmp_path / "run", progress=False)
    before = (tmp_path / "run" / "report.json").read_bytes()
    with jax.default_matmul_precision("bfloat16"), pytest.raises(UserError) as refused:
        experiment.run(tmp_path / "run", progress=False)
    said = str(refused.value)
    assert "jax_default_matmul_precision: this --workdir began with None, now it is 'bfloat16'" in said
    assert (tmp_path / "run" / "report.json").read_bytes() == before
    flags = experiment.run(tmp_path / "run", progress=False).report["flags"]
    assert flags["settings"]["jax_default_matmul_precision"] is None
    assert flags["settings"]["jax_threefry_partitionable"] is True


@pytest.mark.processes
def test_no_device_of_that_kind_is_one_line(tmp_path):
    call = [sys.executable, "scripts/train.py", "--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}"]
    for value, dry in (("gpu", "--dry_run"), ("nonsense", "--nodry_run")):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": value}
        done = subprocess.run([*call, dry], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith(f"train.py: JAX_PLATFORMS={value}: JAX cannot start")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_ENABLE_X64": "maybe"}
    done = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "JAX_ENABLE_X64" in done.stderr
    assert not (tmp_path / "run").exists()
