"""`--dry_run`: prints what a run would need, from shapes and the clock alone; trains nothing."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from prfl_jax import data as data_room
from prfl_jax.aggregate import find_aggregation
from prfl_jax.clock import after, rule_from_config
from prfl_jax.data.device import to_device
from prfl_jax.data.targets import check_targets
from prfl_jax.density import OF_SERVER, evidence_needed, find_density
from prfl_jax.engine.chunk_program import Taken, lower_chunk
from prfl_jax.engine.memory import sample_bytes, state_bytes
from prfl_jax.engine.method import ResolvedMethod, check_compared, check_fits, make_engine, place, resolve, slots
from prfl_jax.models import STATES
from prfl_jax.report.names import bytes_text, duration_text
from prfl_jax.runtime.clock_only import run_clock
from prfl_jax.runtime.first_stage import BATCHES, FirstStage, first_stage
from prfl_jax.runtime.round_costs import round_costs
from prfl_jax.submodel import find_submodel, pruning_settings
from prfl_jax.submodel.prunefl import InitialPruning
from prfl_jax.system import accelerator
from prfl_jax.system.errors import UserError
from prfl_jax.system.jax_settings import fixed, root_key
from prfl_jax.system.notices import warn_once
from prfl_jax.transport.mask_costs import gradient_bytes

# FLOP/s of training that host time is guessed with; a GPU's is a cautious guess, nothing was measured there
ASSUMED_FLOP_S = {"cpu": 1.0e11, "gpu": 1.0e13, "tpu": 1.0e13}
_CLOCK_WINDOWS = 400
_ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run would need.

    Attributes:
      method: models, sizes and engine settings, as the run would have them.
      source: of the data, one line.
      notes: what looks strange in the data, a line each.
      clients: training samples of each client.
      holdout, test: held-out and test samples.
      first_stage: of the server's mask, before window 1.
      windows, simulated_s, updates, bytes_up, bytes_down: of the whole run after a first stage of that length, whose
        seconds do not count, scaled from a clock without recovery; if the horizon lies within it, of a run without it.
      faults: by kind, scaled likewise; empty where there can be none.
      flop: of training and evaluating.
      state: bytes on the device by part.
      samples: bytes of the samples on the device.
      memory: what is needed and what there is, in words.
      refused: why a run would be refused for its memory; None where it would not.
    """

    method: ResolvedMethod
    source: str
    notes: tuple[str, ...]
    clients: tuple[int, ...]
    holdout: int
    test: int
    first_stage: FirstStage
    windows: int
    simulated_s: float
    updates: float
    bytes_up: float
    bytes_down: float
    faults: dict[str, float]
    flop: float
    state: dict[str, int]
    samples: int
    memory: str
    refused: UserError | None = None


@fixed()
def estimate(config: Any, compiled: bool = False) -> Estimate:
    """Runs the clock alone for up to 400 windows with densities from round times (no client recovers).

    Args:
      compiled: compile the chunk, to know what memory it takes itself; else that is guessed.

    Raises:
      UserError: the config is not possible, or its data cannot be had.
    """
    dataset = data_room.load(config.data, config.seed)
    try:
        split = data_room.split(dataset, config.data, config.clients.number, config.local.batch_size, config.seed)
        evaluated = (len(split.test), len(split.holdout))
        check_targets(config.task.name, dataset)
        method = resolve(config, dataset.sample, dataset.num_classes, evaluated)
    except UserError:
        for note in dataset.notes:  # which may be the reason; a table is not come to
            warn_once(f"data.name={dataset.name}: {note}")
        raise
    clients = tuple(len(c) for c in split.clients)

    # where clients are alike a window is an arrival of many at one moment: several rounds of each client, then
    turns = min(_ROUNDS * len(clients), 10 * _CLOCK_WINDOWS) if rule_from_config(config).arrivals else 0
    windows = min(max(_CLOCK_WINDOWS, turns), config.rounds)
    clock = run_clock(config, windows, method.size)
    stage, total, horizon_s = first_stage(config, method.size), config.rounds, config.horizon_s
    if horizon_s is not None and not _within(stage, horizon_s):
        horizon_s -= stage.seconds
    if clock["windows"] < windows:  # all clients leave
        total = windows = clock["windows"]
    # the first window may wait for all; the others are alike
    first, rest = clock["first_window_s"], clock["simulated_s"] - clock["first_window_s"]
    if horizon_s is not None:
        if horizon_s < first:
            total = 0
        elif rest > 0:
            total = min(total, math.floor(1 + (horizon_s - first) / (rest / (windows - 1))))
        elif windows == 1:
            total = 1
    scale = total / windows
    updates = sum(clock["updates"]) * scale
    simulated_s = clock["simulated_s"] * scale
    if total > windows:
        simulated_s = first + rest * (total - 1) / max(windows - 1, 1)
    if horizon_s is not None:
        simulated_s = min(simulated_s, horizon_s)

    flop_sample = method.model.flop.total(config.local.batch_size)
    flop = 3 * flop_sample * config.local.steps * config.local.batch_size * updates
    server_models = 1 if find_aggregation(config.aggregation.name).one_model(config.aggregation) else 2
    evaluations = simulated_s / config.eval_every_s * server_models
    intervals = total / config.density.interval
    needed = evidence_needed(config.density.name, config.stop_early)
    use = STATES.find(config.model.state)
    each = len(clients) if use.personal else 1  # models that make a score of the server
    anew = sum(clients) if use.recomputed else 0  # samples from which each model's statistics are recomputed
    held_out = each * bool(needed & OF_SERVER) + len(clients) * find_density(config.density.name).recovers
    flop += flop_sample * each * (len(split.test) + anew) * evaluations
    flop += flop_sample * (len(split.holdout) + anew) * intervals * held_out
    rounds = stage.rounds_until(config.horizon_s)
    flop += flop_sample * BATCHES * config.local.batch_size * (3 * rounds + rounds / InitialPruning.look_every)
    placement = place(config)
    engine = make_engine(config, method, placement)
    shapes = jax.eval_shape(lambda: engine.init_state(root_key(0)))
    samples = sample_bytes(dataset, split, config.model.state)
    refused = None
    try:
        memory = check_fits(config, method, placement, shapes, samples)
        if compiled:
            data = jax.eval_shape(lambda: to_device(dataset, split))
            training = Taken.by(lower_chunk(engine, data, slots(config)).compile()).beside
            memory = check_fits(config, method, placement, shapes, samples, training)
    except UserError as why:
        memory, refused = "does not fit", why
    return Estimate(
        method=method,
        source=dataset.source,
        notes=dataset.notes,
        clients=clients,
        holdout=len(split.holdout),
        test=len(split.test),
        first_stage=stage,
        windows=total,
        simulated_s=simulated_s,
        updates=updates,
        bytes_up=clock["bytes_up"] * scale + _gradients_up(config, method, total, updates),
        bytes_down=clock["bytes_down"] * scale,
        faults={kind: sum(counts) * scale for kind, counts in clock.get("faults", {}).items()},
        flop=flop,
        state=state_bytes(shapes),
        samples=samples,
        memory=memory,
        refused=refused,
    )


def _within(stage: FirstStage, horizon_s: float | None) -> bool:
    """Whether a run may end within its first stage."""
    return horizon_s is not None and bool(stage.rounds) and not after(horizon_s, stage.seconds)


def _gradients_up(config: Any, method: ResolvedMethod, windows: int, updates: float) -> float:
    """Bytes of the gradients that clients upload for the server's mask, each time before it changes."""
    times = find_submodel(config.submodel).gradient_uploads(windows, pruning_settings(config))
    return times * updates / windows * gradient_bytes(method.size) if times else 0.0


def print_needs(config: Any) -> None:
    """Prints what a run would need.

    Raises:
      UserError: as `estimate`, or, after the print, a run would be refused for its memory.
    """
    found = estimate(config, compiled=True)
    print(describe(config, found))
    check_compared(config, found.method.model)
    if found.refused is not None:
        raise found.refused


def describe(config: Any, found: Estimate | None = None) -> str:
    """Text of `--dry_run`: clients, parameters, memory, bytes and a guess of host time.

    Args:
      found: `estimate(config)`; None: it is computed.

    Raises:
      UserError: as `estimate`.
    """
    e = found or estimate(config)
    size, memory = e.method.size, sum(e.state.values())
    backend = accelerator.backend()
    speed = ASSUMED_FLOP_S.get(backend, 1e12)
    guess = f"about {duration_text(e.flop / speed)} at {speed:.0e} FLOP/s assumed for this {backend}"
    unless = " if nobody recovers" if find_density(config.density.name).recovers else ""
    if find_submodel(config.submodel).server_masks:
        unless = " if nothing is pruned"
    stage, within = e.first_stage, _within(e.first_stage, config.horizon_s)
    about = "at most" if within else "about"
    later = " after the first stage" if stage.rounds and not within else ""
    if later and config.horizon_s is not None and e.windows < config.rounds:
        unless += " and the first stage has all its rounds"
    model = e.method.model
    fixed = model.num_fixed()
    steps = round_costs(config, size, np.full(len(e.clients), 100)).steps
    prunable = min(size.prunable, model.num_parameters())  # a state that is masked too is no parameter
    rows = [
        ("strategy, seed", f"{config.strategy}, {config.seed}"),
        ("data", f"{e.source}; {sum(e.clients):,} training samples, {e.test:,} test samples"),
        *(("warning", f"data.name={config.data.name}: {note}") for note in e.notes),
        *(("warning", warning) for warning in e.method.model.warnings),
        ("clients", f"{len(e.clients)}, with {min(e.clients):,} to {max(e.clients):,} samples"),
        ("held out", f"{e.holdout:,} samples for early stopping"),
        (
            "parameters",
            f"{model.num_parameters():,} ({model.name}), {prunable:,} of them prunable",
        ),
        *([("fixed values", f"{fixed:,}, drawn from the seed everywhere, never sent")] if fixed else []),
        *([("narrower networks", _shares(e.method.shares))] if e.method.shares else []),
        ("model for the clock", bytes_text(size.total * size.bytes_per_value)),
        *([("first stage", stage.text + "; the run may end within it" * within)] if stage.rounds else []),
        ("windows", f"{'at most ' * within}{e.windows:,}, {about} {e.simulated_s:,.0f} simulated s{later}{unless}"),
        *(
            []
            if not steps.any()
            else [("local steps", f"{min(steps)} to {max(steps)} of {config.local.steps}, by client")]
        ),
        ("client updates", f"{about} {e.updates:,.0f}{unless}"),
        ("bytes up", f"{about} {bytes_text(e.bytes_up)}{unless}"),
        ("bytes down", f"{about} {bytes_text(e.bytes_down)}{unless}"),
        *([("faults", "about " + ", ".join(f"{v:,.0f} {k}" for k, v in e.faults.items()))] if e.faults else []),
        ("memory, state", f"{bytes_text(memory)}: " + ", ".join(f"{k} {bytes_text(v)}" for k, v in e.state.items())),
        ("memory, samples", bytes_text(e.samples)),
        ("memory, all", e.memory.removeprefix("memory: ")),
        ("checkpoint", f"{bytes_text(memory)} before compression, {config.checkpoint.keep} are kept"),
        ("host time", f"{guess}, evaluation{' and first stage' if stage.rounds else ''} included{unless}"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {text}" for name, text in rows]
    return "\n".join([*lines, "Nothing was trained."])


def _shares(shares: tuple[float, ...]) -> str:
    """In which widths sub-models are trained, in words."""
    return f"sub-models are trained with {', '.join(f'{share:g}' for share in shares)} or all of the channels"
