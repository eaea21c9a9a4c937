"""What stands behind a name of the PR-FL study where it is more than one table or figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prfl_jax.config.cli import load_config
from prfl_jax.runtime.clock_only import run_clock
from prfl_jax.studies.prfl import figures, tables
from prfl_jax.studies.study import Material

ROOT = Path(__file__).resolve().parents[3]


def clocks(windows: int, seeds: int) -> tuple[dict[str, list[dict[str, Any]]], float]:
    """Table III's two rows by the clock alone, from `configs/table3_*.py`, by seed; and their window, s."""
    files = {"fedasyn": "table3_fedasyn.py", "prfl_norecover": "table3_norecover.py"}
    rows = {
        method: [run_clock(load_config(ROOT / "configs" / file, {"seed": seed}), windows) for seed in range(seeds)]
        for method, file in files.items()
    }
    (dt_s,) = {load_config(ROOT / "configs" / file).window.dt_s for file in files.values()}
    return rows, dt_s


def table3(material: Material) -> None:
    """Table III; prints how near it is."""
    preset = material.preset
    for line in tables.table3(material.out, *clocks(preset.clock_windows, material.seeds), preset.mark):
        print(line)


def table4(material: Material) -> None:
    """Table IV, and the bytes of the delta split."""
    tables.table4(material)
    tables.bytes_table(material)


def fig10(material: Material) -> None:
    """Fig. 10, and the bytes of the delta split."""
    tables.bytes_table(material)
    figures.fig10(material)
