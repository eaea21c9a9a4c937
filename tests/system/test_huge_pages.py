"""Huge pages are asked for by programs alone, once, and not against the user's word."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from prfl_jax.system import huge_pages
from prfl_jax.system.huge_pages import environment_with, without

PROGRAM = "import prfl_jax.system.early\nimport os, sys\nprint(os.environ.get('GLIBC_TUNABLES'), *sys.argv[1:])\n"


@pytest.fixture
def linux(monkeypatch):
    monkeypatch.setattr(huge_pages, "_glibc", lambda: True)
    monkeypatch.setattr(huge_pages, "_on_request", lambda: True)


def test_the_variable_is_added_to_what_is_there(linux):
    assert environment_with({"A": "b"}) == {"A": "b", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    both = environment_with({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"})
    assert both == {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"}
    assert without(both) == {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}
    assert without({"A": "b", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}) == {"A": "b"} == without({"A": "b"})


def test_what_the_user_has_set_counts(linux):
    assert environment_with({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}) is None


def test_nothing_happens_where_there_are_none(monkeypatch):
    for name in ("_glibc", "_on_request"):
        with monkeypatch.context() as patch:
            patch.setattr(huge_pages, "_glibc", lambda: True)
            patch.setattr(huge_pages, "_on_request", lambda: True)
            patch.setattr(huge_pages, name, lambda: False)
            assert environment_with({}) is None


def test_a_program_starts_again_and_an_import_does_not(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    clean = without({**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))})

    def said(*arguments):
        command = [sys.executable, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=clean).stdout.strip()

    wanted = environment_with(clean)
    expected = "None" if wanted is None else wanted["GLIBC_TUNABLES"]
    assert said(str(tmp_path / "program.py"), "--flag=a b", "") == f"{expected} --flag=a b"
    assert said("-m", "program", "x") == f"{expected} x"
    assert said("-c", "import program") == "None"
    whole = f"import runpy; print(1); runpy.run_path({str(tmp_path / 'program.py')!r}, run_name='__main__')"
    assert said("-c", whole).split() == ["1", "None"]
    piped = subprocess.run([sys.executable], input=PROGRAM, capture_output=True, text=True, check=True, env=clean)
    assert piped.stdout.strip() == "None"  # it cannot be read twice
