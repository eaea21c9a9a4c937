"""The table of methods: each strategy is a row of six choices, by name (docs/methods.md, docs/clock.md)."""

from prfl_jax.strategies.table import (
    METHODS,
    ROWS,
    Method,
    WindowChoice,
    for_comparison,
    forgotten,
    row,
    staleness_a,
    use,
)

__all__ = [
    "METHODS",
    "ROWS",
    "Method",
    "WindowChoice",
    "for_comparison",
    "forgotten",
    "row",
    "staleness_a",
    "use",
]
