"""Table III from the network's settings alone, and the script that runs the clock."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from marked import slow
from paths import ROOT

from prfl_jax.config.canonical import config_hash, to_dict
from prfl_jax.config.cli import load_config
from prfl_jax.runtime.clock_only import run_clock

ROW1 = np.array([10000, 9940, 9878, 9548, 5484, 4517, 2822, 2460, 2453, 1999])
WINDOWS = 1500


def table3(name, **overrides):
    return load_config(ROOT / "configs" / f"table3_{name}.py", {k.replace("__", "."): v for k, v in overrides.items()})


def test_row_1_fedasyn():
    report = run_clock(table3("fedasyn"), WINDOWS)
    share = np.array(report["updates"]) / WINDOWS
    assert np.abs(np.log(share / (ROW1 / 10000))).mean() <= 0.03
    assert report["simulated_s"] == pytest.approx(WINDOWS * 19.25)
    assert report["bytes_down"] == WINDOWS * 26_500_000  # one copy a window, and it is sent within the window


@pytest.mark.slow
def test_row_2_norecover_and_the_literal_rule():
    """Normalised times keep every client above 99 %; literally, the slowest swings and comes in about 58 %."""
    normalised = run_clock(table3("norecover"), 10_000)
    literal = run_clock(table3("norecover", density__interval=25, density__rule="literal"), WINDOWS)
    assert min(normalised["updates"]) >= 0.99 * 10_000
    assert 0.45 <= literal["updates"][9] / WINDOWS <= 0.7
    assert normalised["density"][9] == pytest.approx(0.08, abs=0.01) and normalised["density"][0] == 1.0


def test_the_literal_density_oscillates():
    """After the first decision the slowest has a tenth of the model, after the second most of it, then little again."""
    seen = {}
    for rule in ("literal", "normalised"):
        config = table3("norecover", density__rule=rule)
        seen[rule] = [run_clock(config, 50 * decisions)["density"][9] for decisions in (1, 2, 3, 4)]
    assert seen["literal"][0] < 0.1 and seen["literal"][1] > 0.6 and seen["literal"][2] < 0.35
    assert all(density == pytest.approx(0.08, abs=0.015) for density in seen["normalised"])


def script(*arguments):
    return subprocess.run(
        [sys.executable, "scripts/clock.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_script_writes_what_the_function_returns(tmp_path):
    out = tmp_path / "clock.json"
    done = script("--config=configs/table3_norecover.py", "--config.seed=3", "--windows=120", f"--out={out}")
    assert done.returncode == 0, done.stderr
    written, expected = json.loads(out.read_text()), run_clock(table3("norecover", seed=3), 120)
    assert written.pop("host_s") > 0 and expected.pop("host_s") > 0
    config = table3("norecover", seed=3)
    assert written.pop("config_hash") == config_hash(config) and written.pop("config") == to_dict(config)
    assert {"numpy", "python"} <= written.pop("versions").keys() and written.pop("machine") and "commit" in written
    del written["commit"]
    assert written == expected
    assert written["seed"] == 3 and written["windows"] == 120
    keys = {"updates", "windows", "simulated_s", "bytes_up", "bytes_down", "bytes_client_down", "waiting_s"}
    assert keys <= written.keys()
    assert list(tmp_path.iterdir()) == [out]


def test_every_dispatch_is_accounted_for():
    report = run_clock(table3("fedasyn"), 40)
    # Up: whole updates and a part of each upload under way.
    whole = sum(report["updates"]) * 26_500_000
    assert whole <= report["bytes_up"] < whole + sum(report["in_flight"]) * 26_500_000
    assert report["staleness_mean"][9] > report["staleness_mean"][0] == 0.0


def test_a_client_that_never_arrives_has_no_staleness():
    report = run_clock(table3("fedasyn"), 1)
    assert report["updates"][9] == 0 and report["staleness_mean"][9] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        slow(["--windows=0"], "--windows=0"),
        (["--config.window.dt_s=-1"], "window.dt_s"),
        slow(["--config.window.close=k_arrivals", "--config.window.k=11"], "window.k"),
        slow(["--config.data.name=tfds:svhn"], "data.name"),
    ],
)
def test_script_mistakes_leave_one_line_and_the_old_file(tmp_path, arguments, says):
    out = tmp_path / "clock.json"
    out.write_text("old")
    done = script("--config=configs/table3_norecover.py", "--windows=3", f"--out={out}", *arguments)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1
    assert out.read_text() == "old" and list(tmp_path.iterdir()) == [out]


@pytest.mark.slow
def test_script_needs_a_place_to_write(tmp_path):
    for arguments in ([], [f"--out={tmp_path}"], [f"--out={tmp_path}/none/clock.json"]):
        done = script("--config=configs/table3_norecover.py", "--windows=3", *arguments)
        assert done.returncode == 2 and "--out" in done.stderr and len(done.stderr.splitlines()) == 1
