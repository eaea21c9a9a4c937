"""TensorBoard event files hold what the records hold, also over a resume."""

from __future__ import annotations

import struct
from unittest import mock

import pytest
import tiny
from tensorboardX.proto.event_pb2 import Event

from prfl_jax.report import read_metrics
from prfl_jax.report.tensorboard import TensorBoard
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.runtime.training import Variants, train
from prfl_jax.system.signals import Interrupted


def events(folder):
    """All events of a folder's files in order: records of (length, its checksum, bytes, their checksum)."""
    for file in sorted((folder / "tensorboard").iterdir()):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16


def scalars(folder):
    """(name, step) -> value; what is said twice is said alike."""
    found = {}
    for event in events(folder):
        for value in event.summary.value:
            assert found.setdefault((value.tag, event.step), value.simple_value) == value.simple_value
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that was stopped twice."""
    path = tmp_path_factory.mktemp("run")
    config = tiny.config("prfl", rounds=12)
    with mock.patch("prfl_jax.runtime.experiment.run_figure"):
        for checks in (6, 9):
            watch = TensorBoard(path, config.eval_every_s)
            with pytest.raises(Interrupted):
                Experiment(config).run(path, guard=tiny.StopAt(checks), progress=False, watch=watch)
            watch.close()
        watch = TensorBoard(path, config.eval_every_s)
        Experiment(config).run(path, progress=False, watch=watch)
        watch.close()
    return path


def test_scalars_are_those_of_the_records(folder):
    found = scalars(folder)
    records = list(read_metrics(folder / "metrics.jsonl"))
    evals = [record for record in records if record["kind"] == "eval"]
    assert len(list((folder / "tensorboard").iterdir())) == 3
    for name, model in (("accuracy/mask", "mask"), ("accuracy/fedavg", "fedavg")):
        got = {step: value for (tag, step), value in found.items() if tag == name}
        assert got == pytest.approx({round(r["t_s"]): r[model]["accuracy"] for r in evals})
    windows = [r for r in records if r["kind"] == "window"]
    assert {step: v for (tag, step), v in found.items() if tag == "window/arrivals"} == {
        round(r["end_s"]): len(r["arrivals"]) for r in windows
    }
    last = [r for r in records if r["kind"] == "interval"][-1]
    assert [found[f"density/client_{c}", round(last["t_s"])] for c in range(4)] == pytest.approx(
        [percent / 100 for percent in last["percents"]]
    )


@pytest.mark.parametrize(
    ("every_s", "unit_s"),
    [(1e-8, 1e-9), (1e-5, 1e-6), (0.009, 1e-6), (0.01, 1e-3), (0.3, 1e-3), (1.0, 1.0), (1.5, 1.0), (100.0, 1.0)],
)
def test_each_evaluation_has_a_step_of_its_own(tmp_path, every_s, unit_s):
    """Seconds, as long as they tell the evaluations apart; below that, thousandths."""
    watch = TensorBoard(tmp_path, every_s)
    totals = dict.fromkeys(("updates", "bytes_up", "bytes_down", "bytes_client_down"), 0)
    for number in range(40):
        watch({"kind": "eval", "t_s": number * every_s, "mask": {"accuracy": number / 128}, **totals})
    watch.close()
    got = {step: value for (tag, step), value in scalars(tmp_path).items() if tag == "accuracy/mask"}
    assert got == {round(number * every_s / unit_s): number / 128 for number in range(40)} and len(got) == 40


@pytest.mark.slow
def test_the_flag_writes_them_for_all_runs(tmp_path):
    with mock.patch("prfl_jax.runtime.experiment.run_figure"), mock.patch("prfl_jax.report.run_figure"):
        one = tiny.config("fedavg", rounds=2, compare=("fedbuff",))
        assert train(one, "x.py", str(tmp_path / "one"), tensorboard=True) == 0
        two = tiny.config("fedavg", rounds=2)
        assert train(two, "x.py", str(tmp_path / "two"), tensorboard=True, variants=Variants(seeds=2)) == 0
        assert train(two, "x.py", str(tmp_path / "none")) == 0
    for path in ("one", "one/compare/fedbuff", "two/seed0", "two/seed1"):
        assert scalars(tmp_path / path)["accuracy/mask", 0] > 0
    assert not list(tmp_path.glob("none/tensorboard"))
