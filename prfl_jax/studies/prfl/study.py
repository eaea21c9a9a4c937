"""The study of the PR-FL paper: Tables III to V, Figs. 8 to 10, and the bytes of the delta split."""

from __future__ import annotations

from collections.abc import Sequence

from prfl_jax.config.defaults import default_config
from prfl_jax.data import data_dir
from prfl_jax.studies.columns import Column, Preset
from prfl_jax.studies.prfl import paper, presets
from prfl_jax.studies.study import Product, Study, deferred

_HERE = "prfl_jax.studies.prfl"


def _main(column: Column, columns: Sequence[Column]) -> tuple[str, ...]:
    return paper.MAIN


def _ablations(column: Column, columns: Sequence[Column]) -> tuple[str, ...]:
    return ("prfl", *paper.ABLATIONS, *paper.EXTRAS)


def _full() -> Preset:
    """With FEMNIST where it is prepared."""
    return presets.full((data_dir(default_config().data) / "femnist").is_dir())


STUDY = Study(
    "prfl",
    {
        "table3": Product(deferred(f"{_HERE}.make:table3"), from_runs=False),
        "table4": Product(deferred(f"{_HERE}.make:table4"), _main),
        "table5": Product(deferred(f"{_HERE}.tables:table5"), _main),
        "fig8": Product(deferred(f"{_HERE}.figures:fig8"), from_runs=False),
        "fig9": Product(deferred(f"{_HERE}.figures:fig9"), _main),
        "fig10": Product(deferred(f"{_HERE}.make:fig10"), _ablations),
    },
    {"full": _full, "cpu": presets.cpu, "smoke": presets.smoke},
)
