"""Runs tiny experiments on several virtual CPU devices and on one, and prints how far apart they are, as JSON.

A process of its own: how many devices a CPU counts as is settled before JAX starts.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

flags = os.environ.get("XLA_FLAGS", "")
if "device_count" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=8"

import jax  # noqa: E402
import numpy as np  # noqa: E402
import tiny  # noqa: E402

from prfl_jax.runtime.experiment import Experiment  # noqa: E402
from prfl_jax.system.signals import Interrupted  # noqa: E402

# Ten clients on eight devices: two devices hold two, six hold one and an empty slot.
TEN = {
    "rounds": 20,
    # at the default of 0.25 HeteroFL's narrow networks blow a rounding error up a hundred thousand times in 20 windows
    "local__lr": 0.1,
    "density__interval": 4,
    "submodel__importance": "weight",  # a rounding error must not reach the choice of what is pruned
    "clients__number": 10,
    "clients__up_mb_s": (5.0, 4.0, 3.0, 2.5, 2.0, 1.5, 1.2, 1.0, 0.8, 0.8),
    "clients__down_mb_s": (20.0, 18.0, 12.0, 10.0, 8.0, 6.0, 5.0, 4.0, 3.0, 3.0),
}


# what each is run with everywhere; a robust kernel looks at the models of all devices, and each device has all widths
WITH = {
    "fedavg": {
        "aggregation__name": "multi_krum",
        "aggregation__clip_norm": 0.5,
        "attack__name": "noise",
        "attack__number": 2,
    },
    "heterofl_windowed": {"engine__widths": (0.5,)},
    "prfl_norecover": {"aggregation__name": "fedbuff", "aggregation__optimizer": "adam"},
}
READS = f"{Path(__file__).with_name('counting_work.py')}:READS"
# sub-models put back into the models that were sent, of two generations of masks and more
WITH["asyn_fl"] = {
    "submodel__name": "nested",
    "density__name": "time_balance",
    "transport__name": "distinct",
    "aggregation__name": "r2sp",
    "window__k": 4,
}
# what is gathered of gradients, before window 1 and during the run
WITH["prunefl"] = {"pruning__initial_rounds": 13, "pruning__interval": 4}
WITH["fedasyn"] = {"local__name": READS}  # its losses tell what clients have kept and what the server has sent
MANY = {"fedbuff": {"engine__train": "pending"}, "fedasyn": {"engine__train": "pending"}}  # on several devices only


def apart(got, want):
    """Largest difference of any leaf, relative to the leaf's largest entry."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    return max(float(np.abs(g - w).max() / max(np.abs(w).max(), 1e-30)) for g, w in pairs)


def settings(strategy):
    return {**TEN, **WITH.get(strategy, {})}


def moved(strategy, first, then, checks):
    """A run that is interrupted on `first` devices and goes on on `then`."""
    with tempfile.TemporaryDirectory() as folder, mock.patch("prfl_jax.runtime.experiment.run_figure"):
        several = {**settings(strategy), **MANY.get(strategy, {})}
        before = Experiment(tiny.config(strategy, engine__devices=first, **several))
        try:
            before.run(folder, guard=tiny.StopAt(checks), progress=False)
            raise AssertionError("it was not interrupted")
        except Interrupted:
            pass
        after = Experiment(tiny.config(strategy, engine__devices=then, **settings(strategy)))
        return after.run(folder, progress=False)


def main() -> None:
    told = {"devices": jax.device_count()}
    for strategy in sys.argv[1:]:
        one = tiny.run(strategy, engine__devices=1, **settings(strategy))
        many = tiny.run(strategy, engine__devices=8, **MANY.get(strategy, {}), **settings(strategy))
        resumed = moved(strategy, 8, 3, 9)
        windows = [[(w["arrivals"], w["bytes_down"], w["end_s"]) for w in ran.of("window")] for ran in (one, many)]
        losses = [np.concatenate([w["loss"] for w in ran.of("window")]) for ran in (one, many)]
        told[strategy] = {
            "windows": one.report["windows"],
            "windows_equal": windows[0] == windows[1],
            "weights_apart": apart(many.params, one.params),
            "losses_apart": float(np.abs(losses[0] - losses[1]).max()),
            "resumed_windows": resumed.report["windows"],
            "resumed_apart": apart(resumed.params, one.params),
            "same_hash": one.report["config_hash"] == many.report["config_hash"],
            "widths": [ran.report["flags"]["widths"] for ran in (one, many, resumed)],
            "least_pct": min(min(w["percents"]) for w in one.of("window") if w["percents"]),
            "used": [ran.report["flags"]["devices"] for ran in (one, many)] + [resumed.report["flags"]["devices"]],
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
