"""Prints the table of the built-in networks: parameters, values of state, and forward FLOP of a sample, at full size.

python scripts/networks.py
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

from prfl_jax.config import cli
from prfl_jax.system.errors import UserError


def main(arguments: list[str]) -> None:
    if arguments:
        raise UserError(f"scripts/networks.py: {arguments[0]!r} is not known; allowed: no argument")
    from prfl_jax.models.network_table import network_table

    for line in network_table():
        print(line, flush=True)


if __name__ == "__main__":
    cli.run_with_arguments(main)
