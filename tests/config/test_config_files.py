"""The committed config files: each describes the run it always did, wherever it is read from."""

from __future__ import annotations

import ast
import shutil

import pytest
from paths import ROOT

from prfl_jax.config.canonical import config_hash
from prfl_jax.config.cli import load_config
from prfl_jax.system.errors import UserError

HASHES = {  # of commit 0d37b15, when no two files shared anything; of later files, of their first commit
    "cifar10": "6740a6a3e5b705a5",
    "clock_many_clients": "d3482451a62260b7",
    "femnist": "d9cd93a67f634d08",
    "italy_power": "5dde180e988d4804",
    "japanese_vowels": "82c607b76f67a5e3",
    "mnist_by_writer": "6a8079fe403a7950",
    "quickstart": "bc8a11bd1444f271",
    "table3_fedasyn": "5448bc83f4ec19d4",
    "table3_norecover": "e6991b51bb851e96",
    "thousand_clients": "b347d44508e7c7ea",
    # as they were added
    "shakespeare": "ccb1f64f70bb8c9c",
    "shakespeare_roles": "6d45377b3580355f",
    "shakespeare_words": "e0fcfc775a4ef7da",
    "fedmp": "23c40c022029c5f3",
    "edge_pruning": "3fa602c8ce2ac7b5",
}
FILES = {path.stem: path for path in (ROOT / "configs").glob("*.py") if path.stem != "base"}


def test_every_file_has_a_hash_here():
    assert set(FILES) == set(HASHES)


@pytest.mark.parametrize("name", HASHES)
def test_runs_are_those_of_before_from_any_folder(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert config_hash(load_config(FILES[name])) == HASHES[name]
    (tmp_path / "linked.py").symlink_to(FILES[name])
    assert config_hash(load_config("linked.py")) == HASHES[name]


@pytest.mark.parametrize("name", HASHES)
def test_docstring_has_command_and_time(name):
    text = ast.get_docstring(ast.parse(FILES[name].read_text()))
    assert f"--config=configs/{name}.py" in text and "Time" in text and "esult" in text


def test_without_its_base_file_a_config_says_what_is_missing(tmp_path):
    shutil.copy(FILES["femnist"], tmp_path)
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "femnist.py")
    assert str(tmp_path / "base.py") in str(caught.value) and "keep the two in one folder" in str(caught.value)


def test_a_mistake_in_the_base_file_names_the_line_of_the_config(tmp_path):
    shutil.copy(FILES["femnist"], tmp_path)
    (tmp_path / "base.py").write_text("def femnist_column():\n    return 1 / 0\n")
    with pytest.raises(UserError, match=r"femnist\.py: line \d+: c = base\.femnist_column\(\): ZeroDivisionError"):
        load_config(tmp_path / "femnist.py")
