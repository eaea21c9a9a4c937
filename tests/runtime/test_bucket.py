"""A workdir in a bucket: what a lost machine leaves there is enough to go on elsewhere, to the same bits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fake_bucket
import pytest
import tiny
from etils.epath import backend
from marked import slow_except

import prfl_jax
from prfl_jax.config import cli
from prfl_jax.report import comparable, read_metrics
from prfl_jax.runtime.training import Variants, train
from prfl_jax.runtime.workdir import Workdir
from prfl_jax.system.cloud_storage import bucket_url, local_folder
from prfl_jax.system.errors import UserError
from prfl_jax.system.signals import Interrupted

URL = "gs://lab/runs/first"


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """An empty store, and a machine that has seen none."""
    (tmp_path / "store").mkdir()
    monkeypatch.setenv(fake_bucket.STORE, str(tmp_path / "store"))
    monkeypatch.setattr(fake_bucket.FakeBucket, "writes", 0)
    monkeypatch.setattr(fake_bucket.FakeBucket, "refuses_at", 0)
    another_machine(tmp_path / "machine", monkeypatch)
    monkeypatch.setattr(backend.fsspec_backend, "fs", lambda path: fake_bucket.FakeBucket())
    return tmp_path / "store"


def another_machine(home: Path, monkeypatch) -> None:
    home.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))


def same(run, whole, folder: str = URL) -> None:
    """Asserts it of the run and of what lies in the bucket."""
    assert comparable(run.report) == comparable(whole.report)
    tiny.same(run.params, whole.params)
    there, prefix = fake_bucket.content(), folder.removeprefix("gs://")
    assert json.loads(there[f"{prefix}/report.json"]) == run.report
    lines = [json.loads(line) for line in there[f"{prefix}/metrics.jsonl"].splitlines()]
    mine = list(read_metrics(whole.workdir / "metrics.jsonl"))
    for records in (lines, mine):
        for record in records:
            record.pop("host_s", None)
    assert lines == mine
    names = ("config.json", "workdir.json", "figure.png", "final_model.npz")
    assert all(f"{prefix}/{name}" in there for name in names)


def test_a_run_in_a_bucket_ends_like_one_in_a_folder(experiment, whole, store):
    run = experiment.run(f"{URL}/", progress=False)
    same(run, whole)
    assert str(run.workdir) == URL and (run.workdir / "report.json").exists()
    assert not local_folder(URL).exists()
    listed = json.loads(fake_bucket.content()["lab/runs/first/workdir.json"])["files"]
    assert {f"lab/runs/first/{name}" for name in listed} | {"lab/runs/first/workdir.json"} == set(fake_bucket.keys())


@pytest.mark.parametrize("checks", slow_except([2, 5, 13, 21], 5))
def test_a_lost_machine_goes_on_elsewhere(experiment, whole, tmp_path, monkeypatch, checks):
    for machine in range(2):
        with pytest.raises(Interrupted):
            experiment.run(URL, guard=tiny.StopAt(checks), progress=False)
        another_machine(tmp_path / f"machine{machine}", monkeypatch)
    same(experiment.run(URL, progress=False), whole)


@pytest.mark.parametrize("write", slow_except([1, 2, 3, 6, 12, 15, 18, 20], 6))
def test_a_store_that_fails_in_the_middle(experiment, whole, tmp_path, monkeypatch, capsys, write):
    """One line says so; what is half there is not used, and the same command ends the run."""
    with pytest.raises(Interrupted):
        experiment.run(URL, guard=tiny.StopAt(4), progress=False)
    before = fake_bucket.FakeBucket.writes
    monkeypatch.setattr(fake_bucket.FakeBucket, "refuses_at", before + write)
    with pytest.raises(SystemExit) as left:
        cli.run(lambda: experiment.run(URL, progress=False) and 0, ["scripts/train.py"])
    assert left.value.code == 2 and fake_bucket.FakeBucket.writes >= before + write
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"train.py: --workdir={URL}: the bucket refuses (ConnectionError: 503")
    another_machine(tmp_path / "other", monkeypatch)
    same(experiment.run(URL, progress=False), whole)


def test_who_goes_on_last_writes(experiment, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        experiment.run(URL, guard=tiny.StopAt(9), progress=False)
    config, key = (
        prfl_jax.config.canonical.to_dict(experiment.config),
        prfl_jax.config.canonical.config_hash(experiment.config),
    )
    first = Workdir(URL, config, key)
    with pytest.raises(UserError, match="another run is writing there"):
        Workdir(URL, config, key)  # on this machine
    another_machine(tmp_path / "other", monkeypatch)
    second = Workdir(URL, config, key)
    before = fake_bucket.content()
    (first.path / "report.json").write_text("{}")
    with pytest.raises(UserError, match=f"--workdir={URL}: .* has resumed this run; this process has stopped"):
        first.put()
    assert fake_bucket.content() == before
    second.put()
    for workdir in (first, second):
        workdir.close()


@pytest.mark.slow
def test_only_the_last_checkpoints_stay(tmp_path):
    experiment = prfl_jax.Experiment(tiny.config(rounds=12, checkpoint__every_s=1e-9, checkpoint__keep=2))
    experiment.run(URL, progress=False)
    steps = {key.split("/")[4] for key in fake_bucket.keys() if "/checkpoints/" in key}
    assert len(steps) == 2 and max(map(int, steps)) > 4


def test_what_is_there_is_not_overwritten(experiment, tmp_path, monkeypatch):
    with pytest.raises(Interrupted):
        experiment.run(URL, guard=tiny.StopAt(5), progress=False)
    before = fake_bucket.content()
    other = prfl_jax.Experiment(tiny.config(rounds=12, local__lr=0.2))
    with pytest.raises(UserError, match=f"--workdir={URL}: holds a run of another config"):
        other.run(URL, progress=False)
    assert fake_bucket.content() == before
    fake_bucket.register()
    (tmp_path / "store" / "lab%2Fmine%2Freport.json").write_text("mine")
    with pytest.raises(UserError, match="holds 'report.json' but no workdir.json; use an empty place"):
        experiment.run("gs://lab/mine", progress=False)
    assert fake_bucket.content() == {**before, "lab/mine/report.json": b"mine"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": {"../../x": 1}, "owner": {}}', '{"files": {}}', "\ud800"])
def test_an_index_that_nobody_wrote(experiment, store, text):
    (store / "lab%2Fruns%2Ffirst%2Fworkdir.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    before = fake_bucket.content()
    with pytest.raises(UserError, match="workdir.json: cannot be read|the bucket refuses"):
        experiment.run(URL, progress=False)
    assert fake_bucket.content() == before


def test_objects_that_were_lost(experiment, whole, store):
    """A checkpoint without one of its files is set aside; here it is the only one."""
    with pytest.raises(Interrupted):
        experiment.run(URL, guard=tiny.StopAt(9), progress=False)
    lost = [path for path in store.iterdir() if "checkpoints%2F1%2Fstate" in path.name]
    for path in lost:
        path.unlink()
    with pytest.raises(UserError, match="none of 1 checkpoints can be read"):
        experiment.run(URL, progress=False)


@pytest.mark.slow
def test_comparisons_lie_there_too(capsys):
    assert train(tiny.config(rounds=4, compare=("fedavg",)), "configs/mine.py", URL) == 0
    said = capsys.readouterr().out
    assert f"final_model.npz: {URL}" in said
    report = json.loads(fake_bucket.content()["lab/runs/first/report.json"])
    theirs = json.loads(fake_bucket.content()["lab/runs/first/compare/fedavg/report.json"])
    assert report["compare"]["fedavg"]["final_accuracy"] == theirs["final"]["accuracy"]


def test_addresses():
    assert bucket_url("runs/a") is bucket_url("a:b/c") is bucket_url(Path("/tmp/gs:x")) is None
    assert bucket_url("s3://lab/x/") == "s3://lab/x"
    for wrong in ("ftp://lab/x", Path("gs://lab/x"), "file:///tmp/x", "gs://", "s3:///"):
        with pytest.raises(UserError, match="allowed is a folder, or an address as text that begins with gs://"):
            bucket_url(wrong)


def test_what_wants_a_folder_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--workdir=gs://lab/x: allowed is a place on this machine"):
        train(tiny.config(), "configs/mine.py", "gs://lab/x", variants=Variants(seeds=2))
    assert not (tmp_path / "gs:").exists()


def test_a_package_that_is_missing_is_named(experiment, monkeypatch):
    def missing(path):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(backend.fsspec_backend, "fs", missing)
    with pytest.raises(UserError, match=f"--workdir={URL}: needs gcsfs; pip install gcsfs"):
        experiment.run(URL, progress=False)
    shutil.rmtree(local_folder(URL), ignore_errors=True)
