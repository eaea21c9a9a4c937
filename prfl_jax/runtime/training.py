"""Trains what `scripts/train.py` asks for: a run, the strategies it is compared with, the printed summary."""

from __future__ import annotations

import copy
import dataclasses
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prfl_jax.config.canonical import assign, config_hash, to_dict
from prfl_jax.config.cli import parse_value
from prfl_jax.config.comparison import compared, not_taken_over
from prfl_jax.config.defaults import ENDLESS
from prfl_jax.config.validate import validate
from prfl_jax.runtime.workdir import check_place, open_workdir
from prfl_jax.startup import before_jax, deterministic_operations
from prfl_jax.submodel import find_submodel
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import refuse_address, user_path

MOST_TOGETHER = 1000  # experiments in one process


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """Several processes of one run: HOST:PORT of the first, how many there are, which this is."""

    coordinator: str
    count: int
    index: int

    def check(self) -> None:
        """Raises UserError for a value that is not allowed."""
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise UserError(f"--coordinator={self.coordinator}: allowed is HOST:PORT")
        if self.count < 2:
            raise UserError(f"--processes={self.count}: allowed with --coordinator is a whole number of at least 2")
        if not 0 <= self.index < self.count:
            raise UserError(f"--process={self.index}: allowed with --processes={self.count} is 0 to {self.count - 1}")


@dataclasses.dataclass(frozen=True)
class Variants:
    """Several experiments in one process: `seeds` from the config's own on, times the values of `KEY=VALUE,...`."""

    seeds: int = 1
    vary: str | None = None

    def of(self, config: Any) -> dict[str, Any]:
        """The validated configs, by the name of their folder; none where there is nothing to vary.

        Raises:
          UserError: a number, key or value that is not allowed.
        """
        if self.seeds < 1:
            raise UserError(f"--seeds={self.seeds}: allowed is a whole number of at least 1")
        if self.seeds == 1 and self.vary is None:
            return {}
        if self.seeds > MOST_TOGETHER:
            raise UserError(f"--seeds={self.seeds}: allowed are at most {MOST_TOGETHER:,} experiments in one process")
        changed = {"": config}
        if self.vary is not None:
            key, found, values = self.vary.partition("=")
            if not found or not values or key in ("seed", "strategy", "compare"):
                raise UserError(
                    f"--vary={self.vary}: allowed is KEY=VALUE,VALUE,..., KEY being none of seed, strategy, compare"
                )
            read = [parse_value(key, value) for value in values.split(",")]
            if any(value in read[:k] for k, value in enumerate(read)):
                raise UserError(f"--vary={self.vary}: allowed are values that differ")
            if self.seeds * len(read) > MOST_TOGETHER:
                raise UserError(
                    f"--vary has {len(read)} values, --seeds={self.seeds}: allowed are at most {MOST_TOGETHER:,} "
                    "experiments in one process"
                )
            changed = {}
            for value in values.split(","):
                other = copy.deepcopy(config)
                assign(other, key, parse_value(key, value))
                changed[f"{key}={value}_".replace("/", "_")] = other
        out = {}
        for name, base in changed.items():
            for seed in range(config.seed, config.seed + self.seeds):
                one = copy.deepcopy(base)
                one.seed = seed
                validate(one)
                out[f"{name}seed{seed}"] = one
        return out


def train(
    config: Any,
    config_path: str,
    workdir: str | None,
    *,
    dry_run: bool = False,
    together: ProcessGroup | None = None,
    variants: Variants | None = None,
    tensorboard: bool = False,
) -> int:
    """Runs (or resumes) an experiment and its comparisons; returns the exit code.

    Args:
      config: validated.
      config_path: where it came from; names the default folder.
      workdir: folder of the run, or None.
      together: where several processes make this run; the first one reads and writes.
      variants: several experiments at once, each in a folder of its own within the run's.
      tensorboard: write event files too.

    Returns:
      0; 1 where a loss was not finite. After SIGTERM or Ctrl-C the process ends here, with 128 + the signal's number.
    """
    several = (variants or Variants()).of(config)
    if several and together is not None:
        raise UserError("--seeds, --vary: allowed in one process, without --coordinator")
    before_jax(together.count if together is not None else 1)
    if config.engine.deterministic:
        deterministic_operations(os.environ)
    folder = workdir or f"runs/{Path(config_path).stem}-{config.seed}-{config_hash(config)}"
    check_place(folder)
    if dry_run:
        from prfl_jax.runtime.dry_run import print_needs

        print_needs(next(iter(several.values()), config))
        _say_not_taken_over(several or {"": config})
        if several:
            print(f"This is one of {len(several)} experiments, which together need as much as many times over.")
        return 0
    if together is not None:
        from prfl_jax.system import multi_process

        together.check()
        multi_process.start(together.coordinator, together.count, together.index)
    from prfl_jax.system.signals import Interrupted, InterruptGuard, leave

    again = shlex.join([sys.executable, *sys.argv])
    if workdir is None:
        again += f" --workdir={shlex.quote(folder)}"
    with InterruptGuard(again) as guard:
        try:
            if several:
                refuse_address("--seeds, --vary: --workdir", folder)
                return _train_several(several, user_path("--workdir", folder), guard, tensorboard)
            with guard.nothing_to_save():
                from prfl_jax.engine.method import check_compared
                from prfl_jax.runtime.experiment import Experiment

                experiment = Experiment(config)  # before the folder: a mistake found here leaves nothing behind
                check_compared(config, experiment.simulation.method.model)
            with open_workdir(folder, to_dict(config), config_hash(config)) as locked:
                return _train(experiment, locked, guard, tensorboard)
        except Interrupted as signal:
            print(f"\n{signal}: saved in {folder}; to resume: {again}", file=sys.stderr)
            leave(128 + signal.signum)


def _watch(path: Path, config: Any, tensorboard: bool) -> Any:
    """The receiver of a run's records, in the lead process."""
    from prfl_jax.system import multi_process

    if not tensorboard or not multi_process.leads():
        return None
    from prfl_jax.report.tensorboard import TensorBoard

    return TensorBoard(path, config.eval_every_s)


def _say_not_taken_over(configs: Mapping[str, Any]) -> None:
    """Warns of choices of these runs that a compared strategy cannot have; prints each line once."""
    lines = dict.fromkeys(line for config in configs.values() for line in not_taken_over(config, validate))
    for line in lines:
        print(line, file=sys.stderr)


def _train(experiment: Any, folder: Any, guard: Any, tensorboard: bool) -> int:
    from prfl_jax.system import multi_process

    config, path = experiment.config, folder.path
    if multi_process.leads():
        print(experiment.memory, file=sys.stderr)
        _say_not_taken_over({"": config})
    report = experiment.run(folder, guard=guard, watch=_watch(path, config, tensorboard)).report
    others: dict[str, dict[str, Any]] = {}
    for name in _comparisons(config, report):
        if multi_process.leads():
            print(f"comparing with {name} to the same simulated second", file=sys.stderr)
        others[name] = _compare(config, report, name, folder.inside(f"compare/{name}"), guard, tensorboard)
    if multi_process.leads():
        from prfl_jax.report import summary_text
        from prfl_jax.report.names import MASKS_FILE

        report = _set_beside(config, report, others, path)
        folder.put()
        print(summary_text(report, others or None))
        masks = f", {MASKS_FILE}" if experiment.simulation.method.submodels.server_mask is not None else ""
        print(f"\nreport.json, metrics.jsonl, figure.png, final_model.npz{masks}: {folder.address}")
    return 1 if report["ended"]["how"] == "not_finite" else 0


def _train_several(configs: dict[str, Any], folder: Path, guard: Any, tensorboard: bool) -> int:
    """Runs all experiments in one batch, then the compared strategies; prints a line for each."""
    from prfl_jax.report.metric import Headline
    from prfl_jax.report.names import duration_text, headline_name
    from prfl_jax.runtime.batched_runs import run_batched

    def run(configs: dict[Path, Any]) -> dict[Path, dict[str, Any]]:
        watches = [_watch(path, config, tensorboard) for path, config in configs.items()]
        done = run_batched(list(configs.values()), list(configs), guard=guard, watches=watches)
        return dict(zip(configs, (finished.report for finished in done), strict=True))

    paths = {folder / name: config for name, config in configs.items()}
    _say_not_taken_over(configs)
    reports = run(paths)
    others: dict[Path, dict[str, Any]] = {path: {} for path in paths}
    for name in next(iter(paths.values())).compare:
        print(f"comparing with {name} to the same simulated second", file=sys.stderr)
        theirs = {
            path / "compare" / name: _comparison(config, reports[path], name)
            for path, config in paths.items()
            if name in _comparisons(config, reports[path])
        }
        for path, report in run(theirs).items() if theirs else ():
            others[path.parent.parent][name] = report
    width = max(map(len, configs))
    for path, report in reports.items():
        report = _set_beside(paths[path], report, others[path], path)
        metric, value = Headline.of(report), report["final"]["metric"]
        end = "not finite" if value is None else metric.text(value)
        times = ", ".join(
            f"{metric.level_text(level)} " + ("never" if t is None else f"after {duration_text(t)}")
            for level, t in report[metric.times].items()
        )
        print(f"{path.name:<{width}}  {end:>10}  {headline_name(report)}  {times}")
    print(f"\nreport.json, metrics.jsonl, figure.png, final_model.npz of each: {folder}/*/")
    return 1 if any(report["ended"]["how"] == "not_finite" for report in reports.values()) else 0


def _comparisons(config: Any, report: dict[str, Any]) -> list[str]:
    """The strategies that a finished run is compared with."""
    if not report["windows"] or report["ended"]["how"] == "not_finite":
        return []
    return [name for name in config.compare if name != config.strategy]


def _set_beside(config: Any, report: dict[str, Any], others: dict[str, dict[str, Any]], path: Path) -> dict[str, Any]:
    """The run's report and figure with those it was compared with."""
    from prfl_jax.report import run_figure, write_report
    from prfl_jax.report.compare import beside
    from prfl_jax.report.metric import Headline

    if others:
        own = report["curves"][report["final"]["model"]]
        entries = beside(Headline.of(report), own, others, points=300)
        for name, entry in entries.items():
            entry["lacks"] = list(compared(config, name, validate).lacks)
        report = {**report, "compare": entries}
        write_report(path / "report.json", report)
        run_figure([report, *others.values()], path / "figure.png")
    return report


def _comparison(config: Any, report: dict[str, Any], name: str) -> Any:
    """The config of another strategy on the same data and network, as long in simulated time."""
    other = compared(config, name, validate).config
    if report["ended"]["how"] != "horizon":  # else the horizon is the config's own
        other.horizon_s = float(report["simulated_s"])
    if find_submodel(other.submodel).counts_rounds and other.pruning.rounds is None:
        other.pruning.rounds = other.rounds
    other.rounds = ENDLESS
    validate(other)
    return other


def _compare(
    config: Any, report: dict[str, Any], name: str, place: str | Path, guard: Any, tensorboard: bool
) -> dict[str, Any]:
    from prfl_jax.runtime.experiment import Experiment

    other = _comparison(config, report, name)
    with guard.nothing_to_save():
        experiment = Experiment(other)
    with open_workdir(place, to_dict(other), config_hash(other)) as folder:
        return experiment.run(folder, guard=guard, watch=_watch(folder.path, other, tensorboard)).report
