"""FedMP's tables: what each method reaches in the time budget, how fast it reaches a target, and rows in no paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prfl_jax.report.metric import Headline
from prfl_jax.studies.columns import Column
from prfl_jax.studies.fedmp import paper
from prfl_jax.studies.fedmp.setting import (
    BASE_VALUES,
    OF_PRUNING,
    OUTSIDE,
    SYN_FL,
    Setting,
    bases,
    method_name,
    settings_of,
    swept,
)
from prfl_jax.studies.reports import Report, final_value, lasting, reached
from prfl_jax.studies.runs import missing
from prfl_jax.studies.study import Material
from prfl_jax.studies.tables import caption, seeds_text, spread, write_table

Cells = Callable[[Sequence[Report], Sequence[Report]], list[str]]

# The paper's "FedMP is so many times as fast", by what a figure varies: (network, value) -> method -> factor
_BY_SWEEP: dict[str, Mapping[tuple[str, Any], Mapping[str, float]]] = {
    "scenario": paper.SCENARIO_SPEEDUPS,
    "noniid": paper.NONIID_SPEEDUPS,
    "workers": paper.WORKER_SPEEDUPS,
}


def printed_speedups(setting: Setting, sweep: str) -> Mapping[str, float]:
    """How many times as long as FedMP each method takes to the target, as the paper prints it.

    Args:
      sweep: what the table varies; "" for a table of base settings.
    """
    if sweep:
        value = BASE_VALUES.get(sweep) if setting.is_base else setting.value
        return _BY_SWEEP.get(sweep, {}).get((setting.network, value), {})
    if setting.language:
        own = paper.TABLE4["fedmp"][2]
        return {method: own / row[2] for method, row in paper.TABLE4.items() if method != "fedmp"}
    return paper.SPEEDUPS.get(setting.network, {})


def round_s(report: Report) -> float | None:
    """Mean simulated s of a round."""
    return report["simulated_s"] / report["windows"] if report["windows"] else None


def paired(own: Sequence[Report], others: Sequence[Report], of: Any, combine: Any) -> list[Any]:
    """`combine(own value, other value)` seed by seed, where both have one.

    Args:
      of: the value of a report; None where it has none.
    """
    theirs = {report["seed"]: of(report) for report in others}
    pairs = [(of(report), theirs.get(report["seed"])) for report in own]
    return [combine(a, b) for a, b in pairs if a is not None and b is not None]


def ratio(own: Sequence[Report], others: Sequence[Report], of: Any) -> list[float]:
    """Others' value : own value, seed by seed."""
    return [value for value in paired(own, others, of, lambda a, b: b / a if a else None) if value is not None]


def syn_fl(material: Material, setting: Setting) -> Sequence[Report]:
    """Runs of Syn-FL beside a setting's: its own, or those of the base setting where pruning alone differs."""
    like = [setting] if setting.sweep not in OF_PRUNING else bases(material.preset.columns)
    return [r for one in like if one.network == setting.network for r in material.reports.get((one.key, SYN_FL), ())]


BUDGET_HEADER = ("setting", "budget, s", "method", "seeds", "ours", "less Syn-FL's", "paper", "paper, less Syn-FL's")
ROUND_HEADER = ("s a round", "Syn-FL's round : its")


def budget_rows(material: Material) -> list[list[str]]:
    """What each method has at the end of the time budget, which is where Syn-FL's run ends; and its mean round."""
    rows = []
    for setting in settings_of(material.preset.columns):
        base = syn_fl(material, setting)
        printed = _printed_values(setting)
        for method in setting.methods:
            found = material.reports.get((setting.key, method), ())
            if not found:
                continue
            metric = Headline.shared(found)
            values = metric.drawn([v for r in found if (v := final_value(r)) is not None])
            apart = metric.drawn(paired(found, base, final_value, lambda a, b: a - b)) if method != SYN_FL else []
            theirs, syn = printed.get(method), printed.get(SYN_FL)
            rows.append(
                [
                    setting.title,
                    budget_text(setting),
                    method_name(method),
                    seeds_text(found),
                    spread(values, ".2f", len(found)),
                    spread(apart, "+.2f", len(found)) if apart else "",
                    "-" if theirs is None else f"{theirs:.2f}",
                    "" if theirs is None or syn is None or method == SYN_FL else f"{theirs - syn:+.2f}",
                    *round_cells(found, base),
                ]
            )
    return rows


def round_cells(found: Sequence[Report], base: Sequence[Report]) -> list[str]:
    """`ROUND_HEADER` of a method's runs, beside those of Syn-FL."""
    own = [s for r in found if (s := round_s(r)) is not None]
    return [spread(own, ",.4g"), spread(ratio(found, base, round_s), ".2f")]


def _printed_values(setting: Setting) -> dict[str, float]:
    """Table III in percent, or Table IV's test perplexity, of a base setting."""
    if not setting.is_base:
        return {}
    if setting.language:
        return {method: row[1] for method, row in paper.TABLE4.items()}
    return {method: 100 * share for method, share in paper.TABLE3.get(setting.network, {}).items()}


def budget_text(setting: Column) -> str:
    """The horizon in s."""
    horizon_s = setting.config(SYN_FL, 0).horizon_s
    return "no limit" if horizon_s is None else f"{horizon_s:,.0f}"


SPEED_HEADER = (
    *("setting", "target", "method", "seeds", "first reached, s", "never worse from, s"),
    *("speed-up over Syn-FL", "FedMP's over it", "FedMP's over it, paper"),
)


def speed_rows(
    material: Material, sweep: str = "", target: float | None = None, ends: Cells = lambda found, base: []
) -> list[list[str]]:
    """Simulated s to each threshold, how many times as long Syn-FL takes, and how many times as long as FedMP it takes.

    Args:
      sweep: what the columns differ in, for the paper's numbers.
      target: the one threshold that is looked at; None: all of each setting.
      ends: makes further cells from a method's reports and Syn-FL's.
    """
    rows = []
    for setting in settings_of(material.preset.columns):
        printed = printed_speedups(setting, sweep)
        base, fedmp = syn_fl(material, setting), material.reports.get((setting.key, "fedmp"), ())
        for threshold in setting.thresholds if target is None else (target,):
            for method in setting.methods:
                found = material.reports.get((setting.key, method), ())
                if not found:
                    continue

                def time(report: Report, threshold: float = threshold) -> float | None:
                    return reached(report, threshold)

                first = [t for r in found if (t := time(r)) is not None]
                kept = [t for r in found if (t := lasting(r, threshold)) is not None]
                theirs = printed.get(method) if threshold == (target or setting.target) else None
                rows.append(
                    [
                        setting.title,
                        Headline.shared(found).level_text(threshold),
                        method_name(method),
                        seeds_text(found),
                        spread(first, ",.0f", len(found)),
                        spread(kept, ",.0f", len(found)),
                        "" if method == SYN_FL else spread(ratio(found, base, time), ".2f", len(found)),
                        "" if method == "fedmp" else spread(ratio(fedmp, found, time), ".2f", len(found)),
                        "" if method == "fedmp" else "-" if theirs is None else f"{theirs:.2f}",
                        *ends(found, base),
                    ]
                )
    return rows


def notes(material: Material, *said: str) -> list[str]:
    """What stands below the tables, for the columns and methods of `material`."""
    ours = (
        "one learning rate and one horizon for all methods, chosen by Syn-FL's runs alone; partitions, first weights "
        "and each transfer's draws are the same for all methods; times and ratios are of simulated seconds"
    )
    lines = caption(material, [ours, *said], _setting) if material.reports else []
    return [*lines, *missing(material.preset.columns, material.reports, material.seeds, method_name)]


def _setting(column: Column) -> str:
    c = column.config(SYN_FL, 0)
    samples = "all" if c.data.test_limit is None else f"{c.data.test_limit:,}"
    return (
        f"{column.title}: learning rate {c.local.lr:g}, {c.local.steps} steps of {c.local.batch_size} samples, "
        f"{c.clients.number} workers; {samples} test samples every {c.eval_every_s:g} simulated s, to "
        f"{budget_text(column)} s. {column.why}"
    )


PAIRED = (
    "differences, speed-ups and ratios are seed by seed, where both methods have a value; a time is that of the first "
    "evaluation at the level, so two times that are less than one step of the evaluation grid apart do not differ"
)


def _write(
    part: Material, name: str, titles: tuple[str, str], at_budget: Sequence[str], to_target: Sequence[str]
) -> None:
    """Writes `name`, what methods have at the end of the budget, and `name`_speed, how fast they reach each level.

    Args:
      titles: of both.
      at_budget, to_target: what stands below each, besides the caption.
    """
    header = [*BUDGET_HEADER, *ROUND_HEADER]
    write_table(part.out / name, titles[0], header, budget_rows(part), notes(part, *at_budget))
    write_table(part.out / f"{name}_speed", titles[1], SPEED_HEADER, speed_rows(part), notes(part, *to_target))


def table3(material: Material) -> None:
    """Table III, accuracy in the time budget, and `table3_speed`, how fast the target is reached."""
    own = [setting for setting in bases(material.preset.columns) if not setting.language]
    part = material.of(own, paper.MAIN)
    budgets = ", ".join(f"{network} {s:,.0f} s" for network, s in paper.BUDGETS_S.items())
    said = f"accuracies in %; the budget is where Syn-FL's run ends; the paper's are {budgets}"
    titles = "Table III: test accuracy in a time budget", "Times to the target accuracy (section V-C)"
    _write(part, "table3", titles, [said, PAIRED], [PAIRED])


def table4(material: Material) -> None:
    """Table IV, perplexity in the time budget, and `table4_speed`, how fast the target is reached."""
    part = material.of([setting for setting in bases(material.preset.columns) if setting.language], paper.LANGUAGE)
    printed = ", ".join(f"{method_name(method)} {row[0]:g}" for method, row in paper.TABLE4.items())
    said = (
        f"test perplexity; the paper's validation perplexities are {printed}, ours has no validation set; the paper's "
        f"target is {paper.PERPLEXITY_TARGET:g}"
    )
    titles = "Table IV: perplexity in a time budget", "Times to the target perplexity (Table IV)"
    _write(part, "table4", titles, [said, PAIRED], [PAIRED])


def mixtures(material: Material) -> None:
    """The rows that are in no table of the paper, beside Syn-FL and FedMP."""
    own = [setting for setting in settings_of(material.preset.columns) if set(OUTSIDE) & set(setting.methods)]
    part = material.of(own, (SYN_FL, "fedmp", *OUTSIDE))
    title = "Rows beside the paper's"
    _write(
        part,
        "mixtures",
        (f"{title}: at the end of the time budget", f"{title}: times to the target"),
        [PAIRED],
        [PAIRED],
    )


def floor(material: Material) -> None:
    """FedMP and its BSP with a higher least density, beside the base setting; not in the paper."""
    own = [setting for found in swept(material.preset.columns, "floor").values() for _, setting in found]
    part = material.of(own, (SYN_FL, "fedmp", "fedmp_bsp"))
    least = f"a worker keeps at least {BASE_VALUES['floor']:g} of each layer in the base settings"
    title, said = "Another least density", [least, PAIRED]
    _write(part, "floor", (f"{title}: at the end of the time budget", f"{title}: times to the target"), said, said)


def ratios(material: Material) -> None:
    """How often the agents of each run's bandit chose which ratio for each worker, and the mean of the last rounds."""
    rows = []
    for setting in settings_of(material.preset.columns):
        for method in setting.methods:
            for report in material.reports.get((setting.key, method), ()):
                chosen = [(entry["client"], entry["ratios"]) for entry in report["clients"] if "ratios" in entry]
                clusters = setting.clusters(report["clients_total"])
                for client, own in chosen:
                    count = sum(own["tenths"])
                    mean = "-" if own["mean_last"] is None else f"{own['mean_last']:.2f}"
                    shares = [f"{100 * n / count:.0f}" if count else "-" for n in own["tenths"]]
                    names = [setting.title, method_name(method), str(report["seed"]), str(client), clusters[client]]
                    rows.append([*names, str(count), *shares, mean])
    edges = [f"{k / 10:g} to {(k + 1) / 10:g}, %" for k in range(10)]
    header = ["setting", "method", "seed", "worker", "cluster", "rounds", *edges, "mean of the last, at most 100"]
    said = [material.preset.mark] if material.preset.mark else []
    said.append(
        "how often, of its rounds, an agent chose a pruning ratio in each tenth (from the left end to below the right "
        "one); a worker's first round, which is at ratio 0, is not among them unless it joins late"
    )
    write_table(material.out / "ratios", "Pruning ratios that the agents chose", header, rows, said)
