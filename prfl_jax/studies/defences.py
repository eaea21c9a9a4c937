"""Compares defences with and without malicious clients that flip the signs of updates (`scripts/defences.py`)."""

from __future__ import annotations

import dataclasses
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prfl_jax import strategies
from prfl_jax.config.canonical import assign
from prfl_jax.config.defaults import default_config
from prfl_jax.startup import before_jax
from prfl_jax.studies.columns import Column
from prfl_jax.studies.runs import Runner, reports_of, wanted
from prfl_jax.system.errors import UserError
from prfl_jax.system.files import check_folder, write_text
from prfl_jax.system.signals import Interrupted, InterruptGuard, leave

MALICIOUS = 2  # of ten, drawn by seed
CLIP_NORM = 0.5
# Honest updates are shorter from the third round on; attacked ones, four times as long, are not.
DEFENCES: dict[str, dict[str, Any]] = {
    "mean": {},
    "clip": {"aggregation.clip_norm": CLIP_NORM},
    **{name: {"aggregation.name": name} for name in ("median", "trimmed_mean", "krum", "multi_krum")},
}
TITLES = {
    "mean": "plain averaging",
    "clip": f"norm clipping at {CLIP_NORM:g}",
    "median": "coordinate median",
    "trimmed_mean": "trimmed mean",
    "krum": "Krum",
    "multi_krum": "multi-Krum",
}
ATTACKS: dict[str, dict[str, Any]] = {
    "nobody": {},
    "flip1": {"attack.name": "sign_flip", "attack.number": MALICIOUS, "attack.scale": 1.0},
    "flip4": {"attack.name": "sign_flip", "attack.number": MALICIOUS, "attack.scale": 4.0},
}
ATTACK_TITLES = {
    "nobody": "no attack",
    "flip1": "2 of 10 flip signs",
    "flip4": "2 of 10 flip signs, four times as long",
}
ROUNDS = {"fedavg": 100, "prfl": 250}


@dataclasses.dataclass(frozen=True)
class Attacked(Column):
    """A method under one attack; what `presets.py` calls methods are defences here.

    Attributes:
      small: a setting that takes seconds and means nothing.
    """

    strategy: str = "fedavg"
    attack: str = "nobody"
    small: bool = False

    def config(self, method: str, seed: int) -> Any:
        c = strategies.use(default_config(), self.strategy)
        c.seed, c.rounds, c.eval_every_s = seed, ROUNDS[self.strategy], 1e6
        c.data.name, c.data.partition, c.data.test_limit, c.data.holdout_max = "mnist_by_writer", "writer", 2000, 400
        c.model.width, c.model.classes, c.model.size_mb = 0.5, 62, 26.5
        c.local.lr, c.window.dt_s = 0.5, 7.0
        c.density.interval, c.density.patience, c.density.min_delta = 10, 2, 0.005
        c.aggregation.byzantine = MALICIOUS
        if self.strategy == "prfl":
            c.submodel.importance = "weight"  # malicious clients control the sums of squared updates
        if self.small:
            c.rounds, c.data.name, c.data.partition, c.data.train_limit = 4, "mnist_embedded", "iid", 600
            c.model.width, c.local.steps, c.data.test_limit = 0.05, 1, 100
        for key, value in {**ATTACKS[self.attack], **DEFENCES[method]}.items():
            assign(c, key, value)
        return c


def columns(names: Sequence[str], small: bool = False) -> list[Attacked]:
    """Every attack on each of these methods (`fedavg`, `prfl`)."""
    return [
        Attacked(
            f"{strategy}_{attack}", f"{strategy}, {ATTACK_TITLES[attack]}", lambda c: None, (), "", None,
            tuple(DEFENCES), strategy=strategy, attack=attack, small=small,
        )
        for strategy in names for attack in ATTACKS
    ]  # fmt: skip


def defences(names: Sequence[str], seeds: int, out: Path, work: Path, size: str = "full") -> int:
    """Runs what is missing, then writes `defences.md`; returns the exit code.

    Raises:
      UserError: a flag's value, or a data set that is not there.
    """
    for name in names:
        if name not in ROUNDS:
            raise UserError(f"--methods={name}: allowed are {', '.join(ROUNDS)}")
    if seeds < 1:
        raise UserError(f"--seeds={seeds}: allowed is a whole number of at least 1")
    if size not in ("full", "small"):
        raise UserError(f"--size={size}: allowed are full, small")
    check_folder("--out", out)
    check_folder("--work", work)
    before_jax()
    under = columns(names, size == "small")
    with InterruptGuard(shlex.join([sys.executable, *sys.argv])) as guard:
        try:
            Runner(out, work, None, guard).run(wanted(under, lambda column: column.methods, seeds))
        except Interrupted as signal:
            print(f"\n{signal}: what was done is saved; to resume: {guard.again}", file=sys.stderr)
            leave(128 + signal.signum)
    text = table(names, reports_of(under, out))
    write_text(out / "defences.md", text)
    print(text)
    return 0


def table(names: Sequence[str], reports: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]) -> str:
    """Test accuracy at the end, mean of the seeds and each of them; and what a defence costs without an attack."""
    lines = []
    for name in names:
        heads = [ATTACK_TITLES[attack] for attack in ATTACKS]
        lines += [
            f"**{name}**, {ROUNDS[name]} windows",
            "",
            f"| | {' | '.join(heads)} | cost without an attack, points |",
        ]
        lines.append("|---|" + "---|" * (len(heads) + 1))
        base = _accuracies(reports.get((f"{name}_nobody", "mean"), []))
        for defence, title in TITLES.items():
            cells, cost = [], "-"
            for attack in ATTACKS:
                found = _accuracies(reports.get((f"{name}_{attack}", defence), []))
                cells.append(_cell(found))
                if attack == "nobody" and defence != "mean" and found and len(found) == len(base):
                    own = [100 * (b - a) for a, b in zip(found, base, strict=True) if a is not None and b is not None]
                    cost = f"{statistics.mean(own):.1f} ({min(own):.1f} to {max(own):.1f})" if own else "-"
            lines.append(f"| {title} | {' | '.join(cells)} | {cost} |")
        lines.append("")
    return "\n".join(lines)


def _accuracies(reports: Sequence[Mapping[str, Any]]) -> list[float | None]:
    return [report["final"]["accuracy"] for report in reports]


def _cell(found: Sequence[float | None]) -> str:
    if not found:
        return "-"
    each = " / ".join("not finite" if value is None else f"{100 * value:.1f}" for value in found)
    known = [value for value in found if value is not None]
    if len(known) < len(found):
        return each
    if len(found) == 1:
        return f"{each} %"
    return f"{100 * statistics.mean(known):.1f} % ({each})"
