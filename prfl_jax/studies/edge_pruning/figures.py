"""The edge pruning paper's figures of runs: accuracy, size and time over rounds, stability, and drawn users."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes

from prfl_jax.report.metric import Headline
from prfl_jax.report.series import value_at
from prfl_jax.studies.curves import COLOURS, band, grid, panel, ready, save
from prfl_jax.studies.edge_pruning import paper
from prfl_jax.studies.edge_pruning.devices import whole_kib
from prfl_jax.studies.edge_pruning.setting import (
    METHODS,
    SAMPLED_METHODS,
    VANILLA,
    Setting,
    method_name,
    sampled,
    settings_of,
)
from prfl_jax.studies.edge_pruning.tables import NONE, OURS, PAPER, notes
from prfl_jax.studies.reports import Report, final_value
from prfl_jax.studies.study import Material
from prfl_jax.studies.tables import seeds_text, spread, write_table

Series = tuple[Sequence[float], Sequence[float]]  # rounds and a value after each
APART = 50  # rounds between two values that tell how steady a curve is
LEVELS = (0.70, 0.80)  # sparsities at which Complement Sparsification's accuracy is printed


def shown(material: Material, methods: Sequence[str] = METHODS, where: Sequence[Setting] = ()) -> list[Setting]:
    """The settings of `where`, by default those in which all take part, that have a run of one of these methods."""
    own = where or [setting for setting in settings_of(material.preset.columns) if not setting.sampled]
    return [setting for setting in own if any((setting.key, method) in material.reports for method in methods)]


def lines(material: Material, setting: Setting, methods: Sequence[str] = METHODS) -> list[tuple[str, Sequence[Report]]]:
    """Label and reports of each method; a colour belongs to a place."""
    return [(method_name(method), material.reports.get((setting.key, method), ())) for method in methods]


def fig8(material: Material) -> None:
    """Accuracy over rounds, and beside it over simulated time, of all methods."""
    settings = shown(material)
    if not settings:
        return
    figure, panels = grid(2 * len(settings), 5.6, 3.9)
    for setting, by_round, by_time in zip(settings, panels[::2], panels[1::2], strict=True):
        panel(by_round, lines(material, setting), setting.thresholds, setting.title, along="window")
        panel(by_time, lines(material, setting), setting.thresholds, setting.title)
    save(figure, material.out / "fig8", material.preset.mark)


def fig9(material: Material) -> None:
    """Size of the server's model over rounds: the whole Conv2's at its retention."""
    _over_rounds(material, "fig9", _size, "size of the whole Conv2 (KiB)")


def fig10(material: Material) -> None:
    """Simulated time over rounds."""
    _over_rounds(material, "fig10", _time, "simulated time (s)")


def _over_rounds(material: Material, name: str, of: Callable[[Report], Series], words: str) -> None:
    settings = shown(material)
    if not settings:
        return
    figure, panels = grid(len(settings), 5.6, 3.9)
    for ax, setting in zip(panels, settings, strict=True):
        _draw(ax, lines(material, setting), of, setting.title, words)
    save(figure, material.out / name, material.preset.mark)


def _draw(
    ax: Axes, own: Sequence[tuple[str, Sequence[Report]]], of: Callable[[Report], Series], title: str, words: str
) -> None:
    ready(ax, title, "window")
    ax.set_ylabel(words)
    for (label, found), colour in zip(own, COLOURS, strict=False):
        if found:
            band(ax, [of(report) for report in found], label, colour)
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8)


def retentions(report: Report) -> Series:
    """Rounds, and the share of the values that the server's mask holds after each; 1 where nothing is pruned."""
    masks = report.get("masks")
    windows, server = ([], []) if masks is None else (masks["curve"]["window"], masks["curve"]["server"])
    return [0, *windows, report["windows"]], [1.0, *server, *(server[-1:] or [1.0])]


def _size(report: Report) -> Series:
    rounds, shares = retentions(report)
    return rounds, [whole_kib(share) for share in shares]


def _density(report: Report) -> Series:
    rounds, shares = retentions(report)
    return rounds, [100 * share for share in shares]


def _time(report: Report) -> Series:
    curve = _curve(report)
    return curve["window"], curve["model_s"]  # when the evaluated model was made


def fig11(material: Material) -> None:
    """How steady accuracy is: the curves of the paper's Fig. 11, and a table of all methods."""
    settings = shown(material)
    if not settings:
        return
    steady = [method for method in METHODS if method in paper.STABILITY]
    drawn = shown(material, steady)
    if drawn:
        figure, panels = grid(len(drawn), 5.6, 3.9)
        for ax, setting in zip(panels, drawn, strict=True):
            panel(ax, lines(material, setting, steady), setting.thresholds, setting.title, along="window")
        save(figure, material.out / "fig11", material.preset.mark)
    rows = []
    for setting in settings:
        for method in setting.methods:
            if found := material.reports.get((setting.key, method), ()):
                changes = [own for report in found if (own := steps(report))]
                falls = [100 * max(0.0, *(-step for step in own)) for own in changes]
                mean = [100 * sum(map(abs, own)) / len(own) for own in changes]
                cells = [spread(falls, ".2f", len(found)), spread(mean, ".2f", len(found))]
                rows.append([setting.title, method_name(method), seeds_text(found), *cells])
    header = ["setting", "method", "seeds", "largest fall, points", "mean change either way, points"]
    said = f"in the second half of the rounds, from each {APART}th round to the next; the paper gives no numbers"
    title = "Fig. 11: how steady the accuracy is"
    write_table(material.out / "fig11", title, header, rows, notes(material.of(settings, METHODS), said))


def steps(report: Report) -> list[float]:
    """Changes of the accuracy in the second half of a run, from each `APART`th round to the next."""
    curve, rounds = _curve(report), report["windows"]
    at = range(-(-rounds // 2 // APART) * APART, rounds + 1, APART)
    values = [value_at(curve["window"], curve[Headline.of(report).name], place) for place in at]
    return [b - a for a, b in zip(values, values[1:], strict=False) if a is not None and b is not None]


def fig12(material: Material) -> None:
    """Accuracy over rounds with ten users drawn a round, and `fig12`, a table beside Complement Sparsification's."""
    settings = shown(material, SAMPLED_METHODS, sampled(material.preset.columns))
    if not settings:
        return
    figure, panels = grid(len(settings), 5.6, 3.9)
    rows = []
    for ax, setting in zip(panels, settings, strict=True):
        panel(ax, lines(material, setting, SAMPLED_METHODS), (), setting.title, along="window")
        for method in SAMPLED_METHODS:
            if found := material.reports.get((setting.key, method), ()):
                rows.append([setting.title, method_name(method), OURS, seeds_text(found), *_sampled_cells(found)])
    save(figure, material.out / "fig12", material.preset.mark)
    at_500, in_the_end = (f"{100 * share:.1f}" for share in paper.SAMPLED_SPARSITY)
    best, first, second = (f"{100 * share:.1f}" for share in paper.CS_ACCURACY.values())
    for method, share in paper.SAMPLED_ACCURACY.items():
        sparsity = ["0.0", "0.0"] if method == VANILLA else [at_500, f"nearly {in_the_end}"]
        rows.append(["FEMNIST", method_name(method), PAPER, "", f"{100 * share:.1f}", NONE, NONE, NONE, *sparsity])
    rows.append(["FEMNIST", "CS", PAPER, "", best, f"about {first}", f"below {second}", NONE, NONE, NONE])
    rows.append(["FEMNIST", "CS's network, no pruning", PAPER, "", f"{100 * paper.CS_VANILLA:.1f}", *[NONE] * 5])
    header = ["setting", "method", "whose", "seeds", f"best accuracy in {paper.CHECKPOINT} rounds, %"]
    header += [f"at a sparsity of {100 * level:g} % and more" for level in LEVELS]
    header += ["accuracy in the end, %", f"sparsity after {paper.CHECKPOINT} rounds, %", "in the end, %"]
    said = (
        f"sparsity is what the server's mask does not hold; accuracies at a sparsity are the best of the first "
        f"{paper.CHECKPOINT} rounds with it; CS: Complement Sparsification, on another network"
    )
    title = "Figs. 12 and 13: ten users drawn a round"
    write_table(material.out / "fig12", title, header, rows, notes(material.of(settings, SAMPLED_METHODS), said))


def _sampled_cells(found: Sequence[Report]) -> list[str]:
    seeds = len(found)

    def cell(values: Sequence[float | None], form: str = ".1f") -> str:
        return spread([100 * value for value in values if value is not None], form, seeds)

    late = [1 - value_at(*retentions(r), paper.CHECKPOINT) for r in found if r["windows"] >= paper.CHECKPOINT]
    return [
        *(cell([best_at(report, level) for report in found]) for level in (0.0, *LEVELS)),
        cell([final_value(report) for report in found]),
        cell(late),
        cell([1 - retentions(report)[1][-1] for report in found]),
    ]


def best_at(report: Report, sparsity: float) -> float | None:
    """The best accuracy of the first rounds (`paper.CHECKPOINT`) at this sparsity and more; None: never so sparse."""
    curve, kept = _curve(report), retentions(report)
    points = zip(curve["window"], curve[Headline.of(report).name], strict=True)
    values = [
        value
        for window, value in points
        if value is not None and window <= paper.CHECKPOINT and 1 - value_at(*kept, window) >= sparsity
    ]
    return max(values, default=None)


def fig13(material: Material) -> None:
    """Density of the server's model over rounds, with ten users drawn a round."""
    settings = shown(material, SAMPLED_METHODS, sampled(material.preset.columns))
    if not settings:
        return
    figure, panels = grid(len(settings), 5.6, 3.9)
    for ax, setting in zip(panels, settings, strict=True):
        _draw(ax, lines(material, setting, SAMPLED_METHODS), _density, setting.title, "density (%)")
        ax.axhline(100 * (1 - paper.STOP_SPARSITY), color="0.5", lw=0.8, ls=":")
    save(figure, material.out / "fig13", material.preset.mark)


def _curve(report: Report) -> Any:
    return report["curves"][report["final"]["model"]]
