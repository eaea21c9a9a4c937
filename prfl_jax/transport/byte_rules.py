"""Byte rules (`transport.bytes`): how many bytes a sub-model and its mask have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from prfl_jax.registry import Registry
from prfl_jax.submodel.size import ModelSize


@dataclasses.dataclass(frozen=True)
class ByteRule:
    """Bytes of a sub-model.

    Args (the first three are functions of the whole model's size and a density in whole percents):
      down: bytes of the values that a client is sent.
      up: bytes of the values that it sends back.
      mask: bytes of the mask, sent once to each client.
      counted: bytes are those of the values and masks that there are, not of a density.
    """

    down: Callable[[ModelSize, int], int]
    up: Callable[[ModelSize, int], int]
    mask: Callable[[ModelSize, int], int]
    counted: bool = True


def _values(size: ModelSize, percent: int) -> int:
    return size.value_bytes(percent)


def _mask(size: ModelSize, percent: int) -> int:
    return size.mask_bytes(percent)


def _sent(size: ModelSize, percent: int) -> int:
    return size.sent_bytes(percent)


def _share(size: ModelSize, percent: int) -> int:
    return size.density_bytes(percent)


def _nothing(size: ModelSize, percent: int) -> int:
    return 0


# values of `transport.bytes`
BYTE_RULES: Registry[ByteRule] = Registry(
    "transport.bytes",
    {
        "counted": ByteRule(_sent, _values, _mask),  # the values a sub-model has, and its mask
        "density": ByteRule(_share, _share, _nothing, counted=False),  # density x model bytes (the paper's); no masks
    },
)


def find_byte_rule(name: str) -> ByteRule:
    """The rule that `transport.bytes` names.

    Raises:
      UserError: there is no such rule.
    """
    return BYTE_RULES.find(name)
