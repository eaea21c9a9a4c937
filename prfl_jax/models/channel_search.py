"""Finds a model's channel groups: as its module declares them, else in its traced programs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prfl_jax.models.build import Model, flat_paths
from prfl_jax.models.channel_classes import Classes
from prfl_jax.models.channel_groups import ChannelGroups, declared_groups, groups_of
from prfl_jax.models.channel_trace import SAMPLES, ChannelTrace
from prfl_jax.models.channel_values import Value
from prfl_jax.models.checked_module import draw
from prfl_jax.models.flop_count import BATCH
from prfl_jax.models.inputs import batch_shape
from prfl_jax.models.matmul_conv import plain_convolutions
from prfl_jax.models.variables import STATE, Params, whole
from prfl_jax.system.errors import UserError
from prfl_jax.system.jax_settings import root_key

_ALLOWED = (
    "allowed with sub-models of channels: layers that meet by kernels and elementwise operations (batch norm, no layer "
    "or group norm), or a module with `channel_groups`"
)


def find_channels(model: Model) -> ChannelGroups:
    """The channel groups of a model.

    A module declares its own by an attribute `channel_groups`, `{path: (name or None for each axis, ...)}`.

    Raises:
      UserError: channels are mixed other than by kernels, there are none, the program cannot be followed, or a
        declaration does not fit; one line.
    """
    begin = f"config.model.name: {model.name!r}"
    params = model.shapes()
    shapes = {path: tuple(leaf.shape) for path, leaf in flat_paths(params).items()}
    if model.channel_groups is not None:
        try:
            found = declared_groups(model.channel_groups, shapes)
        except ValueError as error:
            raise UserError(f"{begin} declares channel_groups that do not fit: {error}") from None
        if found.groups:
            check_channels(model, found)
    else:
        try:
            trace = _traced(model, params, shapes)
        except Exception as error:  # whatever a user's program contains
            said = (str(error).strip().splitlines() or [""])[0]
            raise UserError(
                f"{begin} has a program whose channels cannot be followed ({type(error).__name__}: {said}); {_ALLOWED}"
            ) from error
        found = groups_of(trace.classes, shapes, trace.again)
        if mixed := _mixed(trace.classes, found):
            raise UserError(f"{begin} has channels that cannot be removed: {mixed}; {_ALLOWED}")
    if not found.groups:
        raise UserError(
            f"{begin} has no channel groups: all channels are of its samples, of its outputs or the only ones of a "
            f"layer; {_ALLOWED}"
        )
    return found


def _traced(model: Model, params: Params, shapes: dict[str, tuple[int, ...]]) -> ChannelTrace:
    """The channels in a model's programs, in evaluation and in training."""
    sample = batch_shape(model.sample, BATCH)
    features = (sample.shape[-1],) if jnp.issubdtype(sample.dtype, jnp.floating) else ()
    trace = ChannelTrace({**shapes, SAMPLES: features})
    tree, fixed = jax.tree.structure(params), jax.eval_shape(lambda: model.fixed(root_key(0)))
    for train in (False, True):

        def forward(leaves: list[Any], fixed: Any, x: Any, train: bool = train) -> jax.Array:
            key = root_key(0) if train else None
            return model.apply(whole(jax.tree.unflatten(tree, leaves), fixed), x, train, key)

        with plain_convolutions():
            closed = jax.make_jaxpr(forward)(jax.tree.leaves(params), fixed, sample)
        trace.run(closed, [Value(tuple(leaf.shape)) for leaf in jax.tree.leaves(fixed)], sample.shape)
    return trace


def _mixed(classes: Classes, found: ChannelGroups) -> str:
    """What mixes channels that could be removed else, in words; empty if nothing does."""
    for nodes, operation in classes.mixed:
        for place in np.unique(classes.axis_of(nodes)).tolist():
            path, axis = classes.axes[place]
            channels = found.axes.get(path, (None,))[axis]
            here = nodes[(nodes >= classes.starts[place]) & (nodes < classes.starts[place + 1])]
            if channels is not None and (channels[here - classes.starts[place]] >= 0).any():
                return f"{operation} reads those of {path} at once"
    return ""


def check_channels(model: Model, groups: ChannelGroups, seed: int = 0) -> None:
    """Checks by numbers that nothing that is left reads a removed channel.

    Some channels of each group are removed, as in a sub-model. Then the kernels that make them, along their outputs,
    and the state get other numbers there, which must change no output in evaluation or in training.

    Raises:
      UserError: an output changes; one line.
    """
    rng = np.random.default_rng(seed)
    keep = np.zeros(groups.size, bool)
    for group in groups.groups:
        kept = rng.permutation(group.size)[: rng.integers(1, group.size)]
        keep[group.first + kept] = True
    params, fixed = jax.jit(lambda key: (model.init(key), model.fixed(key)))(root_key(seed))
    outputs = {place for group in groups.groups for place in group.outputs}
    masks, leaves = groups.masks(keep), flat_paths(params)
    trees: tuple[list[Any], list[Any]] = ([], [])
    for path, leaf in leaves.items():
        axes = groups.axes[path]
        of_state = path.startswith(f"{STATE}/")
        reads = [None if of_state or (path, axis) in outputs else own for axis, own in enumerate(axes)]
        left = ChannelGroups(groups.groups, {path: tuple(reads)}).masks(keep)[path]
        drawn = np.asarray(leaf) + 0.3 * np.abs(rng.normal(size=leaf.shape))
        trees[0].append(np.where(masks[path], drawn, 0.0).astype(np.float32))
        trees[1].append(np.where(left, drawn, 0.0).astype(np.float32))
    x = jnp.asarray(draw(model.sample, BATCH, rng, normal=True))
    for train in (False, True):

        @jax.jit
        def outputs_of(leaves: list[Any], train: bool = train) -> jax.Array:
            tree = whole(jax.tree.unflatten(jax.tree.structure(params), leaves), fixed)
            return model.apply(tree, x, train, root_key(seed) if train else None)

        small, other = (np.asarray(outputs_of(leaves)) for leaves in trees)
        if not np.allclose(small, other, rtol=1e-4, atol=1e-4 * np.abs(small).max(initial=0.0)):
            kind = "training" if train else "evaluation"
            raise UserError(
                f"config.model.name: {model.name!r} reads channels in {kind} that its channel_groups remove; allowed: "
                "groups whose channels are read along axes that name them"
            )
