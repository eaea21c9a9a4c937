"""Which widths sub-models are trained in (`engine.widths`): as the config says, or by itself where that pays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prfl_jax.engine.width_check import same_outputs
from prfl_jax.engine.widths import Widths, check_kept, unmasked, width_of
from prfl_jax.local import LocalTask, LocalWork, find_client_state
from prfl_jax.local.entry_check import steps_by_entry
from prfl_jax.local.settings_from_config import settings_from_config
from prfl_jax.models import STATES
from prfl_jax.models.build import Model
from prfl_jax.models.channel_groups import ChannelGroups
from prfl_jax.models.channel_search import find_channels
from prfl_jax.models.narrower import narrower, scales_by_itself
from prfl_jax.submodel import Submodels, find_submodel
from prfl_jax.submodel.layout import Layout
from prfl_jax.system.errors import UserError, shown

KEY = "engine.widths"
SHARES = (0.25, 0.5, 0.75)  # and the full network
# Below so many FLOP of a full local round the widths are not taken by themselves: docs/speed.md has what was measured.
LEAST_FLOP = 1e9


def find_widths(
    config: Any,
    axis: str,
    model: Model,
    layout: Layout,
    submodels: Submodels,
    work: LocalWork,
    channels: Callable[[], ChannelGroups],
) -> Widths | None:
    """The widths of a run; None: all clients are trained at full size.

    Args:
      axis: `engine.clients` with `auto` resolved.
      channels: the channel groups of the model, found when they are asked for.

    Raises:
      UserError: the config asks for widths that cannot be had; one line.
    """
    asked, rule = config.engine.widths, find_submodel(config.submodel)
    if (
        asked == ()
        or not rule.partial
        or (asked is None and (axis != "map" or _round_flop(config, model) < LEAST_FLOP))
    ):
        return None
    try:
        if not rule.whole_channels:
            raise _No(
                f"submodel.name={config.submodel.name!r} does not take whole channels; allowed: (), or a rule that does"
            )
        task = LocalTask(model, None, layout, settings_from_config(config, work), submodels.levels)  # type: ignore[arg-type]
        groups = channels()
        _check_work(config, task, work)
        _check_leaves(config, groups, layout)
        return _widths(task, groups, asked, work, axis)
    except _No as why:
        if asked is None:
            return None
        raise UserError(f"config.{KEY}={shown(asked)}: {why}") from None


class _No(Exception):
    """Why there are no widths."""


def _round_flop(config: Any, model: Model) -> float:
    """FLOP of a local round of the full network."""
    batch = config.local.batch_size
    return 3 * model.flop.total(batch) * config.local.steps * batch


def _check_work(config: Any, task: LocalTask, work: LocalWork) -> None:
    """Refuses local work that depends on the size of the network."""
    if not work.any_width:
        raise _No(
            f"local.name={config.local.name!r} does not say any_width=True; allowed: (), or a LocalWork that does"
        )
    optimizer = task.settings.optimizer
    if optimizer is not None and not steps_by_entry(optimizer, task.settings.keeps_moments):
        raise _No(
            f"steps of local.optimizer={config.local.optimizer!r} depend on the size of the network; allowed: (), or "
            "an optimiser such as sgd or adam"
        )


def _check_leaves(config: Any, groups: ChannelGroups, layout: Layout) -> None:
    """Refuses channels whose leaves keep values that the sub-model does not have."""
    left = unmasked(groups, layout)
    if left and not STATES.find(config.model.state).recomputed:
        raise _No(
            f"{left[0]} keeps its values of removed channels with submodel.name={config.submodel.name!r} and "
            f"model.state={config.model.state!r}; allowed: ()"
        )


def _widths(
    task: LocalTask, groups: ChannelGroups, asked: tuple[float, ...] | None, work: LocalWork, axis: str
) -> Widths | None:
    """Of the shares those with other sizes than the full network and each other; None: none has.

    Raises:
      _No: the model cannot be built so.
    """
    found, before = [], (0,) * len(groups.groups)
    full = tuple(group.size for group in groups.groups)
    for share in sorted(set(asked or SHARES)):
        try:
            model = narrower(task.model, share)
        except UserError as error:
            raise _No(str(error)) from None
        try:
            width = width_of(share, model, task.layout, (groups, find_channels(model)))
        except (UserError, ValueError):
            if asked is None:  # one channel of a layer is no group
                continue
            raise _No(
                f"{task.model.name!r} with {share:g} of its channels has other groups of channels than the full "
                "network, or only one channel in one of them; allowed: (), or other shares"
            ) from None
        if any(size < less or size > most for size, less, most in zip(width.sizes, before, full, strict=True)):
            raise _No(f"{task.model.name!r} with {share:g} of its channels has {width.sizes} of {full}")
        if width.sizes not in (before, full):
            # a user's `width` may be in a scale factor too
            if not scales_by_itself(task.model) and not same_outputs(task.model, task.layout, width):
                raise _No(
                    f"{task.model.name!r} built with {share:g} of its channels has other outputs than the whole "
                    "network has with the other channels at 0; allowed: (), or a module whose width is nothing but a "
                    "number of channels"
                )
            found.append(width)
            before = width.sizes
    if not found:
        return None
    widths = Widths(groups, task.layout, tuple(found), grouped=axis != "map")
    if (state := find_client_state(work, task.settings)) is not None:
        try:
            check_kept(widths, task, state.init)
        except ValueError as error:
            raise _No(f"{task.model.name!r}: {error}; allowed: ()") from None
    return widths
