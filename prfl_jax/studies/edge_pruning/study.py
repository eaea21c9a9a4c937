"""The study of the edge pruning paper: Tables 2 and 3, Figs. 5 to 13."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prfl_jax.studies.edge_pruning import presets
from prfl_jax.studies.edge_pruning.kept_masks import keep_masks
from prfl_jax.studies.edge_pruning.setting import METHODS, VANILLA, Setting
from prfl_jax.studies.study import Needs, Product, Study, deferred

_HERE = "prfl_jax.studies.edge_pruning"


def _in(where: Callable[[Setting], bool], methods: Sequence[str]) -> Needs:
    """These methods, in the settings of which `where` holds."""
    return lambda column, columns: methods if isinstance(column, Setting) and where(column) else ()


def _all_take_part(setting: Setting) -> bool:
    return not setting.sampled


_PRUNING = tuple(method for method in METHODS if method != VANILLA)

STUDY = Study(
    "edge_pruning",
    {
        "table2": Product(deferred(f"{_HERE}.tables:table2"), _in(_all_take_part, _PRUNING)),
        "table3": Product(deferred(f"{_HERE}.tables:table3"), _in(_all_take_part, METHODS)),
        "fig8": Product(deferred(f"{_HERE}.figures:fig8"), _in(_all_take_part, METHODS)),
    },
    {"full": presets.full, "cpu": presets.cpu, "smoke": presets.smoke},
    prefix="edge_pruning_",
    keep=keep_masks,
)
