"""The edge pruning paper's Tables 2 and 3: initial pruning, and what each method ends with and how fast."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prfl_jax.report.metric import Headline
from prfl_jax.studies.columns import Column
from prfl_jax.studies.edge_pruning import paper
from prfl_jax.studies.edge_pruning.devices import whole_kib
from prfl_jax.studies.edge_pruning.setting import METHODS, VANILLA, Setting, method_name, settings_of
from prfl_jax.studies.reports import Report, final_value, reached
from prfl_jax.studies.runs import missing
from prfl_jax.studies.study import Material
from prfl_jax.studies.tables import caption, seeds_text, spread, write_table

SETTLED = 0.005  # of the accuracy: so near to its last level a run has converged
_LAST = 10  # the last level is the mean of one evaluation in so many, from the end
OURS, PAPER = "ours", "paper"
NONE = "-"


def retention(report: Report) -> float:
    """Share of the model's values that the server's mask holds at the end; 1 where there are no masks."""
    masks = report.get("masks")
    return 1.0 if masks is None else float(masks["retention"])


def initial_stage(report: Report) -> Mapping[str, Any] | None:
    """What initial pruning came to; None where there was none."""
    stage: Mapping[str, Any] | None = report.get("masks", {}).get("initial")
    return stage


def clients_retention(report: Report) -> float | None:
    """Mean over the clients' own masks; None where there are none."""
    if report.get("own_models") is None:
        return None  # a client's entry has the server's retention
    own = [entry["retention"] for entry in report["clients"] if "retention" in entry]
    return statistics.fmean(own) if own else None


def own_accuracy(report: Report) -> float | None:
    """Mean accuracy of the clients' own models on their own mixes of labels; None where clients have none."""
    own = report.get("own_models")
    return None if own is None else own["accuracy_mean"]


def converged_s(report: Report) -> float | None:
    """Simulated s of the first evaluation that is at most `SETTLED` below the mean of the last tenth of all."""
    curve = report["curves"][report["final"]["model"]]
    values = curve[Headline.of(report).name]
    last = [value for value in values[-max(1, len(values) // _LAST) :] if value is not None]
    if not last:
        return None
    level = statistics.fmean(last) - SETTLED
    found: float | None = next(t for t, v in zip(curve["t_s"], values, strict=True) if v is not None and v >= level)
    return found


@functools.cache
def _client_bytes(setting: Setting, method: str) -> float:
    """Bytes that each client keeps between rounds, from the shapes of the engine's state.

    Gradients that the rule gathers (`SubmodelRule.evidence`) are summed up at the server there. Clients of the method
    add them up themselves: a float32 for each value that they train.
    """
    import jax

    from prfl_jax.engine.memory import state_bytes
    from prfl_jax.engine.method import make_engine, place, resolve
    from prfl_jax.submodel import find_submodel
    from prfl_jax.system.jax_settings import fixed, root_key

    config = setting.config(method, 0)
    config.engine.devices = 1  # several have the same number of places each, some of them for nobody
    with fixed():
        resolved = resolve(config, (28, 28, 1), config.model.classes)
        engine = make_engine(config, resolved, place(config))
        kept = state_bytes(jax.eval_shape(lambda: engine.init_state(root_key(0)))).get("kept by clients", 0)
    gathers = find_submodel(config.submodel).evidence is not None
    gradients = 4 * (resolved.size.total - resolved.size.state) if gathers else 0
    return kept / float(config.clients.number) + gradients


def _shares(values: Sequence[float | None], seeds: int, form: str = ".1f") -> str:
    return spread([100 * value for value in values if value is not None], form, seeds)


def _own_shares(values: Sequence[float | None], form: str = ".1f") -> str:
    """As `_shares`, of what only some methods have."""
    return NONE if all(value is None for value in values) else _shares(values, len(values), form)


def _each(found: Sequence[Report], of: Callable[[Report], float | None], form: str = ",.0f") -> str:
    return spread([value for report in found if (value := of(report)) is not None], form, len(found))


def _shown(material: Material) -> list[Setting]:
    """The settings of Tables 2 and 3 and their variants."""
    return [setting for setting in settings_of(material.preset.columns) if not setting.sampled]


def table2(material: Material) -> None:
    """Table 2: rounds, retention and time of initial pruning, and what is retained in the end."""
    part = material.of(_shown(material), [method for method in METHODS if method != VANILLA])
    rows = []
    for setting in _shown(part):
        for method in setting.methods:
            found = [r for r in part.reports.get((setting.key, method), ()) if initial_stage(r) is not None]
            if not found:
                continue
            seeds = len(found)
            stages = [stage for report in found if (stage := initial_stage(report)) is not None]
            rows.append(
                [
                    *(setting.title, method_name(method), OURS, seeds_text(found)),
                    spread([stage["rounds"] for stage in stages], ".4g"),
                    _shares([stage["retention"] for stage in stages], seeds),
                    spread([stage["t_s"] for stage in stages], ",.1f"),
                    _shares([retention(report) for report in found], seeds),
                    _own_shares([clients_retention(report) for report in found]),
                ]
            )
            if setting.is_base and (row := paper.TABLE2.get(method)) is not None:
                rows.append([setting.title, method_name(method), PAPER, "", *_printed_initial(method, row)])
    header = ["setting", "method", "whose", "seeds", "initial rounds", "retained after them, %", "their time, s"]
    header += ["retained in the end, %", "clients' own masks, mean, %"]
    said = (
        "a round of the initial stage has pruning.initial_steps local steps of each client; in PruneFL and PruneFL's "
        "first stage it has 10 steps on the samples of client 0 alone: by writer those of a group of writers, where "
        "PruneFL's own takes one user; seconds are simulated",
        "clients' own masks: - where clients have none, but train under the server's",
    )
    write_table(part.out / "table2", "Table 2: initial pruning", header, rows, notes(part, *said))


def _printed_initial(method: str, row: paper.Initial) -> list[str]:
    other = paper.TABLE3.get(method)
    final = f"{100 * row.final:.1f}"
    if other is not None and other.retention != row.final:
        final += f" (Table 3: {100 * other.retention:.1f})"
    return [str(row.rounds), f"{100 * row.retention:.1f}", f"{row.time_s:,.1f}", final, NONE]


def table3(material: Material) -> None:
    """Table 3: accuracy, times to two levels and to convergence, retention, size and memory of all methods."""
    part = material.of(_shown(material), METHODS)
    rows = []
    for setting in _shown(part):
        for method in setting.methods:
            found = part.reports.get((setting.key, method), ())
            if found:
                rows.append([setting.title, method_name(method), OURS, *_performance(setting, method, found)])
            if found and setting.is_base and (row := paper.TABLE3.get(method)) is not None:
                rows.append([setting.title, method_name(method), PAPER, *_printed(method, row)])
    said = (
        "accuracy is of the server's model; own models: each client's own, on its own mix of labels, mean over clients",
        "levels in percent are " + "; ".join(_levels(setting) for setting in _shown(part) if setting.is_base),
        f"converged: the first evaluation less than {100 * SETTLED:g} points below the mean of the last tenth of all; "
        "the paper does not define its convergence time",
        "size as it is charged: kept values and the encoded mask of the network that is trained; beside it the whole "
        "Conv2 at that retention, by the paper's encoding (4 bytes a kept value, a bitmap of all weights)",
        "client memory: what a client keeps between rounds, of the network that is trained: its own weights, squared "
        "gradients and masks from the engine's shapes, and in PruneFL 4 bytes for each value that it trains, the "
        "gradients that it adds up (the simulator does so at the server); the paper's is that of a whole process",
    )
    title = "Table 3: methods of federated learning with pruning"
    write_table(part.out / "table3", title, TABLE3_HEADER, rows, notes(part, *said))


TABLE3_HEADER = (
    *("setting", "method", "whose", "seeds", "accuracy, %", "own models, %", "first level, s", "second level, s"),
    *("converged, s", "all rounds, s", "rounds", "retained, %", "clients' own masks, mean, %", "size, KiB"),
    *("whole Conv2, KiB", "client memory, MB"),
)


def _levels(setting: Setting) -> str:
    ours, theirs = (" and ".join(f"{100 * t:g}" for t in own) for own in (setting.thresholds, paper.THRESHOLDS))
    return ours if ours == theirs else f"{ours} (the paper's: {theirs})"


def _performance(setting: Setting, method: str, found: Sequence[Report]) -> list[str]:
    seeds = len(found)
    return [
        seeds_text(found),
        _shares([final_value(report) for report in found], seeds, ".2f"),
        _own_shares([own_accuracy(report) for report in found], ".2f"),
        *(_each(found, lambda report, level=level: reached(report, level)) for level in setting.thresholds),  # type: ignore[misc]
        _each(found, converged_s),
        _each(found, lambda report: report["simulated_s"]),
        _each(found, lambda report: report["windows"]),
        _shares([retention(report) for report in found], seeds),
        _own_shares([clients_retention(report) for report in found]),
        _each(found, size_kib),
        _each(found, lambda report: whole_kib(retention(report))),
        f"{_client_bytes(setting, method) / 1e6:.2f}",
    ]


def size_kib(report: Report) -> float:
    """KiB of the server's model at the end, as it is charged."""
    masks = report.get("masks")
    return float(report["model"]["size_mb"]) * 1e6 / 1024 if masks is None else float(masks["server_kib"])


def _printed(method: str, row: paper.Performance) -> list[str]:
    other = paper.TABLE2.get(method)
    kept = f"{100 * row.retention:.1f}"
    if other is not None and other.final != row.retention:
        kept += f" (Table 2: {100 * other.final:.1f})"
    return [
        *("", f"{100 * row.accuracy:.2f}", NONE, *(f"{t:,.0f}" for t in row.times_s), f"{row.converged_s:,.0f}"),
        *(f"{row.all_s:,.0f}", f"{paper.ROUNDS:,}", kept, NONE, f"{row.size_kib:,.0f}", f"{row.size_kib:,.0f}"),
        NONE if row.client_gb is None else f"{1000 * row.client_gb:,.0f}",
    ]


def notes(material: Material, *said: str) -> list[str]:
    """What stands below the tables, for the columns and methods of `material`."""
    ours = (
        "one learning rate and one number of rounds for all methods; partition and first weights are the same; seconds "
        "are simulated, with PruneFL's public constants of Conv2, and those of the paper are of its own machines",
        "the clock charges the whole Conv2 with the shares of each layer that masks hold, whatever width is trained; "
        "FedAvg's steps are charged as those of the dense network",
    )
    lines = caption(material, [*ours, *said], _setting) if material.reports else []
    return [*lines, *missing(material.preset.columns, material.reports, material.seeds, method_name)]


def _setting(column: Column) -> str:
    c: Any = column.config(column.methods[0], 0)
    taking = f"{c.window.cohort} of {c.clients.number}" if c.window.cohort else f"{c.clients.number}"
    samples = "all" if c.data.test_limit is None else f"{c.data.test_limit:,}"
    return (
        f"{column.title}: {taking} clients, learning rate {c.local.lr:g}, {c.local.steps} steps of "
        f"{c.local.batch_size} samples, {c.rounds:,} rounds, width {c.model.width:g}; {samples} test samples every "
        f"{c.eval_every_s:g} simulated s. {column.why}"
    )
