"""The compiled chunk, made from shapes before any array exists, and the memory that it takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from prfl_jax.engine.client import split_keys
from prfl_jax.engine.engine import Engine
from prfl_jax.engine.placement import ALL
from prfl_jax.engine.plan import MAX_ROWS, empty_row, stack_rows
from prfl_jax.engine.state import PLAN_SPEC, STATE_SPEC, State


def state_shapes(engine: Engine) -> State:
    """Shapes of the state, placed."""
    shapes = jax.eval_shape(lambda: engine.init_state(split_keys(0)[0]))
    return engine.placement.shapes(shapes, STATE_SPEC, engine.out_shardings)


def lower_chunk(engine: Engine, data: Any, slots: int) -> Any:
    """What `jax.jit(...).lower` gives of the chunk; one program serves every chunk length.

    Args:
      data: shapes of `DeviceData`.
      slots: S.
    """
    place = engine.placement
    plan = place.split_plan(stack_rows([empty_row(slots)], MAX_ROWS))
    keys = jax.eval_shape(lambda: split_keys(0)[1])
    return engine.run_chunk.lower(
        state_shapes(engine),
        place.shapes(data, ALL),
        place.shapes(plan, PLAN_SPEC),
        np.int32(0),
        place.shapes(keys, ALL),
    )


class Taken(NamedTuple):
    """Bytes that a compiled program takes on each device.

    Attributes:
      arguments, outputs, aliased, temporaries, code: as XLA counts them; what is `aliased` is in both of the first two.
      host: in the host's memory.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int
    host: int

    @classmethod
    def by(cls, compiled: Any) -> Taken:
        """By a compiled program."""
        sizes = compiled.memory_analysis()
        host = sizes.host_argument_size_in_bytes + sizes.host_output_size_in_bytes - sizes.host_alias_size_in_bytes
        return cls(
            sizes.argument_size_in_bytes,
            sizes.output_size_in_bytes,
            sizes.alias_size_in_bytes,
            sizes.temp_size_in_bytes,
            sizes.generated_code_size_in_bytes,
            host + sizes.host_temp_size_in_bytes,
        )

    @property
    def beside(self) -> int:
        """Bytes on a device beside what it is given."""
        return self.peak - self.arguments

    @property
    def peak(self) -> int:
        """Bytes on a device while it runs."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code
