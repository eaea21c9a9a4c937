"""Compiles a config's programs for an accelerator that is not here: do they compile, do they fit, what do they move?

    python scripts/compile_check.py --target=h100 --config=configs/quickstart.py --out=h100.json
    python scripts/compile_check.py --target=v5e --devices=4 --clients=20 --config=configs/cifar10.py

Nothing is run, so it says nothing of results or of seconds; a TPU's compiler estimates cycles. The table has the chunk
of windows, evaluation, pruning and the initial state: seconds to compile, memory of each device, operations, bytes
moved (a row that dispatches, trains and takes one client or group and closes its window). The exit code is 1 if a
program does not compile or does not fit, or a run would be refused for its memory.

The compiler's packages, a download of some 200 MB for GPUs and for TPUs each, are fetched into a folder of their own
(`--compilers`) the first time, in the version that belongs to the installed JAX. No driver and no CUDA library is
needed.
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

from absl import flags

from prfl_jax.compile_check.check import Request, run_check
from prfl_jax.config import cli

_TARGET = flags.DEFINE_string("target", None, "the accelerator: v5e | v6e | h100 | h200")
_OUT = flags.DEFINE_string("out", None, "the JSON file to write; by default none")
_CLIENTS = flags.DEFINE_integer("clients", None, "number of clients, in place of the config's")
_DEVICES = flags.DEFINE_integer("devices", None, "number of devices, by default engine.devices or 1")
_PROGRAMS = flags.DEFINE_list("programs", [], "initialisation, chunk, evaluation, pruning; by default all")
_COMPILERS = flags.DEFINE_string("compilers", None, "folder of the compilers, by default ~/.cache/prfl_jax/compilers")
_INSTALL = flags.DEFINE_bool("install", False, "only fetch the compiler")


def main(config: object) -> int:
    request = Request(
        _TARGET.value, _OUT.value, _CLIENTS.value, _DEVICES.value, _PROGRAMS.value, _COMPILERS.value, _INSTALL.value
    )
    return run_check(request, config, flags.FLAGS.config)


if __name__ == "__main__":
    cli.run_with_config(main)
