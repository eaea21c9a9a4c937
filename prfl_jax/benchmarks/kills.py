"""Kills a small run at random moments, resumes it, and compares its outcome with that of an uninterrupted run.

The report (without what describes the host), every record and the final model must agree to the bit.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from prfl_jax.report import comparable, read_metrics
from prfl_jax.system import provenance
from prfl_jax.system.files import output_file, write_text

ROOT = Path(__file__).resolve().parent.parent.parent
# A run of seconds that is writing a checkpoint nearly all the time.
SMALL = {
    "rounds": 40,
    "compare": (),
    "model.width": 0.1,
    "data.train_limit": 1000,
    "data.test_limit": 200,
    "local.steps": 2,
    "density.interval": 6,
    "density.patience": 1,
    "eval_every_s": 50.0,
    "engine.chunk_windows": 2,
    "checkpoint.every_s": 0.1,
}
MOST_IN_A_RUN = 3  # most kills of one run
LATEST_S = 300.0  # a process that takes longer hangs
_SPREAD_S = 0.01  # longest time from the beginning of a checkpoint to a kill
_WRITING = "*.orbax-checkpoint-tmp*"
_POLL_S = 0.0005


@dataclasses.dataclass(frozen=True)
class Request:
    """The flags of scripts/kill_test.py."""

    out: str | None
    kills: int = 50
    terminations: int = 20
    seed: int = 0


def command(folder: Path, **more: object) -> list[str]:
    """Returns the command line of the small run, with `more` overrides."""
    overrides = [f"--config.{key}={value}" for key, value in {**SMALL, **more}.items()]
    config = f"--config={ROOT / 'configs' / 'quickstart.py'}"
    return [sys.executable, str(ROOT / "scripts" / "train.py"), config, f"--workdir={folder}", *overrides]


def _environment() -> dict[str, str]:
    """Returns an environment whose PYTHONPATH begins with this clone, even if another one is installed."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def state(folder: Path) -> str:
    """Returns what a run was doing when it was killed, judged by its folder."""
    metrics, steps = folder / "metrics.jsonl", folder / "checkpoints"
    if not metrics.exists():
        return "starting"
    if any(steps.glob(_WRITING)):
        return "writing a checkpoint"
    if b'"kind":"end"' in metrics.read_bytes()[-400:]:
        return "writing results"
    if not any(path.name.isdigit() for path in steps.glob("*")):
        return "before the first checkpoint"
    return "after a checkpoint"


def outcome(folder: Path) -> dict[str, Any]:
    """Returns the report, records and final models of a run, which must not depend on kills."""
    records = [{k: v for k, v in record.items() if k != "host_s"} for record in read_metrics(folder / "metrics.jsonl")]
    models = {}
    for path in sorted(folder.glob("final_model*.npz")):
        with np.load(path) as file:
            models[path.name] = {key: file[key].tobytes() for key in file.files}
    report = comparable(json.loads((folder / "report.json").read_text()))
    return {"report": report, "records": records, "model": models}


def strike(
    process: subprocess.Popen[str], folder: Path, how: signal.Signals, after_s: float, writing_s: float | None
) -> str:
    """Sends the signal `how` to a run.

    Args:
      after_s: s from the start of the process to the signal.
      writing_s: if not None, the signal waits after `after_s` until a checkpoint is being written, and so many s more.

    Returns:
      The state of the run at the signal; empty if the run had already ended.
    """
    end = time.monotonic() + after_s
    while process.poll() is None and time.monotonic() < end:
        time.sleep(max(0.0, min(_POLL_S * 4, end - time.monotonic())))
    if writing_s is not None:
        while process.poll() is None and not any((folder / "checkpoints").glob(_WRITING)):
            time.sleep(_POLL_S)
        time.sleep(writing_s)
    if process.poll() is not None:
        return ""
    process.send_signal(how)
    if how == signal.SIGTERM:
        return state(folder)
    process.wait()
    return state(folder)


def torn_run(
    folder: Path, how: signal.Signals, kills: int, whole_s: float, draw: random.Random, **more: object
) -> dict[str, Any]:
    """Makes one run that is killed `kills` times, or less if it ends before, and resumed until it ends.

    Args:
      whole_s: s of an uninterrupted run; `after_s` of each kill is drawn below it.

    Returns:
      `kills`, the state at each signal, and `problems`, a line each.
    """
    call = command(folder, **more)
    struck: list[str] = []
    problems: list[str] = []
    while True:
        process = subprocess.Popen(
            call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=_environment()
        )
        where = ""
        if len(struck) < kills:
            writing_s = draw.uniform(0, _SPREAD_S) if draw.random() < 0.5 else None
            where = strike(process, folder, how, draw.uniform(0, whole_s), writing_s)
        try:
            _, said = process.communicate(timeout=LATEST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return {"kills": struck, "problems": [*problems, f"not finished after {LATEST_S:g} s"]}
        if where:
            struck.append(where)
        if "Traceback" in said:
            problems.append(said[-2000:])
        # SIGTERM ends a process that has not installed its handler yet
        allowed = (0,) if not where else (-how, 0) if how == signal.SIGKILL else (128 + how, -how, 0)
        if process.returncode not in allowed:
            problems.append(f"exit code {process.returncode}: {said[-2000:]}")
        if problems or process.returncode == 0:
            return {"kills": struck, "problems": problems}


def _many(
    base: Path, how: signal.Signals, kills: int, whole_s: float, wanted: dict[str, Any], draw: random.Random
) -> dict[str, Any]:
    """Makes runs until `kills` signals have been sent in all; compares the outcome of each run with `wanted`."""
    runs: list[dict[str, Any]] = []
    done = 0
    while done < kills:
        folder = base / f"{how.name}_{len(runs)}"
        run = torn_run(folder, how, min(draw.randint(1, MOST_IN_A_RUN), kills - done), whole_s, draw)
        if not run["problems"]:
            found = outcome(folder)
            run["problems"] = [f"different {part}" for part, value in wanted.items() if found[part] != value]
        done += len(run["kills"])
        runs.append(run)
        print(f"{how.name}: {done} of {kills}, {run['problems'] or 'same outcome'}", file=sys.stderr, flush=True)
    return {
        "signals": done,
        "runs": len(runs),
        "runs_with_the_same_end": sum(not run["problems"] for run in runs),
        "moments": dict(sorted(Counter(where for run in runs for where in run["kills"]).items())),
        "each": runs,
    }


def run_kills(request: Request) -> int:
    """Runs the kill test and writes its JSON file; returns 0 if every run ended like the uninterrupted one, else 1."""
    out = output_file("--out", request.out, "results/kills/FILE.json")
    draw = random.Random(request.seed)
    with tempfile.TemporaryDirectory(prefix="prfl_kills_") as temporary:
        base = Path(temporary)
        alone(base / "first")  # fills the cache of compiled programs
        whole_s = alone(base / "whole")
        wanted = outcome(base / "whole")
        found = {
            how.name: _many(base, how, number, whole_s, wanted, draw)
            for how, number in ((signal.SIGKILL, request.kills), (signal.SIGTERM, request.terminations))
            if number
        }
    same = all(part["runs"] == part["runs_with_the_same_end"] for part in found.values())
    content = {
        "schema_version": 1,
        "outcome": "every run ended with the same report, records and model" if same else "DIFFERENT",
        "command": shlex.join(["python", *sys.argv]),
        "run": shlex.join(["python", "scripts/train.py", *command(Path("FOLDER"))[2:]]).replace(f"{ROOT}/", ""),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": provenance.commit(),
        "versions": provenance.versions(("jax", "jaxlib", "orbax-checkpoint", "numpy")),
        "machine": provenance.machine(),
        "seed": request.seed,
        "whole_s": whole_s,
        **found,
    }
    write_text(out, json.dumps(content, indent=1) + "\n")
    print(f"{content['outcome']}: {out}")
    return 0 if same else 1


def alone(folder: Path, **more: object) -> float:
    """Makes an uninterrupted run; returns its duration in s."""
    begin = time.monotonic()
    subprocess.run(command(folder, **more), check=True, capture_output=True, cwd=ROOT, env=_environment())
    return time.monotonic() - begin
