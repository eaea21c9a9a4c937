"""FedMP's smoke preset: every table and figure in about three minutes; the numbers mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prfl_jax.studies.columns import Preset
from prfl_jax.studies.fedmp.paper import ASYNCHRONOUS, LANGUAGE, MAIN, MIXTURES
from prfl_jax.studies.fedmp.setting import Setting
from prfl_jax.studies.fedmp.workers import set_workers

Change = Callable[[Any], None]
_WHY = "As short as can be"
_SCENARIO, _NUMBER = "medium", 10


def _cnn(c: Any) -> None:
    c.horizon_s, c.eval_every_s = 45.0, 5.0
    c.data.name, c.data.partition, c.data.train_limit = "mnist_embedded", "iid", 1000
    c.data.test_limit, c.data.holdout_max = 100, 50
    c.model.name, c.model.width, c.model.loss, c.model.size_mb = "cnn", 0.1, "softmax", 6.0
    c.local.steps, c.local.batch_size, c.local.lr = 1, 10, 0.1
    c.density.interval, c.density.patience = 2, 1


def _lstm(c: Any) -> None:
    c.horizon_s, c.eval_every_s = 45.0, 5.0
    c.task.name, c.data.name, c.data.partition = "language_model", "prfl_jax.studies.fedmp.smoke_text:chain", "iid"
    c.data.test_limit, c.data.holdout_max = 40, 20
    c.model.name, c.model.width, c.model.init, c.model.loss = "word_lstm", 0.01, "flax", "softmax"
    c.model.size_mb = 6.0
    c.local.steps, c.local.batch_size, c.local.lr = 1, 10, 1.0


def _setting(
    network: str, methods: tuple[str, ...], sweep: str = "", value: Any = None, extra: Change = lambda c: None
) -> Setting:
    scenario, number = value if sweep == "scenario" else _SCENARIO, value if sweep == "workers" else _NUMBER

    def change(c: Any) -> None:
        (_lstm if network == "lstm" else _cnn)(c)
        set_workers(c, scenario, number)
        extra(c)

    key = f"{network}_{sweep}_{value}" if sweep else network
    title = f"smoke test, {network}" + (f", {sweep} {value}" if sweep else "")
    targets = (15.0,) if network == "lstm" else (0.15,)
    return Setting(key, title, change, targets, _WHY, None, methods, network, sweep, value)


def _theta(value: float) -> Change:
    def change(c: Any) -> None:
        c.density.theta = value

    return change


def _ratio(value: float) -> Change:
    def change(c: Any) -> None:
        c.density.name, c.density.tiers = "tiers", (round(1.0 - value, 2),)

    return change


def _noniid(level: int) -> Change:
    def change(c: Any) -> None:
        c.data.partition, c.data.fedmp_level = "fedmp", level

    return change


def _floor(density: float) -> Change:
    def change(c: Any) -> None:
        c.density.min_density = density

    return change


def smoke() -> Preset:
    """Tiny networks on embedded digits and on a random chain of words, a few rounds each."""
    two = ("fedavg", "fedmp")
    columns = (
        _setting("cnn", (*MAIN, "fedmp_literal", "fedmp_bsp", *ASYNCHRONOUS, *MIXTURES)),
        _setting("lstm", LANGUAGE),
        _setting("cnn", two, "scenario", "high"),
        _setting("cnn", ("fedmp",), "theta", 0.25, _theta(0.25)),
        _setting("cnn", ("fedmp",), "ratio", 0.4, _ratio(0.4)),
        _setting("cnn", two, "noniid", 30, _noniid(30)),
        _setting("cnn", two, "workers", 20),
        _setting("cnn", ("fedmp", "fedmp_bsp"), "floor", 0.5, _floor(0.5)),
    )
    return Preset("smoke", columns, 20, mark="SMOKE TEST: these numbers mean nothing")
