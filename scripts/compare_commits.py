"""Compares two commits on this machine, to the bit: records, final models and reports of the same runs.

    python scripts/compare_commits.py --old=main --new=HEAD --out=runs/compare
    python scripts/compare_commits.py --old=main --new=HEAD --out=runs/compare --speed

The runs are a short one of every strategy, with faults off and on, and the first 40 windows of the quickstart;
they take about three minutes a commit on two CPU cores. A run that exists under --out is not repeated. The exit
code is 1 if a run differs. `--ignore=report.config_hash,record.mask.loss` ignores keys of reports and records,
`--ignore=records.interval` all records of a kind, for changes made on purpose.

`--speed` compares times instead: rounds of FedAvg on the workloads of `benchmark.py --suite=peers` and the kernels of
`--suite=kernels`, both commits in turn, in about fifteen minutes; it prints old time / new time and writes speed.json.
Nothing else should run on the machine.
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

from absl import flags

from prfl_jax.benchmarks.commit_speed import compare_speed
from prfl_jax.benchmarks.commits import Request, compare_commits
from prfl_jax.config import cli
from prfl_jax.system.files import user_path

_OLD = flags.DEFINE_string("old", "main", "the old commit, branch or tag")
_NEW = flags.DEFINE_string("new", "HEAD", "the new commit, branch or tag")
_OUT = flags.DEFINE_string("out", "runs/compare", "folder to write to")
_WINDOWS = flags.DEFINE_integer("quickstart_windows", 40, "windows of the quickstart; 0: leave it out", lower_bound=0)
_IGNORE = flags.DEFINE_list("ignore", [], "keys of reports and records that are not compared")
_SPEED = flags.DEFINE_boolean("speed", False, "compare times instead of results")


def main() -> int:
    out = user_path("--out", _OUT.value).absolute()
    if _SPEED.value:
        return compare_speed(_OLD.value, _NEW.value, out)
    return compare_commits(Request(_OLD.value, _NEW.value, out, _WINDOWS.value, tuple(_IGNORE.value)))


if __name__ == "__main__":
    cli.run(main)
