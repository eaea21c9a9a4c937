"""Old names in a user's file: a line on stderr for each name, with the line of the file, whatever uses it how often."""

import subprocess
import sys

from paths import ROOT

OLD = """from prfl_jax.aggregate import Closing
from prfl_jax.density import FullDensity
from prfl_jax.aggregate import Closing as Again


class Halves(FullDensity):
    def balance(self, present):
        return present / 2
"""
RUN = """import warnings
from prfl_jax.config import default_config
from prfl_jax.density import find_density

policy = find_density("old.py:Halves")(default_config().density, 2)
for _ in range(3):
    with warnings.catch_warnings():  # as JAX does: Python then forgets what it has shown
        warnings.simplefilter("default")
    assert policy.percents.tolist() == [100, 100]
"""


def test_an_old_name_is_told_once_with_its_line(tmp_path):
    (tmp_path / "old.py").write_text(OLD)
    (tmp_path / "run.py").write_text(RUN)
    run = subprocess.run(
        [sys.executable, "run.py"], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert [line for line in run.stderr.splitlines() if "FutureWarning: " in line] == [
        "old.py:1: FutureWarning: prfl_jax.aggregate.Closing is now AggregationWeights",
        "old.py:6: FutureWarning: Halves: the base class of density policies is now DensityPolicy, not FullDensity",
        f"{tmp_path}/run.py:9: FutureWarning: DensityPolicy.percents is now density_pct",
    ]
