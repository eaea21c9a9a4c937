"""`Simulation`: builds the parts of an experiment from its config: data, model, clock, densities, engine.

`Simulation` holds the parts and the arrays' way to the device and back; `loop.py` runs them through simulated time.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from prfl_jax import data as data_room
from prfl_jax import registry
from prfl_jax.aggregate import aggregation_in_force, client_weights
from prfl_jax.clock import Clock, Costs, clock_from_config, fault_files, faults_from_config
from prfl_jax.data.device import to_device
from prfl_jax.data.targets import check_targets
from prfl_jax.density import evidence_needed, make_density
from prfl_jax.engine.chunk_program import Taken, lower_chunk
from prfl_jax.engine.client import split_keys
from prfl_jax.engine.engine import PLAN_SPEC, STACKED, STATE_SPEC, ChunkOutput, State
from prfl_jax.engine.evaluate import Evaluator, make_eval_set
from prfl_jax.engine.memory import sample_bytes
from prfl_jax.engine.method import check_fits, make_engine, place, resolve, slots
from prfl_jax.engine.placement import ALL, OWN
from prfl_jax.engine.plan import Plan
from prfl_jax.engine.planner import Planner
from prfl_jax.engine.round_densities import RoundDensities
from prfl_jax.robustness.attacks import malicious_clients
from prfl_jax.robustness.privacy import check_installed
from prfl_jax.runtime.changing_masks import ChangingMasks
from prfl_jax.runtime.checkpoint import host_copy
from prfl_jax.runtime.round_costs import round_costs
from prfl_jax.runtime.run_masks import RunMasks
from prfl_jax.runtime.shared_mask import SharedMask
from prfl_jax.startup import DETERMINISTIC
from prfl_jax.strategies import staleness_a
from prfl_jax.submodel import find_submodel
from prfl_jax.submodel.importance import mean_squares
from prfl_jax.submodel.levels import prune
from prfl_jax.system import accelerator, multi_process
from prfl_jax.system.errors import UserError
from prfl_jax.system.jax_settings import fixed, key_of
from prfl_jax.system.notices import warn_once


class Simulation:
    """One experiment's parts.

    Args:
      config: validated.
      clients_axis: map | vmap, with sub-models at full size; None: as the config says.

    Raises:
      UserError: data, partition or model cannot be had as the config says.
    """

    @fixed()
    def __init__(self, config: Any, clients_axis: str | None = None) -> None:
        self.config = config
        if config.engine.deterministic and accelerator.backend() == "gpu":
            if DETERMINISTIC not in os.environ.get("XLA_FLAGS", ""):
                raise UserError(
                    f"config.engine.deterministic=True: allowed with XLA_FLAGS={DETERMINISTIC} "
                    "set before JAX starts, as scripts/train.py does"
                )
        check_installed(config.privacy.noise_multiplier)
        seed, clients = config.seed, config.clients.number
        self._faults = faults_from_config(config)
        self.dataset = data_room.load(config.data, seed)
        self._warn(f"data.name={self.dataset.name}: {note}" for note in self.dataset.notes)
        self.split = data_room.split(self.dataset, config.data, clients, config.local.batch_size, seed)
        needed = evidence_needed(config.density.name, config.stop_early)
        if needed and data_room.SIGNALS.find(config.eval.signal).held_out and not len(self.split.holdout):
            raise UserError(
                f"config.data.holdout_fraction={config.data.holdout_fraction}: holds out no sample of "
                f"{len(self.dataset.x_train)}, but early stopping needs some; allowed: a larger fraction"
            )
        self.malicious = malicious_clients(config.attack, clients, seed)
        evaluated = (len(self.split.test), len(self.split.holdout))
        check_targets(config.task.name, self.dataset)
        self.method = resolve(config, self.dataset.sample, self.dataset.num_classes, evaluated)
        self._warn(self.method.model.warnings)
        if clients_axis is not None:
            self.method = dataclasses.replace(self.method, clients_axis=clients_axis, widths=None)
        self.init_key, self.keys = split_keys(seed)
        self.initial_keys = self.keys.of_initial_stage()
        method = self.method
        self.placement = place(config)
        self.engine = make_engine(config, method, self.placement)
        self.evaluator = Evaluator(
            method.model, method.target_loss, config.data.normalize, self.dataset.num_classes, self.placement,
            method.matmul, method.task,
        )  # fmt: skip
        self._executables: dict[bool, Any] = {}
        self.compiled_s = 0.0  # host seconds that no run has counted yet
        # keys as plain words: those can be given to devices of several processes
        self._init_state = self.placement.jit_global(
            lambda words: self.engine.init_state(key_of(words)), STATE_SPEC, self.engine.out_shardings
        )
        if self.placement.count > 1:
            words = jax.tree.map(lambda key: np.asarray(jax.random.key_data(key)), (self.keys, self.initial_keys))
            wrap = self.placement.jit_global(lambda words: jax.tree.map(key_of, words), ALL)
            self.keys, self.initial_keys = wrap(words)
        self._scores = jax.jit(self._importance_scores)
        self._own_files = registry.sources(config)

    @staticmethod
    def _warn(lines: Iterable[str]) -> None:
        """Prints warnings, each once in a process, from one process of a run."""
        if multi_process.leads():
            for line in lines:
                warn_once(line)

    @property
    def attack(self) -> dict[str, Any] | None:
        """The attack and the malicious clients, for the report; None where all clients are honest."""
        attack = self.config.attack
        return {"name": attack.name, "scale": attack.scale, "clients": list(self.malicious)} if self.malicious else None

    def waited_s(self) -> float:
        """Host seconds that the last chunk waited for other runs of a batch (`batched_runs.py`); alone none."""
        return 0.0

    def memory(self) -> str:
        """One line about what a run keeps in memory; compiles the chunk, which tells what it takes itself.

        Raises:
          UserError: it would not fit.
        """
        shapes = jax.eval_shape(self.engine.init_state, self.init_key)
        samples = sample_bytes(self.dataset, self.split, self.config.model.state)
        fits = functools.partial(check_fits, self.config, self.method, self.placement, shapes, samples)
        fits()  # at a guess, so that what is far too large is not compiled
        return fits(Taken.by(self.executable()).beside)

    def new_planner(self) -> Planner:
        """Clock and densities at time 0."""
        config, clients = self.config, self.config.clients.number
        policy = make_density(config.density, clients, config.stop_early, seed=config.seed)
        clock = clock_from_config(config, self.costs(policy.density_pct), self._faults)
        sizes = np.array([len(c) for c in self.split.clients], float)
        samples = np.full(clients, float(config.local.steps * config.local.batch_size))  # of a round
        p = client_weights(config.aggregation.client_weight, samples, sizes)
        dt_ref = config.local.lr_dt_ref_s or config.window.dt_s
        a, ahead = staleness_a(config.strategy, config.aggregation.staleness), self.method.train == "pending"
        planner = Planner(clock, policy, aggregation_in_force(config.aggregation, a), config.local, dt_ref, p, ahead)
        planner.densities = RoundDensities(clients, find_submodel(config.submodel).masks_by_density)
        return planner

    def restored_planner(self, state: dict[str, Any]) -> Planner:
        """Clock and densities as `Planner.to_state` left them."""
        return self.new_planner().from_state(state, self.copied_clock(state["clock"]))

    def masks(self, saved: dict[str, Any] | None = None) -> RunMasks | None:
        """The masks of a run at time 0, or as `RunMasks.to_state` left them; None where densities give them."""
        if self.method.submodels.server_mask is None:
            return None
        kind = ChangingMasks if self.method.work.own_masks else SharedMask
        masks = kind(self.config, self.method, self.placement)
        return masks if saved is None else masks.from_state(saved)

    def copied_clock(self, state: dict[str, Any]) -> Clock:
        """A clock as `Clock.to_state` left it."""
        return clock_from_config(self.config, state, self._faults)

    def costs(self, density_pct: np.ndarray, flop_share: np.ndarray | None = None) -> Costs:
        """Bytes, seconds and steps of dispatches at these densities `[M]`."""
        return round_costs(self.config, self.method.size, density_pct, flop_share)

    # Device side.

    def executable(self, initial: bool = False) -> Any:
        """The compiled chunk, kept for the next run of this object; it is made from shapes.

        Args:
          initial: with the steps of the initial stage (`pruning.initial_steps`).
        """
        if initial not in self._executables:
            steps = self.config.pruning.initial_steps
            engine = make_engine(self.config, self.method, self.placement, steps) if initial else self.engine
            data = jax.eval_shape(lambda: to_device(self.dataset, self.split, malicious=self.malicious))
            begin = time.monotonic()
            self._executables[initial] = lower_chunk(engine, data, slots(self.config)).compile()
            self.compiled_s += time.monotonic() - begin
        return self._executables[initial]

    def init_state(self, key: jax.Array) -> State:
        """W_0 from `key`, and empty slots, on the devices."""
        return self._init_state(np.asarray(jax.random.key_data(key)))

    def device_plan(self, plan: Plan) -> Plan:
        """A plan as the executable takes it."""
        split = self.placement.split_plan(plan)
        return split if multi_process.alone() else self.placement.put(split, PLAN_SPEC)

    def by_row(self, seen: ChunkOutput, plan: Plan, count: int) -> list[ChunkOutput]:
        """The output of a chunk's first `count` rows, row by row, the arrivals of each row in their order."""
        place = self.placement
        per_arrival = jax.tree.map(lambda values: place.by_arrival(values, plan.arrive), (seen.losses, seen.verdicts))
        rows = []
        for r, arrived in enumerate(plan.arrive_count[:count].tolist()):
            losses, verdicts = jax.tree.map(lambda values, r=r, arrived=arrived: values[r, :arrived], per_arrival)
            rows.append(ChunkOutput(losses, verdicts, jax.tree.map(lambda kept, r=r: kept[r], seen.kept)))
        return rows

    def fedavg_model(self, state: State, weights: Sequence[float]) -> Any:
        """FedAvg(B) of the buffer under weights `[S]`."""
        by_slot = self.placement.to_slots(np.asarray(weights, np.float32))
        if not multi_process.alone():
            by_slot = self.placement.put(by_slot, OWN)
        return self.engine.fedavg_model(state.params, state.buffer, by_slot)

    def saved_shapes(self) -> State:
        """Shapes of `to_host`'s state."""
        shapes = jax.eval_shape(self.engine.init_state, self.init_key)._replace(trained=())
        if self.placement.count == 1:
            return shapes
        number = slots(self.config)
        return self._stacks(shapes, lambda s: jax.ShapeDtypeStruct((number, *s.shape[1:]), s.dtype))

    def to_host(self, state: State) -> State:
        """NumPy copies, what is stacked being `[S, ...]` by slot whatever the number of devices.

        What was trained ahead is left out: it can be trained again from what was sent.
        """
        state = state._replace(trained=())
        copy = host_copy(state if multi_process.alone() else jax.tree.map(multi_process.fetch, state))
        return self._stacks(copy, self.placement.to_clients)

    def to_devices(self, state: State) -> State:
        """The inverse of `to_host`, nothing being trained ahead; the chunk may take its memory."""
        shapes = jax.eval_shape(self.engine.init_state, self.init_key).trained
        untrained = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
        state = self._stacks(state, self.placement.to_slots)._replace(trained=untrained)
        if self.engine.out_shardings is None:
            return self.placement.put(state, STATE_SPEC)
        device = self.placement.devices[0]
        shardings = jax.tree.map(
            lambda place: place or device, self.engine.out_shardings, is_leaf=lambda place: place is None
        )
        return jax.device_put(jax.tree.map(lambda leaf: np.array(leaf, copy=True), state), shardings)

    @staticmethod
    def _stacks(state: State, function: Callable[[Any], Any]) -> State:
        """`function` of all arrays that are stacked over clients."""
        return state._replace(**{name: jax.tree.map(function, getattr(state, name)) for name in STACKED})

    @functools.cached_property
    def data_crc32(self) -> int:
        """CRC-32 of samples, targets and files that the config names; a run resumes only with the same ones.

        With a partition by a plugin also of the clients' samples, since a plugin may draw without the seed.
        """
        crc, arrays = 0, [self.dataset.x_train, self.dataset.y_train, self.dataset.x_test, self.dataset.y_test]
        if registry.is_own(self.config.data.partition):
            arrays += self.split.clients
        for array in arrays:
            crc = zlib.crc32(np.ascontiguousarray(array).data.cast("B"), crc)
        faults = [Path(path).read_bytes() for path in fault_files(self.config)]
        for source in [*self._own_files, *faults]:
            crc = zlib.crc32(source, crc)
        return crc

    def device_data(self) -> Any:
        data = to_device(self.dataset, self.split, malicious=self.malicious)
        return data if self.placement.count == 1 else self.placement.put(data, ALL)

    def eval_sets(self) -> tuple[Any, Any]:
        """(test data, the data that the density policy's evidence is measured on or None)."""
        d, batch = self.dataset, self.config.eval.batch_size
        rows = self.split.test
        test = make_eval_set(d.x_test[rows], d.y_test[rows], batch, self.placement)
        if not evidence_needed(self.config.density.name, self.config.stop_early):
            return test, None
        if not data_room.SIGNALS.find(self.config.eval.signal).held_out:
            return test, test
        held = self.split.holdout
        return test, make_eval_set(d.x_train[held], d.y_train[held], batch, self.placement) if len(held) else None

    def prune(self, state: State, density_pct: np.ndarray) -> tuple[State, Costs]:
        """Prune_model (Algorithm 1, line 23): new levels for these densities, and what they cost.

        Raises:
          FloatingPointError: an importance score is not finite.
          RuntimeError: the counts on the device differ from those the clock charges.
        """
        method = self.method
        if method.importance is None or (density_pct == 100).all():
            return state, self.costs(density_pct)
        levels, flop_share = prune(self._scores(state), density_pct, method.size)
        return state._replace(levels=levels), self.costs(density_pct, flop_share)

    def _importance_scores(self, state: State) -> tuple[jax.Array, ...]:
        assert self.method.scores is not None
        return self.method.scores(self.method.layout.prunable_leaves(state.params), mean_squares(state.importance))
