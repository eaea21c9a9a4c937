"""An experiment from Python: build it from a config, run it, look at the result."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from prfl_jax.config.canonical import config_hash, to_dict
from prfl_jax.config.validate import validate
from prfl_jax.models import save_model
from prfl_jax.report import build_report, read_metrics, run_figure, write_report
from prfl_jax.report.names import model_files
from prfl_jax.robustness.privacy import privacy_report
from prfl_jax.runtime.loop import Loop, Watch
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.runtime.workdir import Scratch, Workdir, open_workdir
from prfl_jax.system import environment, multi_process
from prfl_jax.system.jax_settings import fixed, settings
from prfl_jax.system.signals import InterruptGuard


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
      report: what `report.json` holds.
      params: the headline's last server model, NumPy arrays: the one that `report["final"]["accuracy"]` is of, and
        that `final_model.npz` holds; with its fixed variables, if it has any, under `@fixed`.
      workdir: its folder; of a run in a bucket an `etils.epath.Path`.
      models: both last server models by their names in a report, `mask` and `fedavg`.
    """

    report: dict[str, Any]
    params: Any
    workdir: Path
    models: dict[str, Any]

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws accuracy over simulated time, and the clients' densities under it, as PNG."""
        run_figure(self.report, path)


class Experiment:
    """A config, ready to run.

    Args:
      config: from `load_config` or `default_config`.
      simulation: its parts, where they are made already.

    Attributes:
      memory: one line about what a run keeps in memory.

    Raises:
      UserError: the config is not possible, its data cannot be had, or the run would not fit into memory.
    """

    @fixed()
    def __init__(self, config: Any, simulation: Simulation | None = None) -> None:
        validate(config)
        multi_process.check_settings(settings())
        self.config = config
        self.simulation = simulation or Simulation(config)
        self.memory = self.simulation.memory()

    @fixed()
    def run(
        self,
        workdir: str | os.PathLike[str] | Workdir | Scratch,
        *,
        guard: InterruptGuard | None = None,
        progress: bool = True,
        watch: Watch = None,
    ) -> Finished:
        """Runs to the end, going on from the newest checkpoint in `workdir`.

        Writes `config.json`, `metrics.jsonl`, `report.json`, `figure.png`,
        `final_model.npz`, the other server model where there are two, and `checkpoints/`.

        Args:
          workdir: a folder, an address in a bucket as text, or one that is already locked.
          guard: asked between pieces of work whether a signal has come; without one, Ctrl-C
            is Python's KeyboardInterrupt and the last checkpoint counts.
          progress: show a bar on stderr.
          watch: called with each window's, evaluation's and interval's record (`metrics.jsonl`); what it raises ends
            the run there, without a report.

        Raises:
          UserError: `workdir` belongs to another config or another process.
          Interrupted: `guard` heard of a signal; what was done is saved.
        """
        if isinstance(workdir, str | os.PathLike):
            with open_workdir(workdir, to_dict(self.config), config_hash(self.config)) as folder:
                return self.run(folder, guard=guard, progress=progress, watch=watch)
        path = workdir.path
        loop = Loop(self.simulation, workdir, guard or InterruptGuard(), progress, watch)
        loop.run()
        headline, models = self.config.eval.model, loop.scorer.models(loop.state, loop.at.weights)
        files = model_files(headline, loop.scorer.one_model)

        def written() -> dict[str, Any]:
            for name, file in files.items():
                if name == headline or file != files[headline]:
                    save_model(str(path / file), models[name])
            report = self._report(path, loop, files)
            write_report(path / "report.json", report)
            run_figure(report, path / "figure.png")
            workdir.put()
            return report

        nothing: dict[str, Any] = {}
        report = multi_process.broadcast(multi_process.on_process_zero(written, nothing))
        return Finished(report, models[headline], workdir.address, models)

    def _data_notes(self) -> dict[str, Any]:
        """Where the data came from, and what was left out or looks strange."""
        data = self.simulation.dataset
        return {"source": data.source, **({"notes": list(data.notes)} if data.notes else {})}

    def _report(self, folder: Path, loop: Loop, files: dict[str, str]) -> dict[str, Any]:
        """`report.json`, from the run's records and what the host knows."""
        method, config, seconds = self.simulation.method, self.config, loop.time.seconds
        return build_report(
            config=to_dict(config),
            config_hash=config_hash(config),
            commit=environment.commit(),
            versions=environment.versions(),
            device=environment.device(),
            flags={
                **environment.flags(),
                "clients_axis": method.clients_axis,
                "train": method.train,
                "matmul": method.matmul,
                "devices": self.simulation.placement.count,
            },
            seed=config.seed,
            split_summary={**self.simulation.split.summary, **self._data_notes()},
            model={
                "name": method.model.name,
                "parameters": method.size.total,
                "size_mb": method.size.total * method.size.bytes_per_value / 1e6,
                "files": files,
            },
            records=read_metrics(folder / "metrics.jsonl"),
            thresholds=tuple(config.eval.thresholds),
            headline=config.eval.model,
            host={
                "total_s": loop.at.total_s,
                **{f"{purpose}_s": spent for purpose, spent in seconds.items()},
            },
            peak_memory_mb=environment.peak_memory_mb(),
            clients=config.clients.number,
            attack=self.simulation.attack,
            privacy=lambda updates: privacy_report(config, updates),
        )
