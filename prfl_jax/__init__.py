"""Simulator of asynchronous, heterogeneous federated learning with sub-models, in JAX.

    import prfl_jax

    config = prfl_jax.load_config("configs/quickstart.py", {"rounds": 20})
    run = prfl_jax.Experiment(config).run("runs/first")
    print(run.report["final"]["accuracy"])

The names below are loaded on first use, so that importing the package, or its clock, does not import JAX.

The rooms with a public interface:

- `prfl_jax.strategies`: the table of methods; each is a row of six choices
- `prfl_jax.config`: every setting of a run, with its default
- `prfl_jax.registry`: the choices of a config key, built-in or from a user's file
- `prfl_jax.tasks`: what is learned and how it is scored: kinds of samples, targets, metrics
- `prfl_jax.data`, `prfl_jax.models`: data sets and partitions; Flax modules
- `prfl_jax.clock`: the simulated network, windows and faults (NumPy only)
- `prfl_jax.submodel`, `prfl_jax.density`, `prfl_jax.aggregate`, `prfl_jax.transport`, `prfl_jax.local`: five of the
  six choices of a method (the sixth, the window, is the clock's)
- `prfl_jax.robustness`: attacks by malicious clients, the server's update filter, the privacy accountant
- `prfl_jax.report`, `prfl_jax.sweep`: what a run leaves; searches over settings
- `prfl_jax.startup`: settings that must be made before JAX is imported

`[M, ...]` is an array with one row for each client; s are seconds, MB 10^6 bytes. A mistake of the user raises
`prfl_jax.UserError`, whose text is one line.
"""

from __future__ import annotations

from prfl_jax.system.lazy_names import lazy_names

TYPE_CHECKING = False  # as `typing` has it, which is not imported here: scripts begin with `prfl_jax.system.early`
if TYPE_CHECKING:
    from prfl_jax.config.cli import load_config
    from prfl_jax.config.defaults import default_config
    from prfl_jax.models.build import build_model, load_model, save_model
    from prfl_jax.runtime.experiment import Experiment, Finished
    from prfl_jax.system.errors import UserError

__version__ = "0.1.0"
__all__ = [
    "Experiment",
    "Finished",
    "UserError",
    "build_model",
    "default_config",
    "load_config",
    "load_model",
    "save_model",
]

_HOMES = {
    "Experiment": "runtime.experiment",
    "Finished": "runtime.experiment",
    "UserError": "system.errors",
    "build_model": "models.build",
    "default_config": "config.defaults",
    "load_config": "config.cli",
    "load_model": "models.build",
    "save_model": "models.build",
}

__getattr__ = lazy_names(__name__, _HOMES)
