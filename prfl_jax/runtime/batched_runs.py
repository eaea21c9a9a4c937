"""Runs several experiments in one process as one more mapped axis, so that small models fill a large device.

The experiments differ in seed, or in settings that change no shape and nothing that is compiled (learning rates,
windows, networks, weights of the aggregation). Each has its own clock, evaluations, records and checkpoints, in a
thread of its own; only the chunks run together: a chunk waits until every experiment that is still running has planned
its own, and then one call trains all. Plans differ in length, so shorter ones are padded with rows and arrivals that do
nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.config.canonical import config_hash, to_dict
from prfl_jax.config.comparison import compared
from prfl_jax.config.validate import validate
from prfl_jax.data.device import DeviceData, on_device, to_device
from prfl_jax.data.rows import Rows
from prfl_jax.engine.chunk_program import state_shapes
from prfl_jax.engine.engine import Engine, EngineConfig
from prfl_jax.engine.memory import check_memory, sample_bytes
from prfl_jax.engine.method import check_compared, looks_at_all, slots, slots_key
from prfl_jax.engine.plan import MAX_ROWS, Plan, empty_row, stack_rows
from prfl_jax.engine.state import ChunkOutput, State
from prfl_jax.runtime.active_run import Watch
from prfl_jax.runtime.experiment import Experiment, Finished
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.runtime.workdir import open_workdir
from prfl_jax.submodel import find_submodel
from prfl_jax.system import accelerator, console, multi_process
from prfl_jax.system.errors import UserError, shown
from prfl_jax.system.jax_settings import fixed
from prfl_jax.system.signals import Interrupted, InterruptGuard

# Loops run to the bounds of the longest plan; rows beyond a plan's own are padding.
_BOUNDS = ("dispatch_count", "train_count", "arrive_count")
_BY_KEY = ("group", "cohort_of", "stays", "personal")  # compared by the keys that decide them, or not at all
_COMPILED = [field for field in dataclasses.fields(EngineConfig) if field.name not in _BY_KEY]
_PLAN_AXES = Plan(**{name: None if name in _BOUNDS else 0 for name in Plan._fields})


@fixed()
def run_batched(
    configs: Sequence[Any],
    workdirs: Sequence[str | Path],
    *,
    guard: InterruptGuard | None = None,
    progress: bool = True,
    watches: Sequence[Watch] | None = None,
) -> list[Finished]:
    """Runs experiments at once, each in its folder, as `Experiment.run` would one after another.

    Arrivals are identical to those of separate runs, models agree to rounding. A run that was begun alone can be
    resumed in a batch, and the other way round.

    Args:
      configs: validated; the same in everything that is compiled.
      workdirs: a folder for each.
      guard: as for `Experiment.run`; a signal ends all experiments, each with a checkpoint.
      progress: show the bar of the first one.
      watches: for each, as for `Experiment.run`.

    Raises:
      UserError: the configs cannot run together, or one of them cannot run; the others are saved at their last chunk.
      Interrupted: `guard` received a signal.
    """
    if not configs or len(configs) != len(workdirs):
        raise ValueError(f"{len(configs)} configs, {len(workdirs)} folders")
    guard = guard or InterruptGuard()
    simulations = join(configs)
    if progress:
        console.say(simulations[0].memory())
    experiments = [Experiment(one.config, one) for one in simulations]
    results: list[Finished | BaseException | None] = [None] * len(configs)
    with contextlib.ExitStack() as folders:
        # all folders are opened before any experiment begins, so that one in use is found at once
        opened: list[Any] = [
            folders.enter_context(open_workdir(path, to_dict(config), config_hash(config)))
            for path, config in zip(workdirs, configs, strict=True)
        ]

        @fixed()  # also while an experiment that ends lets the others run their chunk
        def work(number: int) -> None:
            try:
                show = progress and number == 0
                watch = watches[number] if watches else None
                results[number] = experiments[number].run(opened[number], guard=guard, progress=show, watch=watch)
            except BaseException as error:  # raised again below, in the thread that waits
                results[number] = error
                guard.stop()  # the other experiments write checkpoints
            finally:
                simulations[number].leave()

        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(configs))]
        try:
            for thread in threads:
                thread.start()
            _wait(threads)
        except BaseException:
            guard.stop()
            _wait([thread for thread in threads if thread.ident is not None])
            raise
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in sorted(errors, key=lambda error: isinstance(error, Interrupted)):  # the cause before what followed
        raise error
    return [result for result in results if isinstance(result, Finished)]


def _wait(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        while thread.is_alive():
            thread.join(0.1)  # so that signals are handled in between


@fixed()
def join(configs: Sequence[Any]) -> list[BatchedSimulation]:
    """Simulations whose chunks run together, in one `BatchedRuns`.

    Raises:
      UserError: as `run_batched`.
    """
    if not multi_process.alone():
        raise UserError("--seeds, --vary: allowed in one process, without --coordinator")
    prepared = []
    for config in configs:
        config = config.copy_and_resolve_references()
        if config.engine.devices > 1:
            raise UserError(f"config.engine.devices={config.engine.devices}: allowed with --seeds or --vary is 0 or 1")
        if config.engine.clients == "map":
            raise UserError("config.engine.clients='map': allowed with --seeds or --vary is auto or vmap")
        _refuse_server_masks(config, f"config.submodel.name={config.submodel.name!r}")
        for name in config.compare:  # which runs when these are done
            _refuse_server_masks(compared(config, name, validate).config, f"config.compare={name!r}")
        if config.engine.widths:
            raise UserError(
                f"config.engine.widths={shown(tuple(config.engine.widths))}: allowed with --seeds or --vary is ()"
            )
        if config.engine.models == "host":
            raise UserError("config.engine.models='host': allowed with --seeds or --vary is device")
        config.engine.devices = 1
        if accelerator.on_cpu() and not config.engine.group:
            config.engine.group = 1  # a core is filled by one arrival of each
        prepared.append(config)
    simulations: list[BatchedSimulation] = []
    for config in prepared:
        simulations.append(BatchedSimulation(config, simulations[0] if simulations else None))
    for simulation in simulations:
        simulation.experiments = len(simulations)
    simulations[0].memory()  # raises where it would not fit
    for simulation in simulations:
        check_compared(simulation.config, simulation.method.model)
    batch = BatchedRuns(simulations)
    for number, simulation in enumerate(simulations):
        simulation.batch, simulation.number = batch, number
    return simulations


def _refuse_server_masks(config: Any, named: str) -> None:
    if find_submodel(config.submodel).server_masks:
        raise UserError(
            f"{named}: allowed with --seeds or --vary is a rule whose masks follow from densities; give one "
            "--config.seed after another"
        )


class BatchedSimulation(Simulation):
    """A simulation whose chunks run together with those of others.

    Args:
      first: the simulation whose compiled programs this one shares; None for the first.

    Raises:
      UserError: as `Simulation`, or it differs from the first in what is compiled.
    """

    batch: BatchedRuns
    number: int  # in the batch
    experiments = 1  # in the batch
    _waited_s = 0.0

    def __init__(self, config: Any, first: BatchedSimulation | None) -> None:
        super().__init__(config, clients_axis="vmap")
        if first is not None:
            self._share_programs(first)

    def _share_programs(self, first: BatchedSimulation) -> None:
        def compiled(simulation: BatchedSimulation) -> dict[str, Any]:
            """What has to be the same, by the config keys that decide it."""
            engine, config = simulation.engine, simulation.config
            return {
                **{f"what is compiled of {field.name}": getattr(engine.config, field.name) for field in _COMPILED},
                "model": (config.model.name, config.model.width, config.model.loss, engine.layout.shapes),
                "submodel.name": config.submodel.name,
                "clients.number or window.cohort": (slots(config), engine.config.cohort_of),
                "model.state": config.model.state,
                "data.name": (simulation.dataset.sample, simulation.dataset.num_classes),
                "task.name": config.task.name,
            }

        mine, theirs = compiled(self), compiled(first)
        for keys, value in mine.items():
            if value != theirs[keys]:
                raise UserError(f"--vary: {keys} differs; allowed are settings that change nothing that is compiled")
        self.engine, self.evaluator = first.engine, first.evaluator
        self._init_state, self._scores = first._init_state, first._scores

    def device_data(self) -> Any:
        """None: the batch holds the data of all experiments."""
        return None

    def memory(self) -> str:
        """As `Simulation.memory`, of all experiments; what their chunk takes itself is not counted."""
        shapes = jax.eval_shape(self.engine.init_state, self.init_key)
        samples = sample_bytes(self.dataset, self.split, self.config.model.state)
        return check_memory(
            shapes, samples, self.placement, slots_key(self.config),
            experiments=self.experiments, looks_at_all=looks_at_all(self.config),
        )  # fmt: skip

    def waited_s(self) -> float:
        """s that the last chunk waited for the other experiments."""
        return self._waited_s

    def executable(self, initial: bool = False) -> Callable[..., tuple[State, ChunkOutput]]:
        """The chunk of all experiments, as a function of this one's state and plan."""
        self.batch.compile()

        def chunk(state: State, data: Any, plan: Plan, rows: np.int32, keys: Any) -> tuple[State, ChunkOutput]:
            asked = time.monotonic()
            result = self.batch.chunk(self.number, state, plan, int(rows))
            self._waited_s = max(0.0, self.batch.began - asked)
            return result

        return chunk

    def leave(self) -> None:
        """This experiment has ended."""
        self.batch.leave(self.number)


class BatchedRuns:
    """Runs the chunks of several simulations together.

    Args:
      simulations: the same in everything that is compiled.
    """

    def __init__(self, simulations: Sequence[BatchedSimulation]) -> None:
        self._engine: Engine = simulations[0].engine
        self._slots = slots(simulations[0].config)
        self._data, self._data_axes = _shared_data(simulations)
        self._keys = jax.tree.map(lambda *keys: jnp.stack(keys), *(one.keys for one in simulations))
        self._running = set(range(len(simulations)))
        self._asked: dict[int, tuple[State, Plan, int]] = {}
        self._answers: dict[int, tuple[State, ChunkOutput]] = {}
        self._idle: dict[int, State] = {}  # of experiments that have ended
        self._executable: Any = None
        self._failed: BaseException | None = None
        self._condition = threading.Condition()
        self.began = 0.0  # `time.monotonic` at the start of the last call of the device
        self._count = len(simulations)

    def compile(self) -> None:
        """Compiles the chunk of all experiments, once."""
        with self._condition:
            if self._executable is not None:
                return

            def chunks(states: tuple[State, ...], data: DeviceData, plan: Plan, rows: Any, keys: Any) -> Any:
                stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
                run = jax.vmap(self._engine.run_rows, in_axes=(0, self._data_axes, _PLAN_AXES, None, 0))
                after, seen = run(stacked, data, plan, rows, keys)
                return tuple(_part(after, i) for i in range(self._count)), seen

            state = state_shapes(self._engine)
            plan = self._joined([stack_rows([empty_row(self._slots)], MAX_ROWS)] * self._count)
            lowered = jax.jit(chunks, donate_argnums=(0,)).lower(
                (state,) * self._count, self._data, plan, np.int32(0), self._keys
            )
            self._executable = lowered.compile()

    def chunk(self, number: int, state: State, plan: Plan, rows: int) -> tuple[State, ChunkOutput]:
        """One experiment's next chunk; returns when every running experiment has asked for its chunk."""
        with self._condition:
            self._asked[number] = (state, plan, rows)
            self._run_if_all_asked()
            while number not in self._answers and self._failed is None:
                self._condition.wait()
            if self._failed is not None:
                raise self._failed
            return self._answers.pop(number)

    def leave(self, number: int) -> None:
        """An experiment has ended, or failed; the others no longer wait for it."""
        with self._condition:
            self._running.discard(number)
            self._run_if_all_asked()

    def _run_if_all_asked(self) -> None:
        if not self._running or self._asked.keys() != self._running:
            return
        try:
            some = next(iter(self._asked.values()))[0]
            empty = stack_rows([empty_row(self._slots)], MAX_ROWS)
            states, plans = [], []
            for number in range(self._count):
                if number in self._asked:
                    state, plan, _ = self._asked[number]
                else:
                    plan = empty
                    state = self._idle.pop(number) if number in self._idle else jax.tree.map(jnp.zeros_like, some)
                states.append(state)
                plans.append(plan)
            rows = max(asked[2] for asked in self._asked.values())
            self.began = time.monotonic()
            after, seen = self._executable(tuple(states), self._data, self._joined(plans), np.int32(rows), self._keys)
            for number in range(self._count):
                if number in self._asked:
                    self._answers[number] = (after[number], _part(seen, number))
                else:
                    self._idle[number] = after[number]
        except BaseException as error:
            self._failed = error
        self._asked = {}
        self._condition.notify_all()

    @staticmethod
    def _joined(plans: Sequence[Plan]) -> Plan:
        """Plans stacked as `[R, L, ...]`, with the largest counts of each row."""
        columns = {name: np.stack([getattr(plan, name) for plan in plans]) for name in Plan._fields}
        return Plan(**{name: values.max(axis=0) if name in _BOUNDS else values for name, values in columns.items()})


def _part(stacked: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], stacked)


def _shared_data(simulations: Sequence[BatchedSimulation]) -> tuple[DeviceData, Any]:
    """The data of R experiments, stacked `[R, ...]`, and their mapped axes; samples that all share are not stacked."""
    first = simulations[0].dataset
    common = all(
        np.array_equal(one.dataset.x_train, first.x_train) and np.array_equal(one.dataset.y_train, first.y_train)
        for one in simulations
    )
    held = on_device(first.x_train, first.y_train) if common else None
    each = [to_device(one.dataset, one.split, held, one.malicious) for one in simulations]
    longest = max(data.index.shape[1] for data in each)
    samples = max(len(data.x) for data in each)

    def padded(data: DeviceData) -> DeviceData:
        more = samples - len(data.x)
        x, y = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, more), *[(0, 0)] * (leaf.ndim - 1))), (data.x, data.y))
        return data._replace(
            x=x,
            y=y,
            index=jnp.pad(data.index, ((0, 0), (0, longest - data.index.shape[1]))),
        )

    own = list(map(padded, each))
    if common:
        own = [data._replace(x=Rows(data.x.values[:0], data.x.shape), y=data.y[:0]) for data in own]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)
    if held is not None:
        stacked = stacked._replace(x=held[0], y=held[1])
    alone: Any = {"x", "y"} if common else ()
    return stacked, DeviceData(**{name: None if name in alone else 0 for name in DeviceData._fields})  # type: ignore[arg-type]
