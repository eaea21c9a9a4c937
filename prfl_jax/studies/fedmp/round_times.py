"""Fig. 5: how long computing and communication take in a round by pruning ratio, from the clock alone."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

from prfl_jax import data as data_room
from prfl_jax.engine.method import resolve
from prfl_jax.runtime.clock_only import clock_alone
from prfl_jax.studies.curves import COLOURS, grid, save
from prfl_jax.studies.fedmp import presets
from prfl_jax.studies.fedmp.setting import Setting, bases
from prfl_jax.studies.study import Material
from prfl_jax.studies.tables import write_table
from prfl_jax.submodel import ModelSize

RATIOS = tuple(k / 10 for k in range(10))
_FIRST = 1  # rounds before all workers have the ratio


def fixed_ratio(setting: Setting, ratio: float) -> Any:
    """The config of FedMP's sub-models at one ratio for all workers and rounds."""
    config = setting.config("fedmp", 0)
    presets.ratio(ratio)(config)
    return config


def mean_times(config: Any, rounds: int, size: ModelSize) -> tuple[float, float]:
    """Mean seconds of a worker's round, computing and communication (download and upload), over workers and rounds."""
    _, _, coming = clock_alone(config, size)
    arrivals = [a for window in itertools.islice(coming, _FIRST, _FIRST + rounds) for a in window.arrivals]
    computing = statistics.fmean(a.computed_s - a.downloaded_s for a in arrivals)
    return computing, statistics.fmean(a.arrived_s - a.dispatched_s for a in arrivals) - computing


def size_of(config: Any) -> ModelSize:
    """Sizes of a config's sub-models; its data set is read."""
    dataset = data_room.load(config.data, config.seed)
    return resolve(config, dataset.sample, dataset.num_classes).size


def fig5(material: Material) -> None:
    """Mean computing and communication time of a round by ratio, a panel for each network, and a table of them."""
    settings = bases(material.preset.columns)
    if not settings:
        return
    rounds = min(material.preset.clock_windows, 100)
    figure, panels = grid(len(settings), 4.4, 3.6, across=3)
    rows = []
    for ax, setting in zip(panels, settings, strict=True):
        size = size_of(fixed_ratio(setting, RATIOS[-1]))
        times = [mean_times(fixed_ratio(setting, ratio), rounds, size) for ratio in RATIOS]
        for number, label in enumerate(("computing", "communication")):
            ax.plot(
                RATIOS, [t[number] for t in times], color=COLOURS[number + 1], marker="o", ms=4, lw=1.4, label=label
            )
        ax.set_title(setting.title, fontsize=8)
        ax.set_xlabel("pruning ratio of all workers")
        ax.set_ylabel("mean of a round (simulated s)")
        ax.set_ylim(bottom=0)
        ax.grid(True, color="0.93")
        ax.legend(fontsize=8)
        rows += [
            [setting.title, f"{ratio:g}", f"{computing:,.4g}", f"{sending:,.4g}", f"{computing + sending:,.4g}"]
            for ratio, (computing, sending) in zip(RATIOS, times, strict=True)
        ]
    save(figure, material.out / "fig5", material.preset.mark)
    header = ["setting", "ratio", "computing, s", "communication, s", "both, s"]
    said = [material.preset.mark] if material.preset.mark else []
    said.append(f"means over workers and {rounds} rounds with one ratio for all, by the clock alone, without training")
    write_table(material.out / "fig5", "Fig. 5: time of a worker's round by pruning ratio", header, rows, said)
