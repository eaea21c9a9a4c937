"""Compiles the programs of a config for a target, prints a table, and writes a JSON file."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prfl_jax.compile_check import plugins
from prfl_jax.compile_check.targets import TARGETS, Machine
from prfl_jax.config.canonical import config_hash, to_dict
from prfl_jax.config.validate import validate
from prfl_jax.report.names import bytes_text
from prfl_jax.system import console, provenance
from prfl_jax.system.errors import UserError, first_line
from prfl_jax.system.files import check_folder, output_file, user_path, write_text

SCHEMA_VERSION = 1
PROGRAMS = ("initialisation", "chunk", "evaluation", "pruning")


@dataclasses.dataclass(frozen=True)
class Request:
    """The flags of scripts/compile_check.py.

    Attributes:
      target: which accelerator.
      out: the JSON file; None: none is written.
      clients: takes the place of `clients.number`; None: as the config says.
      devices: how many; None: `engine.devices`, or one where that is 0.
      programs: names; if empty, all that the method has.
      compilers: folder of the compilers' packages.
      install: only fetch the compiler.
    """

    target: str | None
    out: str | None = None
    clients: int | None = None
    devices: int | None = None
    programs: Sequence[str] = ()
    compilers: str | None = None
    install: bool = False

    def check(self) -> tuple[Machine, Path | None, Path]:
        """(the target, the JSON file, the folder of compilers).

        Raises:
          UserError: a flag has a value that is not allowed.
        """
        if self.target not in TARGETS:
            raise UserError(f"--target={self.target}: allowed is {', '.join(TARGETS)}")
        machine = TARGETS[self.target]
        if self.devices is not None and self.devices not in machine.devices:
            raise UserError(
                f"--devices={self.devices}: allowed for --target={self.target} is "
                f"{', '.join(map(str, machine.devices))}"
            )
        for name in self.programs:
            if name not in PROGRAMS:
                raise UserError(f"--programs={name}: allowed are {', '.join(PROGRAMS)}")
        out = None if self.out is None else output_file("--out", self.out, f"{self.target}.json")
        folder = user_path("--compilers", self.compilers or plugins.DEFAULT)
        if os.pathsep in str(folder):
            raise UserError(f"--compilers={self.compilers}: allowed is a folder without {os.pathsep!r} in its name")
        check_folder("--compilers", folder)
        return machine, out, folder

    def count(self, config: Any) -> int:
        """How many devices: the flag, the config's `engine.devices`, or one.

        Raises:
          UserError: there are no so many clients, or the config asks for another number than there may be.
        """
        count, machine = self.devices or config.engine.devices or 1, TARGETS[self.target or ""]
        if count not in machine.devices:
            raise UserError(
                f"config.engine.devices={count}: allowed for --target={self.target} is "
                f"{', '.join(map(str, machine.devices))}"
            )
        there = config.window.cohort or config.clients.number
        if count > there:
            raise UserError(f"--devices={count}: allowed is at most {there}, the number of clients at a time")
        return count


def run_check(request: Request, config: Any, name: str) -> int:
    """Checks one config.

    Args:
      config: validated.
      name: of its file.

    Returns:
      0; 1 if a program does not compile or does not fit, or a run would be refused for its memory.

    Raises:
      UserError: a flag or the config is not possible, or the compiler cannot be had.
    """
    machine, out, under = request.check()
    if request.clients is not None:
        config.clients.number = request.clients
    config.engine.devices = count = request.count(config)
    validate(config)
    if config.engine.models == "host" and not machine.host_memory:
        raise UserError(
            f"config.engine.models='host': allowed with --target={request.target} is device, since its description "
            "does not know the host's memory"
        )
    folder = plugins.install(machine, under)
    if request.install:
        print(folder)
        return 0
    plugins.start_again(machine, folder, deterministic=config.engine.deterministic)
    report = _report(request, machine, count, config, name)
    print(_table(report))
    if out is not None:
        write_text(out, json.dumps(report, indent=1, allow_nan=False) + "\n")
        print(out)
    return int(bool(report["refused"]) or any(row["error"] or not row["fits"] for row in report["programs"]))


def _report(request: Request, machine: Machine, count: int, config: Any, name: str) -> dict[str, Any]:
    begun, found = time.monotonic(), plugins.devices(machine, count)  # the first to import JAX

    from prfl_jax.compile_check.programs import Parts
    from prfl_jax.system import accelerator, environment
    from prfl_jax.system.jax_settings import fixed

    target = accelerator.Target(machine.backend, found, machine.memory)
    with fixed(), accelerator.compiling_for(target):
        parts = Parts.of(config)
        rows = []
        programs = dict(parts.programs())
        for program in request.programs:
            if program not in programs:
                raise UserError(f"--programs={program}: allowed with this config are {', '.join(programs)}")
        for program in request.programs or programs:
            console.say(f"compiling {program}")
            rows.append({"program": program, **_compiled(programs[program], machine.memory)})
        chunk = next((row for row in rows if row["program"] == "chunk" and not row["error"]), None)
        try:
            said, refused = parts.memory(None if chunk is None else chunk["peak"] - chunk["arguments"]), None
        except UserError as error:
            said, refused = None, str(error)
        device = target.devices[0].device_kind
    return {
        "schema_version": SCHEMA_VERSION,
        "target": request.target,
        "device": device,
        "devices": count,
        "device_memory": machine.memory,
        "config_file": name,
        "config": to_dict(config),
        "config_hash": config_hash(config),
        "clients": config.clients.number,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": environment.commit(),
        "versions": environment.versions(),
        "compiled_on": {"processor": provenance.processor(), "cores": provenance.cores()},
        "compiler": list(plugins.wanted(machine)),
        "total_s": round(time.monotonic() - begun, 1),
        "clients_axis": parts.method.clients_axis,
        "train": parts.method.train,
        "memory_line": said,
        "refused": refused,
        "programs": rows,
    }


_UNKNOWN = dict.fromkeys(
    ("peak", "arguments", "outputs", "aliased", "temporaries", "code", "host", "operations", "moved", "cycles")
)


def _compiled(lower: Any, memory: int) -> dict[str, Any]:
    """What the compiler says of one program."""
    import jax

    from prfl_jax.compile_check.hlo import Program
    from prfl_jax.engine.chunk_program import Taken

    begun = time.monotonic()
    lowered = lower()
    lowering_s, begun = time.monotonic() - begun, time.monotonic()
    times = {"lowering_s": round(lowering_s, 1)}
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        times["compiling_s"] = round(time.monotonic() - begun, 1)
        return {**times, "error": first_line(error)[:300], "fits": False, **_UNKNOWN}
    times["compiling_s"] = round(time.monotonic() - begun, 1)
    taken, cost = Taken.by(compiled), Program(compiled.as_text()).cost()
    return {
        **times, "error": None, "fits": taken.peak <= memory, "peak": taken.peak, **taken._asdict(),
        **dataclasses.asdict(cost),
    }  # fmt: skip


def _table(report: dict[str, Any]) -> str:
    """The table, as Markdown, and a line for what does not compile or fit."""
    count = report["devices"]
    lines = [
        f"{report['config_file']} with {report['clients']:,} clients on {count} x {report['device']} "
        f"({bytes_text(report['device_memory'])} each), clients by `{report['clients_axis']}`, compiled, not run",
        "",
        "| program | compiling, s | peak | arguments | temporaries | operations | bytes moved | cycles |",
        "|---|---|---|---|---|---|---|---|",
    ]
    troubles = []
    for row in report["programs"]:
        what = row["program"]
        if row["error"]:
            lines.append(f"| {what} | {row['compiling_s']} | does not compile | | | | | |")
            troubles.append(f"{report['target']}: {what} does not compile: {row['error']}")
            continue
        cells = [bytes_text(row[key]) for key in ("peak", "arguments", "temporaries")]
        cells += [f"{row['operations']:,}", bytes_text(row["moved"]), f"{row['cycles']:,}" if row["cycles"] else ""]
        lines.append(f"| {what} | {row['compiling_s']} | {' | '.join(cells)} |")
        if not row["fits"]:
            troubles.append(
                f"{report['target']}: {what} needs {bytes_text(row['peak'])} on each device, which has "
                f"{bytes_text(report['device_memory'])}"
            )
    lines += ["", report["memory_line"] or f"a run would be refused: {report['refused']}", *troubles]
    return "\n".join(lines)
