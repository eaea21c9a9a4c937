"""FedMP's figures of runs: curves, times to the target as bars, and fixed ratios; the numbers of bars as tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes

from prfl_jax.report.metric import Headline
from prfl_jax.report.series import value_at
from prfl_jax.studies.bars import draw_bars
from prfl_jax.studies.curves import COLOURS, grid, panel, save
from prfl_jax.studies.fedmp import paper
from prfl_jax.studies.fedmp.setting import SYN_FL, Setting, bases, method_name, settings_of, swept
from prfl_jax.studies.fedmp.tables import (
    BUDGET_HEADER,
    PAIRED,
    ROUND_HEADER,
    SPEED_HEADER,
    budget_rows,
    notes,
    speed_rows,
)
from prfl_jax.studies.fedmp.tables import round_cells as ROUND
from prfl_jax.studies.reports import Report, diverged, reached
from prfl_jax.studies.study import Material
from prfl_jax.studies.tables import seeds_text, spread, write_table

FIRST = ("fedmp", *(method for method in paper.MAIN if method != "fedmp"))  # in the order of the colours
ASYNCHRONOUS = ("fedmp", SYN_FL, "asyn_fedmp", "asyn_fl")
SHARES = (0.25, 0.5, 1.0)  # of the time budget, in Fig. 2
NEVER = "not reached"
BAR_HEADER = (*SPEED_HEADER, *ROUND_HEADER)


def fig6(material: Material) -> None:
    """The metric over simulated time of the methods of Tables III and IV, a panel for each network."""
    settings = _shown(material, bases(material.preset.columns), FIRST)
    if not settings:
        return
    figure, panels = grid(len(settings), 5.6, 3.9)
    for ax, setting in zip(panels, settings, strict=True):
        panel(ax, _lines(material, setting, FIRST), (setting.target,), setting.title)
    save(figure, material.out / "fig6", material.preset.mark)


def fig7(material: Material) -> None:
    """R2SP against BSP over rounds, and `fig7`, a table of what they have after equally many rounds."""
    methods = ("fedmp", "fedmp_bsp")
    settings = _shown(material, settings_of(material.preset.columns), methods[1:])
    if not settings:
        return
    figure, panels = grid(len(settings), 5.6, 3.9)
    rows = []
    for ax, setting in zip(panels, settings, strict=True):
        lines = [(name, found) for (_, found), name in
                 zip(_lines(material, setting, methods), ("R2SP", "BSP"), strict=True)]  # fmt: skip
        panel(ax, lines, (setting.target,), setting.title, along="window")
        rows += _after_rounds(setting, lines)
    save(figure, material.out / "fig7", material.preset.mark)
    header = ["setting", "scheme", "seeds", "rounds", "test metric", "less R2SP's"]
    part = material.of(settings, methods)
    printed = "; ".join(
        f"{network} R2SP {100 * own['fedmp']:g}, BSP {100 * own['fedmp_bsp']:g} %"
        for network, own in paper.SYNCHRONIZATION.items()
    )
    said = f"after as many rounds as the shorter of a seed's two runs has; the paper's, after 500 rounds: {printed}"
    write_table(material.out / "fig7", "Fig. 7: R2SP and BSP", header, rows, notes(part, said))


def _after_rounds(setting: Setting, lines: Sequence[tuple[str, Sequence[Report]]]) -> list[list[str]]:
    last = {name: {r["seed"]: _curve(r)["window"][-1] for r in found if _curve(r)["window"]} for name, found in lines}
    shared = set.intersection(*(set(own) for own in last.values()))
    rounds = {seed: min(own[seed] for own in last.values()) for seed in sorted(shared)}
    rows: list[list[str]] = []
    base: dict[int, float] = {}
    for name, found in lines:
        if not found:
            continue
        metric = Headline.shared(found)
        at = {
            r["seed"]: value_at(_curve(r)["window"], _curve(r)[metric.name], rounds[r["seed"]])
            for r in found
            if r["seed"] in rounds
        }
        values = {seed: metric.drawn([value])[0] for seed, value in at.items() if value is not None}
        base = base or values
        rows.append(
            [
                setting.title,
                name,
                seeds_text([r for r in found if r["seed"] in values]),
                spread([float(rounds[seed]) for seed in values], ",.0f"),
                spread(list(values.values()), ".2f"),
                "" if values is base else spread([values[s] - base[s] for s in values if s in base], "+.2f"),
            ]
        )
    return rows


def fig4(material: Material) -> None:
    """FedMP's time to the target by theta, relative to the shortest, and a table of the times."""
    by_network = swept(material.preset.columns, "theta")
    figure, (ax,) = grid(1, 6.2, 4.2)
    rows, every = [], []
    for (network, own), colour in zip(by_network.items(), COLOURS, strict=False):
        reports = {theta: material.reports.get((setting.key, "fedmp"), ()) for theta, setting in own}
        every += [setting for theta, setting in own if reports[theta]]
        times = {
            theta: [t for r in reports[theta] if (t := reached(r, setting.target)) is not None]
            for theta, setting in own
        }
        means = {theta: statistics.fmean(found) for theta, found in times.items() if found}
        relative = {theta: mean / min(means.values()) for theta, mean in means.items()}
        label = network if relative else f"{network}: {NEVER}"
        ax.plot(list(relative), list(relative.values()), color=colour, marker="o", ms=4, lw=1.4, label=label)
        for theta, runs in reports.items():
            if runs:
                shown = f"{relative[theta]:.2f}" if theta in relative else "-"
                rows.append([network, f"{theta:g}", seeds_text(runs), spread(times[theta], ",.0f", len(runs)), shown])
    if not rows:
        return
    ax.set_xlabel("granularity theta")
    ax.set_ylabel("time to the target, relative to the shortest")
    ax.set_ylim(bottom=0)
    ax.grid(True, color="0.93")
    ax.legend(fontsize=8)
    save(figure, material.out / "fig4", material.preset.mark)
    header = ["network", "theta", "seeds", "target first reached, s", "relative to the shortest"]
    said = "means over the seeds that reach the target; the paper has it flat up to theta 0.05 and rising beyond"
    part = material.of(every, ("fedmp",))
    write_table(material.out / "fig4", "Fig. 4: time to the target by theta", header, rows, notes(part, said))


def fig2(material: Material) -> None:
    """One fixed ratio for all workers: the metric over time, over rounds, and by ratio at shares of the budget."""
    rows_of = {network: own for network, own in swept(material.preset.columns, "ratio").items()
               if any(_found(material, setting) for _, setting in own)}  # fmt: skip
    if not rows_of:
        return
    figure, axes = grid(3 * len(rows_of), 4.6, 3.7, across=3)
    table: list[list[str]] = []
    for place, (network, own) in enumerate(rows_of.items()):
        over_time, over_rounds, by_ratio = axes[3 * place : 3 * place + 3]
        lines = [(f"ratio {value:g}", _found(material, setting)) for value, setting in own]
        levels = (own[0][1].target,)
        panel(over_time, lines, levels, f"{network}: over time")
        panel(over_rounds, lines, levels, f"{network}: over rounds", along="window")
        points = [(value, setting, _found(material, setting)) for value, setting in own]
        points = [point for point in points if point[2]]
        metric = Headline.shared(points[0][2])
        for share, colour in zip(SHARES, COLOURS, strict=False):
            values = [_at_share(found, setting, share) for _, setting, found in points]
            known = [(value, own) for (value, _, _), own in zip(points, values, strict=True) if own]
            means = [statistics.fmean(own) for _, own in known]
            label = f"after {100 * share:g} % of the budget"
            by_ratio.plot([v for v, _ in known], means, color=colour, marker="o", ms=4, lw=1.4, label=label)
        by_ratio.set_title(f"{network}: by ratio", fontsize=9)
        by_ratio.set_xlabel("pruning ratio of all workers")
        by_ratio.set_ylabel(metric.axis())
        by_ratio.grid(True, color="0.93")
        by_ratio.legend(fontsize=8)
        for value, setting, found in points:
            cells = [spread(_at_share(found, setting, share), ".2f", len(found)) for share in SHARES]
            table.append([network, f"{value:g}", seeds_text(found), *cells])
    save(figure, material.out / "fig2", material.preset.mark)
    header = ["network", "ratio", "seeds", *(f"after {100 * share:g} % of the budget" for share in SHARES)]
    settings = [setting for own in rows_of.values() for _, setting in own]
    part = material.of(settings, ratio_methods(settings))
    said = "test metric with one fixed pruning ratio for all workers, from the second round on; ratio 0 is Syn-FL"
    write_table(material.out / "fig2", "Fig. 2: one fixed pruning ratio", header, table, notes(part, said))


def ratio_methods(settings: Sequence[Setting]) -> list[str]:
    """The methods that Fig. 2 shows: Syn-FL, and what runs at fixed ratios."""
    return [SYN_FL, *(method for setting in settings if not setting.is_base for method in setting.methods)]


def _found(material: Material, setting: Setting) -> Sequence[Report]:
    """Runs of a fixed ratio: Syn-FL's at ratio 0, else those of the setting's first method."""
    method = SYN_FL if setting.is_base else setting.methods[0]
    return material.reports.get((setting.key, method), ())


def _at_share(found: Sequence[Report], setting: Setting, share: float) -> list[float]:
    """The metric as drawn, by seed, when this share of the horizon is over; not of a run whose loss was not finite."""
    metric = Headline.shared(found)
    end_s = share * setting.config(setting.methods[0], 0).horizon_s
    bad = diverged(found)
    there = [r for r in found if r["seed"] not in bad or end_s <= max(_curve(r)["t_s"], default=0.0)]
    values = [value_at(_curve(r)["t_s"], _curve(r)[metric.name], end_s) for r in there]
    return metric.drawn([value for value in values if value is not None])


def fig8(material: Material) -> None:
    """Times to the target in the scenarios Low, Medium and High."""
    _bars(material, "fig8", "scenario", "Fig. 8: times to the target by scenario", str.capitalize)


def fig9(material: Material) -> None:
    """Times to the target by non-IID level."""
    _bars(material, "fig9", "noniid", "Fig. 9: times to the target by non-IID level", "level {:g}".format)


def fig10(material: Material) -> None:
    """Times to the target by number of workers."""
    _bars(material, "fig10", "workers", "Fig. 10: times to the target by number of workers", "{} workers".format)


def fig12(material: Material) -> None:
    """Times to the target of the synchronous and the asynchronous methods."""
    settings = _shown(material, bases(material.preset.columns), paper.ASYNCHRONOUS)
    if not settings:
        return
    figure, panels = grid(len(settings), 4.4, 3.7, across=3)
    for ax, setting in zip(panels, settings, strict=True):
        bars = [(method_name(m), [_times(material, setting, m, setting.target)]) for m in ASYNCHRONOUS]
        _draw_times(ax, [""], bars, setting, setting.target)
    save(figure, material.out / "fig12", material.preset.mark)
    part = material.of(settings, ASYNCHRONOUS)
    rows = [row for one in settings for row in speed_rows(part.of([one], ASYNCHRONOUS), target=one.target, ends=ROUND)]
    low, high = (100 * (1 - 1 / factor) for factor in paper.ASYNCHRONOUS_SPEEDUP)
    said = f"m = 5; the paper: Asyn-FedMP takes {low:.0f} to {high:.0f} % less time than Asyn-FL, and more than FedMP"
    title = "Fig. 12: synchronous and asynchronous"
    write_table(material.out / "fig12", title, BAR_HEADER, rows, notes(part, said, PAIRED))


def _bars(material: Material, name: str, sweep: str, title: str, words: Callable[[Any], str]) -> None:
    """Bars of the times by what is varied, to the target of the settings in which it is.

    Also writes the table `name` of the numbers, and `name`_budget, what each method has at the end of the time budget.
    """
    by_network = {
        network: own
        for network, own in swept(material.preset.columns, sweep).items()
        if _shown(material, [setting for _, setting in own if not setting.is_base], FIRST)
    }
    if not by_network:
        return
    figure, panels = grid(len(by_network), 5.8, 3.9)
    rows, budgets, every = [], [], []
    for ax, own in zip(panels, by_network.values(), strict=True):
        settings = [setting for _, setting in own]
        target = next(setting.target for setting in settings if not setting.is_base)
        bars = [(method_name(m), [_times(material, setting, m, target) for setting in settings]) for m in FIRST]
        _draw_times(ax, [words(value) for value, _ in own], bars, settings[0], target)
        rows += speed_rows(material.of(settings, FIRST), sweep, target, ROUND)
        budgets += budget_rows(material.of(settings, FIRST))
        every += settings
    save(figure, material.out / name, material.preset.mark)
    said = notes(material.of(every, FIRST), PAIRED)
    write_table(material.out / name, title, BAR_HEADER, rows, said)
    title = f"{title.partition(':')[0]}: at the end of the time budget"
    write_table(material.out / f"{name}_budget", title, [*BUDGET_HEADER, *ROUND_HEADER], budgets, said)


def _draw_times(
    ax: Axes,
    groups: Sequence[str],
    bars: Sequence[tuple[str, list[list[float | None] | None]]],
    setting: Setting,
    target: float,
) -> None:
    coloured = [(label, colour, values) for (label, values), colour in zip(bars, COLOURS, strict=False)
                if any(own is not None for own in values)]  # fmt: skip
    draw_bars(ax, groups, coloured, NEVER)
    level = f"{target:g}" if setting.language else f"{100 * target:g} %"
    ax.set_title(f"{setting.network}, to {level}", fontsize=9)
    ax.set_ylabel("simulated time (s)")
    ax.set_ylim(0, 1.35 * ax.get_ylim()[1])  # room for the legend
    ax.legend(fontsize=7, ncol=3, loc="upper center")


def _times(material: Material, setting: Setting, method: str, target: float) -> list[float | None] | None:
    """Simulated s to the target by seed, None of a seed that does not reach it; None: there is no run."""
    found = material.reports.get((setting.key, method))
    return [reached(report, target) for report in found] if found else None


def _shown(material: Material, settings: Sequence[Setting], methods: Sequence[str]) -> list[Setting]:
    return [setting for setting in settings if any((setting.key, method) in material.reports for method in methods)]


def _lines(material: Material, setting: Setting, methods: Sequence[str]) -> list[tuple[str, Sequence[Report]]]:
    return [(method_name(method), material.reports.get((setting.key, method), ())) for method in methods]


def _curve(report: Report) -> Any:
    return report["curves"][report["final"]["model"]]
