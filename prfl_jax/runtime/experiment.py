"""`Experiment`: builds a simulation from a config, runs it in a folder, writes the report, figure and models."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from prfl_jax.config.canonical import config_hash, to_dict
from prfl_jax.config.validate import validate
from prfl_jax.models import save_model
from prfl_jax.report import RunInfo, build_report, read_metrics, run_figure, write_report
from prfl_jax.report.names import MASKS_FILE, model_files
from prfl_jax.robustness.privacy import privacy_report
from prfl_jax.runtime.active_run import ActiveRun, Watch
from prfl_jax.runtime.final_masks import final_masks
from prfl_jax.runtime.loop import Loop
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.runtime.workdir import Scratch, Workdir, open_workdir
from prfl_jax.submodel.saved_masks import save_masks
from prfl_jax.system import environment, multi_process
from prfl_jax.system.jax_settings import fixed, settings
from prfl_jax.system.signals import InterruptGuard


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
      report: what `report.json` holds.
      params: the last server model that the headline (`eval.model`) names, NumPy arrays: `report["final"]["metric"]`
        is its result and `final_model.npz` its file. Fixed variables, if it has any, are under `@fixed`.
      workdir: the run's folder; for a run in a bucket an `etils.epath.Path`.
      models: both last server models by their names in a report, `mask` and `fedavg`.
    """

    report: dict[str, Any]
    params: Any
    workdir: Path
    models: dict[str, Any]

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws the headline metric over simulated time, and the clients' densities under it, as PNG."""
        run_figure(self.report, path)


class Experiment:
    """A config, ready to run.

    Args:
      config: from `load_config` or `default_config`.
      simulation: its parts, if they have been made already.

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
        """Runs to the end, resumed from the newest checkpoint in `workdir` if there is one.

        Writes `config.json`, `metrics.jsonl`, `report.json`, `figure.png`,
        `final_model.npz`, the other server model where there are two, `masks.npz` where the
        server's mask is chosen during the run, and `checkpoints/`.

        Args:
          workdir: a folder, an address in a bucket as text, or one that is already locked.
          guard: asked between pieces of work whether a signal has come; without one, Ctrl-C
            is Python's KeyboardInterrupt and the last checkpoint counts.
          progress: show a bar on stderr.
          watch: called with the record (`metrics.jsonl`) of each window, evaluation and interval; an exception that it
            raises ends the run there, without a report.

        Raises:
          UserError: `workdir` belongs to another config or another process.
          Interrupted: `guard` received a signal; a checkpoint was saved.
        """
        if isinstance(workdir, str | os.PathLike):
            with open_workdir(workdir, to_dict(self.config), config_hash(self.config)) as folder:
                return self.run(folder, guard=guard, progress=progress, watch=watch)
        path = workdir.path
        loop = Loop(self.simulation, workdir, guard or InterruptGuard(), progress, watch)
        loop.run()
        run, headline = loop.active, self.config.eval.model
        models = run.scorer.models(run.state, run.at.weights)
        files, masks = model_files(headline, run.scorer.one_model), final_masks(self.simulation, run.state)

        def written() -> dict[str, Any]:
            for name, file in files.items():
                if name == headline or file != files[headline]:
                    save_model(str(path / file), models[name])
            if masks is not None:
                save_masks(path / MASKS_FILE, masks)
            report = self._report(path, run, files)
            write_report(path / "report.json", report)
            run_figure(report, path / "figure.png")
            workdir.put()
            return report

        nothing: dict[str, Any] = {}
        report = multi_process.broadcast(multi_process.on_process_zero(written, nothing))
        return Finished(report, models[headline], workdir.address, models)

    def _data_notes(self) -> dict[str, Any]:
        """The data's source, and notes on what was left out of it or looks like a mistake."""
        data = self.simulation.dataset
        return {"source": data.source, **({"notes": list(data.notes)} if data.notes else {})}

    def _report(self, folder: Path, run: ActiveRun, files: dict[str, str]) -> dict[str, Any]:
        """`report.json`, from the run's records and what the host knows."""
        method, config = self.simulation.method, self.config
        info = RunInfo(
            config=to_dict(config),
            config_hash=config_hash(config),
            commit=environment.commit(),
            versions=environment.versions(),
            device=environment.device(),
            flags={
                **environment.flags(),
                "clients_axis": method.clients_axis,
                "train": method.train,
                "widths": list(method.shares),
                "matmul": method.matmul,
                "devices": self.simulation.placement.count,
            },
            split_summary={**self.simulation.split.summary, **self._data_notes()},
            model={
                "name": method.model.name,
                "parameters": method.model.num_parameters(),
                "size_mb": method.size.total * method.size.bytes_per_value / 1e6,
                "files": files,
            },
            host={
                "total_s": run.at.total_s,
                **{f"{purpose}_s": spent for purpose, spent in run.time.seconds.items()},
            },
            peak_memory_mb=environment.peak_memory_mb(),
            attack=self.simulation.attack,
            metric=method.task.metric,
        )
        records = read_metrics(folder / "metrics.jsonl")
        return build_report(info, records, privacy=lambda updates: privacy_report(config, updates))
