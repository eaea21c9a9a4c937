"""Runs the simulated clock of a config alone: no training, no JAX.

    python scripts/clock.py --config=configs/table3_fedasyn.py --windows=10000 --out=clock.json

Writes JSON: `windows`, `simulated_s`, `bytes_down` (sent by the server), `bytes_client_down` (received by the
clients), `bytes_up` (received by the server); for each client `updates`, `in_flight`, `waiting_s`,
`staleness_mean`, `density` at the end, and with faults the number of each kind (of more than 1,000 clients an
even selection); `events` of the simulation; `seed`, `host_s`, `note`, config, commit, versions, machine.
Densities follow from times only: without accuracies no client recovers. An existing file is replaced only when
the run has finished.
"""

from __future__ import annotations

import prfl_jax.system.early  # noqa: F401  # isort: skip  (before what takes long)

import json

from absl import flags
from ml_collections import config_dict

from prfl_jax.config import cli
from prfl_jax.config.canonical import config_hash, to_dict
from prfl_jax.report.series import shorten
from prfl_jax.runtime.clock_only import run_clock
from prfl_jax.system import provenance
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import output_file, write_text

_MOST_SHOWN = 20  # clients
_WINDOWS = flags.DEFINE_integer("windows", None, "number of windows; by default the config's `rounds`")
_OUT = flags.DEFINE_string("out", None, "the JSON file to write")


def main(config: config_dict.ConfigDict) -> None:
    windows = config.rounds if _WINDOWS.value is None else _WINDOWS.value
    if windows < 1:
        raise UserError(f"--windows={windows}: allowed is a whole number of at least 1")
    out = output_file("--out", _OUT.value, "clock.json")
    result = run_clock(config, windows)
    report = {
        **shorten(result, 1000),
        "config": to_dict(config),
        "config_hash": config_hash(config),
        "commit": provenance.commit(),
        "versions": provenance.versions(("numpy", "ml_collections")),
        "machine": provenance.machine(),
    }
    write_text(out, json.dumps(report, indent=1, allow_nan=False) + "\n")
    updates = sorted(result["updates"])
    some = f"of a client {updates[0]} to {updates[-1]}" if len(updates) > _MOST_SHOWN else result["updates"]
    faults = {kind: sum(counts) for kind, counts in result.get("faults", {}).items()}
    failed = "".join(f"; {kind} {count}" for kind, count in faults.items())
    print(
        f"{report['windows']} windows, {report['simulated_s']:.0f} simulated s in {report['host_s']:.1f} s "
        f"({1e6 * report['host_s'] / max(report['events'], 1):.0f} us for each of {report['events']:,} events); "
        f"updates {some}{failed}; {out}"
    )


if __name__ == "__main__":
    cli.run_with_config(main)
