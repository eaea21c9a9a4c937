"""The study of the edge pruning paper: Tables 2 and 3, Figs. 5 to 13."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prfl_jax.studies.edge_pruning import presets
from prfl_jax.studies.edge_pruning.kept_masks import keep_masks
from prfl_jax.studies.edge_pruning.setting import METHODS, SAMPLED_METHODS, VANILLA, Setting
from prfl_jax.studies.study import Needs, Product, Study, deferred

_HERE = "prfl_jax.studies.edge_pruning"


def _in(where: Callable[[Setting], bool], methods: Sequence[str]) -> Needs:
    """These methods, in the settings of which `where` holds."""
    return lambda column, columns: methods if isinstance(column, Setting) and where(column) else ()


def _all_take_part(setting: Setting) -> bool:
    return not setting.sampled


def _base(setting: Setting) -> bool:
    return setting.is_base


def _sampled(setting: Setting) -> bool:
    return setting.sampled


def _base_or_sampled(setting: Setting) -> bool:
    return not setting.variant


def _any(setting: Setting) -> bool:
    return True


_PRUNING = tuple(method for method in METHODS if method != VANILLA)


def _of(spec: str, where: Callable[[Setting], bool], methods: Sequence[str]) -> Product:
    return Product(deferred(f"{_HERE}.{spec}"), _in(where, methods))


STUDY = Study(
    "edge_pruning",
    {
        "table2": _of("tables:table2", _all_take_part, _PRUNING),
        "table3": _of("tables:table3", _all_take_part, METHODS),
        "fig5": _of("mask_figures:fig5", _base_or_sampled, ("layerwise",)),
        "fig6": _of("mask_figures:fig6", _base, _PRUNING),
        "fig7": _of("mask_figures:fig7", _base, ("layerwise",)),
        "fig8": _of("figures:fig8", _all_take_part, METHODS),
        "fig9": _of("figures:fig9", _all_take_part, METHODS),
        "fig10": _of("figures:fig10", _all_take_part, METHODS),
        "fig11": _of("figures:fig11", _all_take_part, METHODS),
        "fig12": _of("figures:fig12", _sampled, SAMPLED_METHODS),
        "fig13": _of("figures:fig13", _sampled, SAMPLED_METHODS),
        "similarity": _of("mask_figures:similarity", _any, _PRUNING),
    },
    {"full": presets.full, "cpu": presets.cpu, "smoke": presets.smoke},
    prefix="edge_pruning_",
    keep=keep_masks,
)
