"""Run by test_disk_full.py in a namespace of its own: a small file system that is full, a run, room, the run again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import tiny

from prfl_jax.config import cli
from prfl_jax.report import comparable
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.startup import orbax_once


def main(base: Path, free: int) -> None:
    """Prints as JSON how each of the runs ended.

    Args:
      free: bytes that are left to the first one.
    """
    orbax_once()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", base / "disk"], check=True)
    filler = base / "disk" / "filler"
    filler.write_bytes(b"\0" * ((8 << 20) - free))
    experiment = Experiment(tiny.config(rounds=12))
    try:
        cli.run(lambda: experiment.run(base / "disk" / "run", progress=False) and 0, ["scripts/train.py"])
    except SystemExit as left:
        code = left.code
    filler.unlink()
    runs = [experiment.run(base / place, progress=False) for place in ("disk/run", "whole")]
    first, second = (comparable(run.report) for run in runs)
    print(json.dumps({"code": code, "same": first == second}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
