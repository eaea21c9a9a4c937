"""Several experiments in one process, as one more mapped axis: small models then fill a large device.

Seeds, or settings that change no shape and nothing that is compiled (learning rates, windows, networks, weights of
aggregation): each experiment keeps its own clock, evaluations, records and checkpoints, in a thread of its own, and
only the chunks meet. A chunk waits until every experiment that still runs has planned its own, and then all are trained
in one call. Plans differ in length, so the shorter are padded with rows and arrivals that do nothing.
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

from prfl_jax.config.validate import config_hash, to_dict
from prfl_jax.data.device import DeviceData, to_device
from prfl_jax.engine.engine import ChunkOutput, Engine, EngineConfig, State
from prfl_jax.engine.memory import check_memory, image_bytes
from prfl_jax.engine.method import looks_at_all, slots, slots_key
from prfl_jax.engine.plan import MAX_ROWS, Plan, empty_row, stack_rows
from prfl_jax.runtime.experiment import Experiment, Finished
from prfl_jax.runtime.loop import Watch
from prfl_jax.runtime.simulation import Simulation
from prfl_jax.runtime.workdir import open_workdir
from prfl_jax.system import console, multi_process
from prfl_jax.system.errors import UserError
from prfl_jax.system.jax_settings import fixed
from prfl_jax.system.signals import Interrupted, InterruptGuard

# Loops run to the longest plan's bounds; whatever is beyond a plan's own is padding.
_BOUNDS = ("dispatch_count", "train_count", "arrive_count")
_COMPILED = [field for field in dataclasses.fields(EngineConfig) if field.name != "group"]
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

    Arrivals are identical to those of separate runs, models agree to rounding. A run that was begun alone can go on
    together with others, and the other way round.

    Args:
      configs: validated; alike in all that is compiled.
      workdirs: a folder for each.
      guard: as for `Experiment.run`; a signal ends all, each with a checkpoint.
      progress: show the bar of the first one.
      watches: for each, as for `Experiment.run`.

    Raises:
      UserError: the configs cannot run together, or one of them cannot run; the others are saved where they were.
      Interrupted: `guard` heard of a signal.
    """
    if not configs or len(configs) != len(workdirs):
        raise ValueError(f"{len(configs)} configs, {len(workdirs)} folders")
    guard = guard or InterruptGuard()
    members = join(configs)
    if progress:
        console.say(members[0].memory())
    experiments = [Experiment(member.config, member) for member in members]
    results: list[Finished | BaseException | None] = [None] * len(configs)
    with contextlib.ExitStack() as folders:
        # all before any begins: another run's folder is found at once
        opened: list[Any] = [
            folders.enter_context(open_workdir(path, to_dict(config), config_hash(config)))
            for path, config in zip(workdirs, configs, strict=True)
        ]

        @fixed()  # also while a member that ends lets the others go on
        def work(number: int) -> None:
            try:
                show = progress and number == 0
                watch = watches[number] if watches else None
                results[number] = experiments[number].run(opened[number], guard=guard, progress=show, watch=watch)
            except BaseException as error:  # raised again below, in the thread that waits
                results[number] = error
                guard.stop()  # the others save what they have
            finally:
                members[number].leave()

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
            thread.join(0.1)  # so that signals are heard in between


@fixed()
def join(configs: Sequence[Any]) -> list[BatchedSimulation]:
    """Simulations that meet in one `BatchedRuns`.

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
        if config.engine.models == "host":
            raise UserError("config.engine.models='host': allowed with --seeds or --vary is device")
        config.engine.devices = 1
        if jax.default_backend() == "cpu" and not config.engine.group:
            config.engine.group = 1  # a core is filled by one arrival of each
        prepared.append(config)
    members: list[BatchedSimulation] = []
    for config in prepared:
        members.append(BatchedSimulation(config, members[0] if members else None))
    for member in members:
        member.together = len(members)
    members[0].memory()  # raises where it would not fit
    gang = BatchedRuns(members)
    for number, member in enumerate(members):
        member.gang, member.number = gang, number
    return members


class BatchedSimulation(Simulation):
    """A simulation whose chunks run together with others'.

    Args:
      first: the one whose compiled programs this one shares.

    Raises:
      UserError: as `Simulation`, or not alike in what is compiled.
    """

    gang: BatchedRuns
    number: int
    together = 1  # experiments in the gang
    _waited_s = 0.0

    def __init__(self, config: Any, first: BatchedSimulation | None) -> None:
        super().__init__(config, clients_axis="vmap")
        if first is not None:
            self._share_programs(first)

    def _share_programs(self, first: BatchedSimulation) -> None:
        def compiled(member: BatchedSimulation) -> dict[str, Any]:
            """What has to be alike, by the keys that decide it."""
            engine, config = member.engine, member.config
            return {
                **{f"what is compiled of {field.name}": getattr(engine.config, field.name) for field in _COMPILED},
                "model": (config.model.name, config.model.width, config.model.loss, engine.layout.shapes),
                "submodel.name": config.submodel.name,
                "clients.number or window.cohort": slots(config),
                "data.name": (member.dataset.x_train.shape[1:], member.dataset.num_classes),
            }

        mine, theirs = compiled(self), compiled(first)
        for keys, value in mine.items():
            if value != theirs[keys]:
                raise UserError(f"--vary: {keys} differs; allowed are settings that change nothing that is compiled")
        self.engine, self.evaluator = first.engine, first.evaluator
        self._init_state, self._scores = first._init_state, first._scores

    def device_data(self) -> Any:
        """The gang has the data."""
        return None

    def memory(self) -> str:
        """As `Simulation.memory`, of all experiments."""
        shapes, images = jax.eval_shape(self.engine.init_state, self.init_key), image_bytes(self.dataset, self.split)
        return check_memory(
            shapes, images, self.placement, slots_key(self.config),
            experiments=self.together, looks_at_all=looks_at_all(self.config),
        )  # fmt: skip

    def waited_s(self) -> float:
        """s that the last chunk waited for the other experiments."""
        return self._waited_s

    def executable(self, state: State, data: Any) -> Callable[..., tuple[State, ChunkOutput]]:
        """The chunk of all, for this one."""
        self.gang.compile(state)

        def chunk(state: State, data: Any, plan: Plan, rows: np.int32, keys: Any) -> tuple[State, ChunkOutput]:
            asked = time.monotonic()
            result = self.gang.chunk(self.number, state, plan, int(rows))
            self._waited_s = max(0.0, self.gang.began - asked)
            return result

        return chunk

    def leave(self) -> None:
        """This one has ended."""
        self.gang.leave(self.number)


class BatchedRuns:
    """Where the chunks of several simulations meet.

    Args:
      members: alike in all that is compiled.
    """

    def __init__(self, members: Sequence[BatchedSimulation]) -> None:
        self._engine: Engine = members[0].engine
        self._slots = slots(members[0].config)
        self._data, self._data_axes = _shared_data(members)
        self._keys = jax.tree.map(lambda *keys: jnp.stack(keys), *(member.keys for member in members))
        self._there = set(range(len(members)))
        self._asked: dict[int, tuple[State, Plan, int]] = {}
        self._answers: dict[int, tuple[State, ChunkOutput]] = {}
        self._idle: dict[int, State] = {}  # of those that have ended
        self._executable: Any = None
        self._failed: BaseException | None = None
        self._meeting = threading.Condition()
        self.began = 0.0  # when the last call of the device did, `time.monotonic`
        self._count = len(members)

    def compile(self, state: State) -> None:
        """Compiles the chunk of all, once."""
        with self._meeting:
            if self._executable is not None:
                return

            def chunks(states: tuple[State, ...], data: DeviceData, plan: Plan, rows: Any, keys: Any) -> Any:
                stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
                run = jax.vmap(self._engine.run_rows, in_axes=(0, self._data_axes, _PLAN_AXES, None, 0))
                after, seen = run(stacked, data, plan, rows, keys)
                return tuple(_part(after, i) for i in range(self._count)), seen

            plan = self._joined([stack_rows([empty_row(self._slots)], MAX_ROWS)] * self._count)
            lowered = jax.jit(chunks, donate_argnums=(0,)).lower(
                (state,) * self._count, self._data, plan, np.int32(0), self._keys
            )
            self._executable = lowered.compile()

    def chunk(self, number: int, state: State, plan: Plan, rows: int) -> tuple[State, ChunkOutput]:
        """One member's next chunk; returns when all that are still there have asked for theirs."""
        with self._meeting:
            self._asked[number] = (state, plan, rows)
            self._run_if_all_asked()
            while number not in self._answers and self._failed is None:
                self._meeting.wait()
            if self._failed is not None:
                raise self._failed
            return self._answers.pop(number)

    def leave(self, number: int) -> None:
        """A member has ended, or failed; the others no longer wait for it."""
        with self._meeting:
            self._there.discard(number)
            self._run_if_all_asked()

    def _run_if_all_asked(self) -> None:
        if not self._there or self._asked.keys() != self._there:
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
        self._meeting.notify_all()

    @staticmethod
    def _joined(plans: Sequence[Plan]) -> Plan:
        """Plans stacked as `[R, L, ...]`, with the largest counts of each row."""
        columns = {name: np.stack([getattr(plan, name) for plan in plans]) for name in Plan._fields}
        return Plan(**{name: values.max(axis=0) if name in _BOUNDS else values for name, values in columns.items()})


def _part(stacked: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], stacked)


def _shared_data(members: Sequence[BatchedSimulation]) -> tuple[DeviceData, Any]:
    """The members' data, stacked `[R, ...]`, and the axes that are; images that all have in common lie there once."""
    first = members[0].dataset
    common = all(
        np.array_equal(member.dataset.x_train, first.x_train) and np.array_equal(member.dataset.y_train, first.y_train)
        for member in members
    )
    held = (jnp.asarray(first.x_train), jnp.asarray(first.y_train)) if common else None
    each = [to_device(member.dataset, member.split, held, member.malicious) for member in members]
    longest = max(data.index.shape[1] for data in each)
    images = max(len(data.x) for data in each)

    def padded(data: DeviceData) -> DeviceData:
        more = images - len(data.x)
        return data._replace(
            x=jnp.pad(data.x, ((0, more), *[(0, 0)] * (data.x.ndim - 1))),
            y=jnp.pad(data.y, (0, more)),
            index=jnp.pad(data.index, ((0, 0), (0, longest - data.index.shape[1]))),
        )

    own = [data if not common else data._replace(x=data.x[:0], y=data.y[:0]) for data in map(padded, each)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *own)
    if held is not None:
        stacked = stacked._replace(x=held[0], y=held[1])
    alone: Any = {"x", "y"} if common else ()
    return stacked, DeviceData(**{name: None if name in alone else 0 for name in DeviceData._fields})  # type: ignore[arg-type]
