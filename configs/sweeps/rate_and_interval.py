"""Ranges for random search or TPE: learning rate, windows between two density decisions, and patience.

python scripts/sweep.py --config=configs/quickstart.py --space=configs/sweeps/rate_and_interval.py --trials=20 --pruner=asha
"""  # noqa: E501 - a command is one line

from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution


def get_space() -> dict[str, BaseDistribution]:
    """Returns the ranges by config key."""
    return {
        "local.lr": FloatDistribution(0.02, 1.0, log=True),
        "density.interval": IntDistribution(10, 100, step=10),
        "density.patience": IntDistribution(1, 5),
    }
