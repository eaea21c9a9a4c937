"""What scripts/train.py does: a run, the strategies it is compared with, the summary."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from prfl_jax import strategies
from prfl_jax.validate import config_hash, validate


def train(config: Any, config_path: str, workdir: str | None, *, dry_run: bool = False) -> int:
    """Runs (or goes on with) an experiment and its comparisons; returns the exit code.

    Args:
      config: validated.
      config_path: where it came from; names the default folder.
      workdir: folder of the run, or None.

    Returns:
      0; 1 where a loss was not finite; 128 + the signal's number after SIGTERM or Ctrl-C.
    """
    if config.engine.deterministic:
        # must be there before JAX starts
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
    if dry_run:
        from prfl_jax.dry_run import describe

        print(describe(config))
        return 0
    from prfl_jax.experiment import Experiment
    from prfl_jax.interrupt import Interrupted, InterruptGuard
    from prfl_jax.loop import ENDLESS
    from prfl_jax.report import run_figure, summary_text, write_report

    folder = Path(workdir or f"runs/{Path(config_path).stem}-{config.seed}-{config_hash(config)}")
    with InterruptGuard() as guard:
        try:
            done = Experiment(config).run(folder, guard=guard)
            others: dict[str, dict[str, Any]] = {}
            for name in config.compare:
                if name != config.strategy and done.report["ended"]["how"] != "not_finite":
                    other = strategies.for_comparison(config, name)
                    other.horizon_s, other.rounds = float(done.report["simulated_s"]), ENDLESS
                    validate(other)
                    print(f"comparing with {name} to the same simulated second", file=sys.stderr)
                    others[name] = Experiment(other).run(folder / "compare" / name, guard=guard).report
        except Interrupted as signal:
            again = shlex.join([sys.executable, *sys.argv])
            if workdir is None:
                again += f" --workdir={shlex.quote(str(folder))}"
            print(f"\n{signal}: saved in {folder}; to go on: {again}", file=sys.stderr)
            return 128 + signal.signum
    report = done.report
    if others:
        from prfl_jax.report.compare import beside

        own = report["curves"][report["final"]["model"]]
        report = {**report, "compare": beside(own, others, points=300)}
        write_report(folder / "report.json", report)
        run_figure([report, *others.values()], folder / "figure.png")
    print(summary_text(report, others or None))
    print(f"\nreport.json, metrics.jsonl, figure.png, final_model.npz: {folder}")
    return 1 if report["ended"]["how"] == "not_finite" else 0
