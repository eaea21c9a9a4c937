"""One of several processes of a run: `processes_worker.py HOST:PORT COUNT INDEX STRATEGY WORKDIR [STOP_AT]`.

The first prints the report's numbers as JSON; with STOP_AT it hears of a signal at that check.
"""

from __future__ import annotations

import json
import os
import sys
from unittest import mock

coordinator, count, index, strategy, workdir, *stop = sys.argv[1:]
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

from prfl_jax.system import multi_process  # noqa: E402

if int(count) > 1:
    multi_process.start(coordinator, int(count), int(index))

import devices_worker  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import tiny  # noqa: E402

from prfl_jax.runtime.experiment import Experiment  # noqa: E402
from prfl_jax.system.signals import Interrupted, InterruptGuard  # noqa: E402


class Comes(InterruptGuard):
    """A signal that has come by the n-th time it is asked for, in the second process only."""

    def __init__(self) -> None:
        super().__init__()
        self.left = int(stop[0]) if stop else -1

    @property
    def came(self) -> bool:
        self.left -= 1
        return self.left == 0 and int(index) == 1


with mock.patch("prfl_jax.runtime.experiment.run_figure"):
    try:
        devices = 2 if int(count) == 1 else 0  # 0: all, in several processes
        experiment = Experiment(tiny.config(strategy, engine__devices=devices, **devices_worker.TEN))
        finished = experiment.run(workdir, guard=Comes(), progress=False)
    except Interrupted as signal:
        print(json.dumps({"interrupted": signal.signum}))
        sys.exit(0)
if multi_process.leads():
    np.savez(f"{workdir}/params.npz", *jax.tree.leaves(finished.params))
told = {key: finished.report[key] for key in ("windows", "client_updates", "bytes_down", "config_hash", "simulated_s")}
told |= {"devices": finished.report["flags"]["devices"], "accuracy": finished.report["final"]["accuracy"]}
print(json.dumps(told))
