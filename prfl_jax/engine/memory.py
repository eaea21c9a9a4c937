"""Memory that a run needs, counted from shapes before any array is made, and whether it fits."""

from __future__ import annotations

import jax

from prfl_jax.data import Dataset, Split
from prfl_jax.engine.placement import Placement
from prfl_jax.engine.state import State
from prfl_jax.models import STATES
from prfl_jax.report.names import bytes_text
from prfl_jax.system import accelerator
from prfl_jax.system.errors import UserError
from prfl_jax.system.host_memory import host_available, resident

STACKS = ("models in flight", "trained ahead", "buffer", "kept by clients", "sent beside models")  # by client or slot
WRITING = 1.2  # of a checkpoint's size: what Orbax holds besides while it writes it (0.9 to 1.3 of it were measured)
ADVICE = "a narrower model.width, engine.store=bfloat16, or more engine.devices"


def state_bytes(state: State) -> dict[str, int]:
    """Bytes of the device state by part, from its shapes; parts without any are left out."""
    parts = {
        "server model": state.params,
        "models in flight": state.sent,
        "trained ahead": state.trained,
        "buffer": state.buffer,
        "running sum": state.total,
        "masks": (state.sent_bits, state.buffer_bits, state.levels),
        "importance": state.importance,
        "fixed variables": state.fixed,
        "server optimiser": state.optimizer,
        "kept by clients": state.clients,
        "beside the server model": state.beside,
        "sent beside models": state.beside_sent,
    }
    counts = {
        name: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(part)) for name, part in parts.items()
    }
    return {name: count for name, count in counts.items() if count}


def sample_bytes(dataset: Dataset, split: Split, state: str = "average") -> int:
    """Bytes of the clients' and the test samples, with their targets if each step has one.

    Args:
      state: `model.state`; where it is recomputed, the clients' samples are there twice.
    """
    each = dataset.x_train[:1].nbytes + (dataset.y_train[:1].nbytes if dataset.sequence else 0)
    copies = 2 if STATES.find(state).recomputed else 1
    return each * (copies * sum(len(client) for client in split.clients) + len(split.test))


def _host_bytes() -> int | None:
    """Bytes available on the host; None where programs are compiled for another machine."""
    return None if accelerator.elsewhere() else host_available()


def check_memory(
    state: State,
    samples: int,
    placement: Placement,
    key: str = "clients.number",
    *,
    experiments: int = 1,
    training: int = 0,
    on_host: bool = False,
    looks_at_all: bool = False,
) -> str:
    """One line about a run's memory.

    Args:
      state: arrays or shapes, as made for `placement`.
      samples: bytes of the samples, of which each device has a copy.
      key: of the config that gives the number of slots.
      experiments: how many such states a process has (`batched_runs.py`); a chunk stacks them, so each exists twice.
      training: bytes that a chunk takes on each device beside all this, as its compiler says or at a guess.
      on_host: models stacked over clients are in the host's memory.
      looks_at_all: an aggregation is given all models at once, in float32, on each device, and orders them.

    Raises:
      UserError: it would not fit; says what it is made of and what to change.
    """
    one = state_bytes(state)
    saved = sum(one.values()) - one.get("trained ahead", 0)
    saving = round((experiments + WRITING) * saved)  # a copy of each; they take turns in writing
    parts = {name: count * (1 if experiments == 1 else 2 * experiments) for name, count in one.items()}
    if looks_at_all:
        slots = placement.slots * placement.count
        parts["all models at once"] = 2 * experiments * slots * one.get("server model", 0)
    samples *= experiments
    if training:
        parts["training"] = training * placement.count
    whole, stacked = sum(parts.values()), sum(parts.get(name, 0) for name in STACKS)
    shared = stacked + parts.get("training", 0)
    each = whole - shared + shared // placement.count + samples  # masks, a few percent, as if each had all
    counted = {**parts, "samples": samples, "a checkpoint's copies": saving}
    made_of = ", ".join(f"{name} {bytes_text(count)}" for name, count in counted.items())
    checks = []
    if accelerator.on_cpu():  # all devices are the host
        checks.append(("this machine", each * placement.count + saving, _host_bytes()))
    else:
        if on_host:
            each -= stacked
        free = [accelerator.free_bytes(device) for device in placement.devices]
        known = [count for count in free if count is not None]
        checks.append(("each device", each, min(known) if known else None))
        if on_host:
            checks.append(("the host", stacked + saving, _host_bytes()))
        else:
            checks.append(("the host, for checkpoints", saving, _host_bytes()))
    advice = ADVICE
    if not accelerator.on_cpu() and not on_host and placement.count == experiments == 1:
        advice += ", or engine.models=host"
    for where, need, there in checks:
        if there is not None and need > there:
            raise UserError(
                f"config.{key}={placement.clients}: {where} would need {bytes_text(need)} ({made_of}), and "
                f"has {bytes_text(there)}; take fewer {key}, {advice}"
            )
    (where, need, there), *_ = checks
    so_far = resident() if accelerator.on_cpu() else None
    beside = f", beside {bytes_text(so_far)} that the process takes already" if so_far else ""
    of = f" of {bytes_text(there)}" if there else ""
    return f"memory: {bytes_text(need)} on {where}{of} ({made_of}){beside}"
