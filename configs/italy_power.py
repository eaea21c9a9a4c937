"""PR-FL on ItalyPowerDemand (UCR archive): power demand over 24 hours, summer or winter half-year, a GRU, five clients.

    python scripts/train.py --config=configs/italy_power.py --config.data.dir=FOLDER --workdir=runs/italy_power

FOLDER has `ItalyPowerDemand_TRAIN.ts` and `ItalyPowerDemand_TEST.ts`; `$PRFL_DATA_DIR` may name it too. A sample is
24 numbers, its label one of two.

Clients and speeds are those of `japanese_vowels.py`. There are 67 training samples in all: 27 are held out and 40
shared out, so few that a trained model's accuracy on the held-out ones no longer changes, which early stopping does
not count. So the clients have to recover while the model learns: decisions every 3 windows, and an interval that
gains less than 20 points counts as one without improvement (the paper: 50 windows, any gain). FedAvg, FedAsyn and
FedBuff then run to the same simulated second. HeteroFL and the other channel rules do not take recurrent layers.

Time and result: 185, 118 and 136 s for the seeds 0, 1 and 2 on one of two shared x86-64 cores (busy with other work),
all four methods and compiling included; test accuracy at the end 96.0, 95.4, 95.3 %, FedAvg 95.7, 95.0, 94.3 %,
FedAsyn 96.0, 96.1, 94.5 %, FedBuff 95.7, 96.3, 94.9 %. The slowest client is pruned to density 0.10, 0.06, 0.10; all
are back at 1 before the end, after 1,545, 917 and 596 simulated s of 2,200. 2026-11-29.
"""

from ml_collections import config_dict

from prfl_jax.config import load_beside

base = load_beside(__file__, "base.py")


def get_config() -> config_dict.ConfigDict:
    """Returns PR-FL with a GRU on two classes, partitioned by Dirichlet(1.0)."""
    c = base.series("ItalyPowerDemand_TRAIN.ts")
    c.rounds = 360
    c.eval_every_s = 120.0
    c.data.holdout_fraction = 0.4
    c.local.lr = 0.2
    c.density.interval = 3
    c.density.min_delta = 0.2
    return c
