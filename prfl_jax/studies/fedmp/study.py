"""The study of the FedMP paper: Tables III and IV, Figs. 2 and 4 to 12, and what its agents chose."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prfl_jax.studies.columns import Column
from prfl_jax.studies.fedmp import paper, presets
from prfl_jax.studies.fedmp.setting import OUTSIDE, SYN_FL, Setting, swept
from prfl_jax.studies.fedmp.smoke import smoke
from prfl_jax.studies.study import Needs, Product, Study, deferred

_HERE = "prfl_jax.studies.fedmp"


def _of_bases(methods: Sequence[str], where: Callable[[Setting], bool]) -> Needs:
    """These methods, in the base settings of which `where` holds."""

    def needs(column: Column, columns: Sequence[Column]) -> Sequence[str]:
        return methods if isinstance(column, Setting) and column.is_base and where(column) else ()

    return needs


def _having(method: str, beside: Sequence[str]) -> Needs:
    """These methods, in settings that have `method`."""
    return lambda column, columns: (method, *beside) if method in column.methods else ()


def _mixtures(column: Column, columns: Sequence[Column]) -> Sequence[str]:
    return (SYN_FL, "fedmp", *OUTSIDE) if set(OUTSIDE) & set(column.methods) else ()


def _of_sweep(sweep: str, methods: Sequence[str] | None, base: Sequence[str]) -> Needs:
    """The settings in which something is varied, with these methods (None: all), and their base with `base`."""

    def needs(column: Column, columns: Sequence[Column]) -> Sequence[str]:
        if not any(column is setting for own in swept(columns, sweep).values() for _, setting in own):
            return ()
        own = column.methods if methods is None else methods
        return base if isinstance(column, Setting) and column.is_base else own

    return needs


def _tables(name: str, needs: Needs) -> Product:
    return Product(deferred(f"{_HERE}.tables:{name}"), needs)


def _figure(name: str, needs: Needs) -> Product:
    return Product(deferred(f"{_HERE}.figures:{name}"), needs)


STUDY = Study(
    "fedmp",
    {
        "table3": _tables("table3", _of_bases(paper.MAIN, lambda setting: not setting.language)),
        "table4": _tables("table4", _of_bases(paper.LANGUAGE, lambda setting: setting.language)),
        "fig2": _figure("fig2", _of_sweep("ratio", None, (SYN_FL,))),
        "fig4": _figure("fig4", _of_sweep("theta", ("fedmp",), ("fedmp",))),
        "fig5": Product(deferred(f"{_HERE}.round_times:fig5"), from_runs=False),
        "fig6": _figure("fig6", _of_bases(paper.MAIN, lambda setting: True)),
        "fig7": _figure("fig7", _having("fedmp_bsp", ("fedmp",))),
        "fig8": _figure("fig8", _of_sweep("scenario", paper.MAIN, paper.MAIN)),
        "fig9": _figure("fig9", _of_sweep("noniid", paper.MAIN, paper.MAIN)),
        "fig10": _figure("fig10", _of_sweep("workers", paper.MAIN, paper.MAIN)),
        "fig11": Product(deferred(f"{_HERE}.overhead:fig11"), from_runs=False),
        "fig12": _figure("fig12", _having("asyn_fedmp", (SYN_FL, "fedmp", "asyn_fl"))),
        "ratios": _tables("ratios", _of_bases(("fedmp",), lambda setting: True)),
        "mixtures": _tables("mixtures", _mixtures),
        "floor": _tables("floor", _of_sweep("floor", None, (SYN_FL, "fedmp", "fedmp_bsp"))),
    },
    {"full": presets.full, "cpu": presets.cpu, "smoke": smoke},
    prefix="fedmp_",
)
