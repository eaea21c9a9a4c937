"""A report names the commit of the clone that the package runs from."""

from __future__ import annotations

import subprocess

import pytest
from paths import ROOT

from prfl_jax.system import provenance


def test_commit_is_the_head_of_this_clone():
    if not (ROOT / ".git").exists():
        pytest.skip("the tests do not run from a clone")
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert provenance.commit().removesuffix("+changes") == head.stdout.strip()
