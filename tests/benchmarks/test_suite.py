"""The suite `kernels` at its small size, its file, and the flags of the script."""

import json
import os
import statistics
import subprocess
import sys

import jax
import numpy as np
import pytest
from kernel_names import KERNELS
from paths import ROOT

from prfl_jax.benchmarks import torch_process
from prfl_jax.benchmarks.kernels import KernelSuite
from prfl_jax.benchmarks.suite import Request, check, run_suite
from prfl_jax.benchmarks.torch_process import MISSING
from prfl_jax.benchmarks.workload import CLASSES, SIZES, Chunks, scores, slots
from prfl_jax.data.device import DeviceData
from prfl_jax.submodel.levels import compute_levels
from prfl_jax.submodel.masks import unpack
from prfl_jax.system.errors import UserError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(report, what was printed) of the suite without PyTorch."""
    out = tmp_path_factory.mktemp("bench") / "kernels.json"
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr(torch_process.importlib.util, "find_spec", lambda name: None)
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        assert run_suite(Request("kernels", str(out), 2, "small")) == 0
    assert os.listdir(out.parent) == ["kernels.json"]
    return json.loads(out.read_text()), "\n".join(printed)


@pytest.mark.slow
def test_every_row_is_there_with_its_numbers(finished):
    report, _ = finished
    assert [row["kernel"] for row in report["rows"]] == KERNELS
    for row in report["rows"]:
        assert row["unit"] == "s" and len(row["runs"]) == 2 and min(row["runs"]) > 0
        assert row["median"] == statistics.median(row["runs"])
        assert (row["min"], row["max"]) == (min(row["runs"]), max(row["runs"]))
        assert row["compile_s"] >= 0 and row["ok"] is None  # the bounds are about the full size
    bounds = {row["kernel"]: (row["bound"], row["bound_on"]) for row in report["rows"] if row["bound"] is not None}
    assert bounds == {
        "levels": (0.5, "median"), "levels_tied": (0.5, "median"), "maskfedavg": (3.0, "ratio"),
        "local_training": (1.0, "ratio"), "local_training_masked": (1.0, "ratio"),
    }  # fmt: skip


@pytest.mark.slow
def test_without_pytorch_the_rest_still_runs(finished):
    report, printed = finished
    rows = {row["kernel"]: row for row in report["rows"]}
    assert report["torch"] == MISSING and MISSING in printed
    for name in ("local_training", "local_training_masked", "local_training_importance"):
        assert rows[name]["missing"] == MISSING and rows[name]["ratio"] is None
    read = rows["maskfedavg"]["reference"]
    assert rows["maskfedavg"]["ratio"] == rows["maskfedavg"]["median"] / read["median"]
    assert rows["maskfedavg"]["missing"] is None and read == rows["fedavg"]["reference"]


@pytest.mark.slow
def test_the_file_says_where_it_was_made(finished):
    report, _ = finished
    assert (report["schema_version"], report["suite"], report["size"], report["repeats"]) == (1, "kernels", "small", 2)
    machine = report["hardware"]
    assert machine["cores"] == os.cpu_count() and machine["memory_gb"] > 0 and machine["cpu"]
    assert machine["device"]["backend"] == jax.default_backend() and machine["versions"]["jax"] == jax.__version__
    assert "XLA_FLAGS" in machine and "commit" in machine and len(machine["load_average_before"]) == 3


@pytest.fixture(scope="module")
def chunks():
    work = SIZES["small"]
    suite = KernelSuite("small", 1)
    size, layout = suite.method.size, suite.method.layout
    density_pct = work.density_pct()
    levels = compute_levels(
        scores([layout.shapes[i] for i in layout.prunable], tied=True), density_pct,
        np.array([size.count(int(p)) for p in density_pct], np.int32), base=size.base_counts(),
    )  # fmt: skip
    return Chunks(work, "prfl", DeviceData(**work.host_data()), levels)


@pytest.mark.slow
def test_a_chunk_dispatches_and_trains_without_aggregating(chunks):
    work, method = chunks.work, chunks.method
    before = jax.tree.map(np.asarray, chunks.state.params)
    chunks.dispatch()
    sent = [np.asarray(leaf) for leaf in jax.tree.leaves(chunks.state.sent)]
    held = np.array([sum(np.count_nonzero(sent[i][c]) for i in method.layout.prunable) for c in range(work.clients)])
    assert held.tolist() == [method.size.count(int(p)) for p in work.density_pct()]
    first, second = np.asarray(chunks.train()), np.asarray(chunks.train())
    assert first.shape == (1, work.clients) and np.isfinite(first).all() and (first != second).all()  # other batches
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, chunks.state.params))
    for leaf, start in zip(jax.tree.leaves(chunks.state.buffer), sent, strict=True):
        for client in range(work.clients):
            assert (np.asarray(leaf[client]) != start[client]).any()  # every client has trained


@pytest.mark.slow
def test_slots_hold_what_their_masks_say(chunks):
    buffer, bits = slots(chunks)
    leaves, layout = jax.tree.leaves(buffer), chunks.method.layout
    for n, i, packed in zip(layout.sizes(), layout.prunable, bits, strict=True):
        for client in range(chunks.work.clients):
            mask = np.asarray(unpack(packed[client], n))
            np.testing.assert_array_equal(mask, np.asarray(leaves[i][client]).reshape(-1) != 0)
    assert len(np.unique(np.asarray(leaves[0])[:, 0])) == chunks.work.clients


def test_scores_and_images_are_what_they_are_said_to_be():
    (tied,), (plain,) = scores([(200, 50)], True), scores([(200, 50)], False)
    assert len(np.unique(tied)) == 11 and np.mean(np.asarray(tied) == 0) > 0.4
    assert len(np.unique(plain)) > 9000 and np.asarray(plain).min() >= 0
    data = SIZES["full"].host_data()
    assert data["x"].shape == (4000, 28, 28, 1) and data["x"].dtype == np.uint8
    assert sorted(data["index"].reshape(-1)) == list(range(4000)) and data["y"].max() == CLASSES - 1
    assert SIZES["full"].density_pct().tolist() == list(range(10, 101, 10))


@pytest.mark.parametrize(
    "arguments,said",
    [
        (("nope", "f.json", 7, "full"), "--suite=nope: allowed is kernels, peers, roofline"),
        ((None, "f.json", 7, "full"), "--suite=None: allowed is kernels, peers, roofline"),
        (("kernels", None, 7, "full"), "--out is missing"),
        (("kernels", ".", 7, "full"), "--out=.: allowed is a file"),
        (("kernels", "no/such/f.json", 7, "full"), "--out=no/such/f.json: allowed is a file"),
        (("kernels", "f.json", 0, "full"), "--repeats=0: allowed is"),
        (("kernels", "f.json", 7, "huge"), "--size=huge: allowed are full, small"),
    ],
)
def test_wrong_flags(arguments, said):
    with pytest.raises(UserError) as error:
        check(Request(*arguments))
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_the_script_refuses_in_one_line():
    run = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "--suite=nope", "--out=f.json"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 2 and run.stdout == ""
    allowed = "kernels, peers, roofline, devices, axes, widths, intervals"
    assert run.stderr == f"benchmark.py: --suite=nope: allowed is {allowed}\n"
