"""Settings of the FedMP study for tests of its tables and figures, whose runs are made up."""

from __future__ import annotations

from typing import Any

from prfl_jax.studies.fedmp import paper
from prfl_jax.studies.fedmp.setting import Setting


def setting(
    key: str = "cnn",
    network: str = "cnn",
    sweep: str = "",
    value: Any = None,
    methods: tuple[str, ...] = (*paper.MAIN, "fedmp_bsp"),
    thresholds: tuple[float, ...] = (0.5, 0.9),
) -> Setting:
    """A setting with a budget of 40 s; its target is the last threshold."""

    def change(c: Any) -> None:
        c.horizon_s = 40.0

    return Setting(key, key.upper(), change, thresholds, "why", None, methods, network, sweep, value, thresholds[-1])
