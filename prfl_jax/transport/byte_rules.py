"""Byte rules (`transport.bytes`): how many bytes a sub-model and its mask have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from prfl_jax.registry import Registry
from prfl_jax.submodel.size import ModelSize


@dataclasses.dataclass(frozen=True)
class ByteRule:
    """Bytes of a sub-model.

    Args:
      values: of (size of the whole model, density in whole percents): bytes of its values.
      mask: of the same: bytes of its mask, sent once to each client.
      sent: of the same: bytes of one dispatch, without a mask that is sent once for several.
    """

    values: Callable[[ModelSize, int], int]
    mask: Callable[[ModelSize, int], int]
    sent: Callable[[ModelSize, int], int]


# values of `transport.bytes`
BYTE_RULES: Registry[ByteRule] = Registry(
    "transport.bytes",
    {
        # the values a sub-model has, and its mask
        "counted": ByteRule(
            values=lambda size, percent: size.value_bytes(percent),
            mask=lambda size, percent: size.mask_bytes(percent),
            sent=lambda size, percent: size.sent_bytes(percent),
        ),
        # the paper's: density x model bytes, no masks
        "density": ByteRule(
            values=lambda size, percent: size.density_bytes(percent),
            mask=lambda size, percent: 0,
            sent=lambda size, percent: size.density_bytes(percent),
        ),
    },
)


def find_byte_rule(name: str) -> ByteRule:
    """The rule that `transport.bytes` names.

    Raises:
      UserError: there is no such rule.
    """
    return BYTE_RULES.find(name)
