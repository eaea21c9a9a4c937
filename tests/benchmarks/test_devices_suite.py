"""The suite `devices` at its small size, with two virtual devices, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest
from paths import ROOT


@pytest.mark.processes
def test_rows_file_table_and_history(tmp_path):
    out = tmp_path / "devices.json"
    flags = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "scripts/benchmark.py", "--suite=devices", "--size=small", "--repeats=3", f"--out={out}"]
    subprocess.run(command, cwd=ROOT, env=flags, check=True, capture_output=True)
    rows = json.loads(out.read_text())["rows"]
    assert [(row["arrivals"], row["devices"]) for row in rows] == [(k, d) for k in (1, 2, 3) for d in (1, 2)]
    for row in rows:
        assert len(row["runs"]) == 3 and row["median"] > 0 and row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
        assert (row["ratio"] == 1.0) or row["devices"] == 2
        assert row["largest_share"] == 1.0 if min(row["arrivals"], row["devices"]) == 1 else row["largest_share"] <= 1
    # clients 0 and 2 lie on one device, 1 on the other
    assert rows[-1]["largest_share"] == 2 / 3
    assert "| 3 | 2 |" in out.with_suffix(".md").read_text()
    assert not list(tmp_path.glob("*history*"))  # a smoke test is no history
