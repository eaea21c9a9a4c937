"""The study of defences, at its small size: every run once, the table, and what is done is not run again."""

import json

import pytest

from prfl_jax.config.validate import validate
from prfl_jax.studies import defences as study
from prfl_jax.system.errors import UserError


def test_configs_are_valid_and_differ_in_attack_and_defence():
    for column in study.columns(["fedavg", "prfl"]):
        plain = column.config("mean", 0)
        for defence in column.methods:
            config = column.config(defence, 0)
            validate(config)
            assert config.attack.to_dict() == plain.attack.to_dict() and config.local.to_dict() == plain.local.to_dict()


@pytest.mark.slow
def test_runs_are_made_once_and_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "ATTACKS", {name: study.ATTACKS[name] for name in ("nobody", "flip1")})
    monkeypatch.setattr(study, "DEFENCES", {name: study.DEFENCES[name] for name in ("mean", "median")})
    out, work = tmp_path / "out", tmp_path / "work"
    assert study.defences(["fedavg"], 1, out, work, "small") == 0
    files = sorted(str(file.relative_to(out)) for file in out.rglob("*.json"))
    assert files == [f"runs/fedavg_{a}/{d}_seed0.json" for a in ("flip1", "nobody") for d in ("mean", "median")]
    attacked = json.loads((out / "runs/fedavg_flip1/median_seed0.json").read_text())
    assert len(attacked["attack"]["clients"]) == 2 and attacked["defence"]["rejected"] == 0
    table = (out / "defences.md").read_text()
    assert "| coordinate median |" in table and "2 of 10 flip signs" in table
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.json")}
    capsys.readouterr()
    assert study.defences(["fedavg"], 1, out, work, "small") == 0
    assert before == {file: file.stat().st_mtime_ns for file in out.rglob("*.json")}


def test_wrong_flags_are_refused(tmp_path):
    for arguments, said in (
        ((["fedprox"], 1, tmp_path, tmp_path), "--methods=fedprox: allowed are fedavg, prfl"),
        ((["fedavg"], 0, tmp_path, tmp_path), "--seeds=0: allowed is a whole number of at least 1"),
        ((["fedavg"], 1, tmp_path, tmp_path, "tiny"), "--size=tiny: allowed are full, small"),
    ):
        with pytest.raises(UserError) as error:
            study.defences(*arguments)
        assert said in str(error.value)
