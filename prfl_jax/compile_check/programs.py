"""The device programs of a run, lowered for the devices that `accelerator` names, from shapes alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from prfl_jax import data as data_room
from prfl_jax.data.device import to_device
from prfl_jax.engine.chunk_program import lower_chunk, state_shapes
from prfl_jax.engine.client import split_keys
from prfl_jax.engine.engine import Engine
from prfl_jax.engine.evaluate import Evaluator, in_pieces
from prfl_jax.engine.memory import sample_bytes
from prfl_jax.engine.method import ResolvedMethod, check_fits, make_engine, place, resolve, slots
from prfl_jax.engine.placement import ALL, AXIS, Placement
from prfl_jax.engine.state import STATE_SPEC, State
from prfl_jax.submodel.importance import mean_squares
from prfl_jax.submodel.levels import counted_levels, number_of_densities
from prfl_jax.system.jax_settings import key_of

Lower = Callable[[], Any]  # -> what `jax.jit(...).lower(...)` gives


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the programs of a run are made of.

    Attributes:
      config: validated.
      dataset, split: its data.
      method, placement, engine: as a run would have them.
    """

    config: Any
    dataset: Any
    split: Any
    method: ResolvedMethod
    placement: Placement
    engine: Engine

    @classmethod
    def of(cls, config: Any) -> Parts:
        """The parts of a validated config.

        Raises:
          UserError: data or model cannot be had as the config says.
        """
        dataset = data_room.load(config.data, config.seed)
        split = data_room.split(dataset, config.data, config.clients.number, config.local.batch_size, config.seed)
        method = resolve(config, dataset.sample, dataset.num_classes, (len(split.test), len(split.holdout)))
        placement = place(config)
        return cls(config, dataset, split, method, placement, make_engine(config, method, placement))

    def memory(self, training: int | None) -> str:
        """The line about memory that a run would print there.

        Args:
          training: bytes that the chunk takes itself; None: that is guessed.

        Raises:
          UserError: it would be refused.
        """
        shapes = jax.eval_shape(lambda: self.engine.init_state(split_keys(0)[0]))
        samples = sample_bytes(self.dataset, self.split, self.config.model.state)
        return check_fits(self.config, self.method, self.placement, shapes, samples, training)

    def programs(self) -> Iterator[tuple[str, Lower]]:
        """(name, its lowering) of initialisation, the chunk, evaluation, and pruning if the method prunes."""
        state = state_shapes(self.engine)
        yield "initialisation", self._initialisation
        yield "chunk", self._chunk
        yield "evaluation", lambda: self._evaluation(state.params)
        if self.method.importance is not None and self.method.scores is not None:
            yield "pruning", lambda: self._pruning(state)

    def _initialisation(self) -> Any:
        words = jax.eval_shape(lambda: jax.random.key_data(split_keys(0)[0]))
        made = self.placement.jit_global(
            lambda words: self.engine.init_state(key_of(words)), STATE_SPEC, self.engine.out_shardings
        )
        return made.lower(self.placement.shapes(words, ALL))

    def _chunk(self) -> Any:
        data = jax.eval_shape(lambda: to_device(self.dataset, self.split))
        return lower_chunk(self.engine, data, slots(self.config))

    def _evaluation(self, params: Any) -> Any:
        method, test = self.method, self.split.test
        evaluator = Evaluator(
            method.model, method.target_loss, self.config.data.normalize, self.dataset.num_classes, self.placement,
            method.matmul, method.task,
        )  # fmt: skip
        pieces = in_pieces(
            self.dataset.x_test[test], self.dataset.y_test[test], self.config.eval.batch_size, self.placement.count
        )
        number = np.int32(0)
        return evaluator.pieces.lower(params, self.placement.shapes(pieces, PartitionSpec(None, AXIS)), number, number)

    def _pruning(self, state: State) -> Any:
        method, scores = self.method, self.method.scores
        assert scores is not None

        def prune(params: Any, importance: Any, percent: jax.Array, counts: jax.Array) -> Any:
            found = scores(method.layout.prunable_leaves(params), mean_squares(importance))
            return counted_levels(found, percent, counts, base=method.size.base_counts())

        densities = jax.ShapeDtypeStruct((number_of_densities(self.config.clients.number),), jnp.int32)
        numbers = self.placement.shapes((densities, densities), ALL)
        return jax.jit(prune).lower(state.params, state.importance, *numbers)
