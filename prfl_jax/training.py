"""What scripts/train.py does: a run, the strategies it is compared with, the summary."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from prfl_jax import strategies
from prfl_jax.config import ENDLESS
from prfl_jax.errors import UserError
from prfl_jax.startup import before_jax
from prfl_jax.validate import config_hash, to_dict, validate


@dataclasses.dataclass(frozen=True)
class Together:
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


def train(
    config: Any, config_path: str, workdir: str | None, *, dry_run: bool = False, together: Together | None = None
) -> int:
    """Runs (or goes on with) an experiment and its comparisons; returns the exit code.

    Args:
      config: validated.
      config_path: where it came from; names the default folder.
      workdir: folder of the run, or None.
      together: where several processes make this run; the first one reads and writes.

    Returns:
      0; 1 where a loss was not finite. After SIGTERM or Ctrl-C the process ends here, with 128 + the signal's number.
    """
    before_jax(together.count if together is not None else 1)
    if config.engine.deterministic:
        # must be there before JAX starts
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
    if dry_run:
        from prfl_jax.dry_run import describe

        print(describe(config))
        return 0
    if together is not None:
        from prfl_jax import processes

        together.check()
        processes.start(together.coordinator, together.count, together.index)
    from prfl_jax.interrupt import Interrupted, InterruptGuard, leave
    from prfl_jax.workdir import open_workdir

    folder = Path(workdir or f"runs/{Path(config_path).stem}-{config.seed}-{config_hash(config)}")
    again = shlex.join([sys.executable, *sys.argv])
    if workdir is None:
        again += f" --workdir={shlex.quote(str(folder))}"
    with InterruptGuard(again) as guard:
        try:
            with guard.nothing_to_save():
                from prfl_jax.experiment import Experiment

                experiment = Experiment(config)  # before the folder: a mistake found here leaves nothing behind
            with open_workdir(folder, to_dict(config), config_hash(config)) as locked:
                return _train(experiment, locked, guard)
        except Interrupted as signal:
            print(f"\n{signal}: saved in {folder}; to go on: {again}", file=sys.stderr)
            leave(128 + signal.signum)


def _train(experiment: Any, folder: Any, guard: Any) -> int:
    from prfl_jax import processes
    from prfl_jax.report import run_figure, summary_text, write_report
    from prfl_jax.report.compare import beside

    config, path = experiment.config, folder.path
    if processes.leads():
        print(experiment.memory, file=sys.stderr)
    report = experiment.run(folder, guard=guard).report
    others: dict[str, dict[str, Any]] = {}
    for name in config.compare:
        if name != config.strategy and report["windows"] and report["ended"]["how"] != "not_finite":
            if processes.leads():
                print(f"comparing with {name} to the same simulated second", file=sys.stderr)
            others[name] = _compare(config, report, name, path / "compare" / name, guard)
    if not processes.leads():
        return 1 if report["ended"]["how"] == "not_finite" else 0
    if others:
        own = report["curves"][report["final"]["model"]]
        report = {**report, "compare": beside(own, others, points=300)}
        write_report(path / "report.json", report)
        run_figure([report, *others.values()], path / "figure.png")
    print(summary_text(report, others or None))
    print(f"\nreport.json, metrics.jsonl, figure.png, final_model.npz: {path}")
    return 1 if report["ended"]["how"] == "not_finite" else 0


def _compare(config: Any, report: dict[str, Any], name: str, folder: Path, guard: Any) -> dict[str, Any]:
    """The report of another strategy on the same data and network, as long in simulated time."""
    from prfl_jax.experiment import Experiment

    other = strategies.for_comparison(config, name)
    if report["ended"]["how"] != "horizon":  # else the horizon is the config's own
        other.horizon_s = float(report["simulated_s"])
    other.rounds = ENDLESS
    validate(other)
    with guard.nothing_to_save():
        experiment = Experiment(other)
    return experiment.run(folder, guard=guard).report
