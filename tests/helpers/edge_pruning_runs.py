"""Settings and reports of the edge pruning study for tests of its tables and figures, made up."""

from __future__ import annotations

from typing import Any

from study_reports import run_of

from prfl_jax.studies.edge_pruning.devices import set_devices
from prfl_jax.studies.edge_pruning.setting import METHODS, Setting


def setting(key: str = "mnist", **more: Any) -> Setting:
    """A setting of four rounds."""

    def change(c: Any) -> None:
        c.model.width, c.clients.number = 0.1, 5
        set_devices(c)

    values = {"methods": METHODS, "rounds": 4, **more}
    return Setting(key, key.upper(), change, (0.5, 0.9), "why", None, width=0.1, **values)  # type: ignore[arg-type]


def report(values: list[float], server: list[float] | None = None, seed: int = 0, **more: Any) -> dict[str, Any]:
    """A run with an evaluation after each round of 10 s.

    Args:
      values: accuracies.
      server: what the server's mask holds after each round, the first of them the initial stage; None: no masks.
    """
    rounds = range(1, len(values) + 1)
    reached = {f"{level:g}": next((10.0 * n for n, v in zip(rounds, values, strict=True) if v >= level), None)
               for level in (0.5, 0.9)}  # fmt: skip
    made = run_of(values, reached, seed, model={"size_mb": 26.4}, **more)
    made["curves"]["mask"]["model_s"] = made["curves"]["mask"]["t_s"]
    if server is not None:
        initial = {"rounds": 1, "ended": True, "t_s": 10.0, "retention": server[0]}
        curve = {"window": list(rounds), "server": server}
        made["masks"] = {"retention": server[-1], "server_kib": 1000.0, "curve": curve, "initial": initial}
        made["clients"] = [{"retention": share} for share in (server[-1], server[-1] + 0.2)]
        made["own_models"] = {"accuracy_mean": 0.95}
    return made
