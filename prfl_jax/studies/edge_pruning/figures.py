"""The edge pruning paper's figures of runs: accuracy, size and time over rounds, stability, and drawn users."""

from __future__ import annotations

from collections.abc import Sequence

from prfl_jax.studies.curves import grid, panel, save
from prfl_jax.studies.edge_pruning.setting import METHODS, Setting, method_name, settings_of
from prfl_jax.studies.reports import Report
from prfl_jax.studies.study import Material


def fig8(material: Material) -> None:
    """Accuracy over rounds, and beside it over simulated time, of all methods."""
    settings = shown(material, METHODS)
    if not settings:
        return
    figure, panels = grid(2 * len(settings), 5.6, 3.9)
    for setting, by_round, by_time in zip(settings, panels[::2], panels[1::2], strict=True):
        panel(by_round, lines(material, setting), setting.thresholds, setting.title, along="window")
        panel(by_time, lines(material, setting), setting.thresholds, setting.title)
    save(figure, material.out / "fig8", material.preset.mark)


def shown(material: Material, methods: Sequence[str]) -> list[Setting]:
    """Base settings and variants that have a run of one of these methods."""
    own = [setting for setting in settings_of(material.preset.columns) if not setting.sampled]
    return [setting for setting in own if any((setting.key, method) in material.reports for method in methods)]


def lines(material: Material, setting: Setting, methods: Sequence[str] = METHODS) -> list[tuple[str, Sequence[Report]]]:
    """Label and reports of each method; a colour belongs to a place."""
    return [(method_name(method), material.reports.get((setting.key, method), ())) for method in methods]
