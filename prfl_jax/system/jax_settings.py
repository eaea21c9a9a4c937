"""Fixes the JAX settings that change numbers during a run, and lists all others that might, for the report.

`fixed` is entered around all of the package's own work, in every thread that does some: what it fixes is then
what this package means it to be, whether the environment, `jax.config.update` or a context manager says otherwise.
All other settings are the user's. Those that might change numbers are in the report (`settings`), and a run is
resumed, or made by several processes, only where they are equal.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import flax
import jax
import numpy as np

from prfl_jax.system import accelerator
from prfl_jax.system.errors import UserError

GENERATOR = "threefry2x32"

# What numbers, dtypes and shapes follow from; and guards that stop what is meant here.
FIXED: dict[str, Any] = {
    "default_prng_impl": GENERATOR,
    "threefry_partitionable": True,
    "enable_x64": False,
    "numpy_dtype_promotion": "standard",
    "numpy_rank_promotion": "allow",
    "disable_jit": False,
    "no_execution": False,
    "transfer_guard": "allow",
    "array_garbage_collection_guard": "allow",
    "debug_key_reuse": False,  # the key of a round is given to several collections, which Flax distinguishes
}

# Cannot change a number: where programs are kept, what is said or checked, how processes find one another, and which
# devices there are (`device` of the report says which were used; a run may be resumed with another number of them).
_HARMLESS = re.compile(
    r"jax_(compilation_cache|persistent_cache|raise_persistent_cache|explain_cache|enable_compilation_cache).*"
    r"|jax_(log|debug_log|distributed_debug|dump_ir|include_|traceback|tracer_error|pprint|hlo_source|source_url).*"
    r"|jax_(captured_constants|compiler_detailed_logging|send_traceback|debug_leaked|check_tracer_leaks).*"
    r"|jax_(enable_checks|debug_nans|debug_infs|debug_key_reuse|transfer_guard|array_garbage|thread_guard).*"
    r"|jax_(cpu_get_\w+_timeout|cross_host|share_binary|enable_preemption|enable_recoverability|check_proxy).*"
    r"|jax_(platforms|platform_name|xla_backend|\w+_visible_devices|num_cpu_devices|cpu_enable_async_dispatch)"
    r"|flax_(profile|filter_frames|max_repr_depth|use_orbax_checkpointing)"
)
_HARMLESS_FLAGS = re.compile(r"--xla_(force_host_platform_device_count|dump_.*|hlo_profile|gpu_cuda_data_dir)")
_VARIABLES = ("LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "TF_ENABLE_ONEDNN_OPTS", "TF_CUDNN_DETERMINISTIC")
_UNSET = "not set"


@contextlib.contextmanager
def fixed() -> Iterator[None]:
    """While inside, in this thread, JAX works by `FIXED`.

    Raises:
      UserError: JAX finds no device of the kind that the user's settings ask for.
    """
    with contextlib.ExitStack() as stack:
        for name, value in FIXED.items():
            stack.enter_context(getattr(jax, name)(value))
        _check_backend()
        yield


def _check_backend() -> None:
    try:
        accelerator.devices()
    except RuntimeError as error:
        said = (str(error).strip().splitlines() or ["no device"])[0][:300]
        asked = jax.config.values["jax_platforms"]
        name = f"JAX_PLATFORMS={asked}: " if asked else ""
        allowed = "allowed is a kind of device that is there, such as cpu"
        raise UserError(f"{name}JAX cannot start ({said}); {allowed}") from None


def root_key(seed: int) -> jax.Array:
    """The key of a seed from 0 to 2^32 - 1; no setting of JAX has a part in it."""
    return key_of(np.array([0, seed], np.uint32))


def key_of(words: Any) -> jax.Array:
    """The keys that these words `[..., 2]` are, as `jax.random.key_data` gives them."""
    return jax.random.wrap_key_data(words, impl=GENERATOR)


def settings() -> dict[str, Any]:
    """Every setting outside the config that might change a number, by its name; values as JSON has them."""
    found = {**jax.config.values, **getattr(flax.config, "_values", {})}
    kept = {name: _plain(value) for name, value in found.items() if not _HARMLESS.fullmatch(name)}
    kept |= {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return dict(sorted(kept.items())) | xla_flags(os.environ.get("XLA_FLAGS", ""))


def xla_flags(text: str) -> dict[str, str]:
    """The flags of XLA_FLAGS that might change a number: name -> value, of several the last."""
    found = {name: value for name, _, value in (flag.partition("=") for flag in text.split())}
    return {name: found[name] for name in sorted(found) if not _HARMLESS_FLAGS.fullmatch(name)}


def _plain(value: Any) -> Any:
    value = value.value if isinstance(value, enum.Enum) else value
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def difference(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first setting that differs: (name, theirs, mine).

    Settings that only one version of JAX has say nothing; flags and variables that one side lacks do.
    """
    for name in sorted({*theirs, *mine}):
        of_a_version = not name.startswith("--") and name not in _VARIABLES
        if of_a_version and not (name in theirs and name in mine):
            continue
        before, now = theirs.get(name, _UNSET), mine.get(name, _UNSET)
        if before != now:
            return name, before, now
    return None


def check_settings(saved: Mapping[str, Any]) -> None:
    """Raises UserError where a run that began with `saved` would be resumed under another setting."""
    found = difference(saved, settings())
    if found is not None:
        name, before, now = found
        raise UserError(
            f"{name}: this --workdir began with {before!r}, now it is {now!r}, which may change numbers; "
            "set it as it was, or use a new --workdir"
        )
