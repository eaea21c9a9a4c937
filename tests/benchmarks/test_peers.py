"""The suite `peers` with workers made up for the test, with our own worker, and what a worker is told."""

import dataclasses
import json
import sys
import textwrap
import time

import jax
import numpy as np
import pytest

from prfl_jax.benchmarks import peers
from prfl_jax.benchmarks.peers import (
    FOLDER,
    LOOP,
    OURS,
    PEERS,
    TINY,
    WORKLOADS,
    Peer,
    PeerSuite,
    make_environment,
    markdown,
)
from prfl_jax.benchmarks.suite import Request, check, run_suite
from prfl_jax.benchmarks.worker import Worker, WorkerFailed
from prfl_jax.local import LocalSettings
from prfl_jax.local.sgd import make_local_round
from prfl_jax.models.losses import softmax_loss
from prfl_jax.models.nets import Conv2
from prfl_jax.system.errors import UserError

sys.path.insert(0, str(FOLDER))
from common import Work  # noqa: E402

ANSWERS = """
    import json, os, sys, time
    print(json.dumps({"who": "made up"}), flush=True)
    print("something went wrong", file=sys.stderr, flush=True)
    taken = iter(SECONDS)
    for line in sys.stdin:
        seconds = next(taken, None)
        if seconds is None:
            ENDS
        print(json.dumps({"seconds": seconds}), flush=True)
"""


def made_up(folder, name, seconds, ends="sys.exit(3)"):
    """A worker that says it took so long, and then ends."""
    file = folder / f"{name}.py"
    file.write_text(textwrap.dedent(ANSWERS).replace("SECONDS", repr(seconds)).replace("ENDS", ends))
    return Peer(name, str(file), None)


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A suite of made-up peers, given by name and seconds of each turn: first round, rounds, evaluations."""

    def make(repeats=2, **said):
        known = {name: made_up(tmp_path, name, seconds) for name, seconds in said.items()}
        monkeypatch.setattr(peers, "PEERS", known)
        return PeerSuite(["W1"], list(known), tmp_path, False, repeats, small=True)

    return make


def test_ratios_are_to_the_loop_in_the_same_turn(suite):
    # the first round, the turn that does not count, two rounds, the evaluation that does not count, one evaluation
    loop, other = [9.0, 5.0, 1.0, 2.0, 5.0, 0.5], [3.0, 5.0, 2.0, 1.0, 5.0, 1.0]
    rows = {row["peer"]: row for row in suite(torch_loop=loop, other=other).rows()}
    own, row = rows[LOOP], rows["other"]
    assert own["ratio"] == own["ratio_min"] == own["ratio_max"] == 1.0 and own["evaluation_ratio"] == 1.0
    assert row["runs"] == [2.0, 1.0] and row["median"] == 1.5
    assert (row["ratio"], row["ratio_min"], row["ratio_max"]) == (1.25, 0.5, 2.0)
    assert row["evaluation_s"] == 1.0 and row["evaluation_ratio"] == 2.0
    assert row["compile_s"] == 1.5 and row["start_s"] > 0 and row["first_round_s"] == 3.0
    assert row["peak_memory_mb"] > 1 and row["about"] == {"who": "made up"} and row["missing"] is None


def test_a_peer_that_fails_is_a_row_that_says_why(suite):
    whole = [1.0] * 6
    rows = {row["peer"]: row for row in suite(torch_loop=whole, early=[], late=[1.0, 1.0, 1.0], good=whole).rows()}
    assert rows["early"]["missing"] == "does not run: something went wrong" and rows["early"]["ratio"] is None
    assert rows["late"]["missing"] == "failed: something went wrong"
    assert rows["good"]["ratio"] == 1.0
    text = markdown(list(rows.values()), "a machine")
    assert "| early | does not run: something went wrong |" in text and "| good | 1.000 | 1.00 (1.00, 1.00) |" in text


def test_without_the_loop_there_are_times_and_no_ratios(suite):
    rows = {row["peer"]: row for row in suite(torch_loop=[], good=[1.0] * 6).rows()}
    assert rows[LOOP]["missing"] and rows["good"]["ratio"] is None and rows["good"]["median"] == 1.0
    assert "| good | 1.000 | - |" in markdown(list(rows.values()), "a machine")


@pytest.mark.processes
def test_an_environment_that_cannot_be_made_is_reported(tmp_path, monkeypatch):
    (tmp_path / "impossible.txt").write_text("--no-index\nno-such-package-of-that-name\n")
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    monkeypatch.setattr(peers, "PEERS", {LOOP: Peer("loop", "w.py", "impossible.txt")})
    (row,) = PeerSuite(["W1"], [], tmp_path / "envs", False, 1, small=True).rows()
    assert row["missing"].startswith("cannot be installed: ERROR: ") and row["ratio"] is None
    assert not (tmp_path / "envs" / "impossible" / "complete").exists()


@pytest.mark.processes
def test_an_environment_is_made_again_for_other_requirements(tmp_path, monkeypatch):
    file = tmp_path / "nothing.txt"
    file.write_text("# nothing\n")
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    peer, calls, run = Peer("nothing", "w.py", "nothing.txt"), [], peers.subprocess.run
    monkeypatch.setattr(peers.subprocess, "run", lambda command, **how: calls.append(command) or run(command, **how))
    assert make_environment(peer, tmp_path / "envs") is None and len(calls) == 2
    assert make_environment(peer, tmp_path / "envs") is None and len(calls) == 2
    file.write_text("# nothing either\n")
    assert make_environment(peer, tmp_path / "envs") is None and len(calls) == 4


def alive(pid):
    try:
        return "Z (zombie)" not in peers.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.processes
def test_a_worker_that_hangs_is_killed_with_what_it_started(tmp_path):
    slow = "import subprocess as s; print(s.Popen(['sleep', '60']).pid, file=sys.stderr, flush=True); time.sleep(60)"
    peer = made_up(tmp_path, "slow", [1.0], slow)
    worker = Worker(peer.command(tmp_path, tmp_path / "x", 1), patience_s=5.0)
    assert worker.ask("round") == {"seconds": 1.0}
    with pytest.raises(WorkerFailed, match=r"no answer within 5 s: (\d+)") as why:
        worker.ask("round")
    child = int(str(why.value).split()[-1])
    assert worker.peak_memory_mb() > 1
    start = time.monotonic()
    worker._process.kill()
    worker.close()
    assert time.monotonic() - start < 12
    while alive(child):  # a signal takes its time on a busy machine
        assert time.monotonic() - start < 30
        time.sleep(0.05)


def test_a_worker_that_is_not_there():
    with pytest.raises(WorkerFailed, match="/no/such/program: No such file"):
        Worker(["/no/such/program"])


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_first_model_is_the_networks(name):
    work = WORKLOADS[name]
    params, data = work.params(), dataclasses.replace(work, images=50).data(real=False)
    sizes = {"W1": 6_603_710, "W2": 32 * 27 + 32 + 64 * 288 + 64 + 12544 * 128 + 128 + 1290, "W3": 9_750_922}
    assert sum(leaf.size for leaf in params.values()) == sizes[name]
    assert data["index"].shape == (work.users, 50) and data["x"].dtype == np.uint8
    assert len(np.unique(data["index"])) == work.users * 50  # nobody shares an image


def test_a_worker_draws_cohorts_and_batches(tmp_path):
    work = dataclasses.replace(TINY, users=6, cohort=2)
    work.write(tmp_path / "w.npz", False, 2)
    told = Work(str(tmp_path / "w.npz"))
    cohorts = [told.draw(number) for number in range(40)]
    assert {len(set(cohort)) for cohort in cohorts} == {2} and set(sum(cohorts, [])) == set(range(6))
    rows = told.rows(3, 0)
    assert rows.shape == (2, 4) and sorted(rows.reshape(-1)) == sorted(told.index[3])  # all eight, each once
    assert told.threads == 2 and told.net["model"] == "conv2"


@pytest.mark.processes
def test_our_worker_steps_as_one_client_after_another(tmp_path):
    """A round of all users is the mean of what each makes of the first model; the loss says so."""
    work = dataclasses.replace(TINY, users=2, cohort=2, images=4, steps=1, batch_size=4)
    work.write(tmp_path / "w.npz", False, 1)
    command = PEERS[OURS].command(tmp_path, tmp_path / "w.npz", 1)
    with Worker(command, environment={"PYTHONPATH": peers.python_path()}) as worker:
        losses = [worker.ask("round")["loss"] for _ in range(2)]
        assert 0 <= worker.ask("evaluate")["accuracy"] <= 1
    told = Work(str(tmp_path / "w.npz"))
    params: dict = {}
    for path, leaf in told.params.items():
        layer, name = path.split("/")
        params.setdefault(layer, {})[name] = leaf
    model = tiny_model(told)
    for want in losses:
        trained = []
        for user in range(2):
            x, y = told.x[told.index[user]].astype(np.float32) / 255, told.y[told.index[user]].astype(np.int32)
            trained.append(model(params, (), x[None], y[None], np.float32(told.lr), jax.random.key(0)))
        assert float(np.mean([result.loss for result in trained])) == pytest.approx(want, rel=1e-4)
        params = jax.tree.map(lambda a, b: (a + b) / 2, *(result.params for result in trained))


def tiny_model(told):
    from prfl_jax.models.build import wrap_linen
    from prfl_jax.submodel.layout import Layout

    model = wrap_linen("conv2", Conv2(classes=told.net["classes"]), (28, 28, 1), told.net["classes"])
    layout = Layout.of(model.shapes(), prune=False, channels=False)
    return jax.jit(make_local_round(model, softmax_loss, layout, LocalSettings(told.steps, told.batch_size)))


def test_the_command_writes_the_file_and_its_table(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "PEERS", {LOOP: made_up(tmp_path, "loop", [1.0] * 6)})
    out = tmp_path / "peers.json"
    assert run_suite(Request("peers", str(out), 2, "small", workloads=["W1"])) == 0
    report = json.loads(out.read_text())
    assert report["suite"] == "peers" and report["data"] == "random" and report["hardware"]["cores"]
    assert [(row["workload"], row["peer"], row["ratio"]) for row in report["rows"]] == [("W1", LOOP, 1.0)]
    assert "| loop | 1.000 | 1.00 (1.00, 1.00) |" in out.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    "flags,said",
    [
        (dict(workloads=["W9"]), "--workloads=W9: allowed are W1, W2, W3"),
        (dict(peers=["leaf"]), "--peers=leaf: allowed are torch_loop, "),
        (dict(data="fake"), "--data=fake: allowed are random, real"),
    ],
)
def test_wrong_flags(flags, said):
    with pytest.raises(UserError) as error:
        check(Request("peers", "f.json", **flags))
    assert str(error.value).startswith(said)


def test_real_images_that_are_not_there_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PRFL_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match="cifar10"):
        WORKLOADS["W3"].data(real=True)
