"""FedMP's smoke preset: every table and figure in about three minutes; the numbers mean nothing."""

from __future__ import annotations

from typing import Any

from prfl_jax.studies.columns import Preset
from prfl_jax.studies.fedmp.paper import ASYNCHRONOUS, LANGUAGE, MAIN, MIXTURES
from prfl_jax.studies.fedmp.presets import Network, floor, images, noniid, ratio, theta, words

SIZE_MB = 6.0  # so that a round takes simulated seconds
_TEXT = "prfl_jax.studies.fedmp.smoke_text:chain"


def _digits(c: Any) -> None:
    images("mnist_embedded", "cnn", 0.1, 0.1)(c)
    c.model.init, c.model.size_mb = "he", SIZE_MB
    c.data.train_limit, c.data.test_limit, c.data.holdout_max = 1000, 100, 50
    c.local.steps, c.local.batch_size = 2, 10
    c.density.interval, c.density.patience = 2, 1


def _words(c: Any) -> None:
    words(_TEXT, 0.01)(c)
    c.model.size_mb = SIZE_MB
    c.data.test_limit, c.data.holdout_max = 40, 20
    c.local.steps, c.local.batch_size = 1, 10


def smoke() -> Preset:
    """Tiny networks on embedded digits and on a random chain of words, a few rounds each."""
    why = "As short as can be"
    horizon_s = dict.fromkeys(("low", "medium", "high"), 45.0)
    cnn = Network("cnn", "smoke test, CNN", _digits, 100, 20, (0.08, 0.15), 0.08, 5.0, horizon_s, why)
    lstm = Network("lstm", "smoke test, LSTM", _words, 50, 10, (15.9, 15.0), 15.9, 5.0, horizon_s, why)
    two = ("fedavg", "fedmp")
    columns = (
        cnn.column((*MAIN, "fedmp_literal", "fedmp_bsp", *ASYNCHRONOUS, *MIXTURES)),
        lstm.column(LANGUAGE),
        cnn.column(two, "scenario", "high"),
        cnn.column(("fedmp",), "theta", 0.25, theta(0.25)),
        cnn.column(("fedmp",), "ratio", 0.4, ratio(0.4)),
        cnn.column(two, "noniid", 30, noniid(30)),
        cnn.column(two, "workers", 20),
        cnn.column(("fedmp", "fedmp_bsp"), "floor", 0.5, floor(0.5)),
    )
    return Preset("smoke", columns, 20, mark="SMOKE TEST: these numbers mean nothing")
