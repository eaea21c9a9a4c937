"""A grid of six trials: three learning rates, two numbers of local steps.

python scripts/sweep.py --config=configs/quickstart.py --space=configs/sweeps/rate_and_steps.py --sampler=grid --workers=2
"""  # noqa: E501 - a command is one line


def get_space() -> dict[str, list[object]]:
    """Returns the values by config key."""
    return {"local.lr": [0.1, 0.25, 0.5], "local.steps": [5, 10]}
