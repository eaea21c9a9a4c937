"""What a config says of the six seams, resolved into objects before any array is made; the engine made from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from prfl_jax.aggregate import find_aggregation
from prfl_jax.aggregate.kernels import check_kernel
from prfl_jax.clock import SYNCHRONOUS
from prfl_jax.data import NORMALIZATIONS
from prfl_jax.engine.engine import Engine, EngineConfig, at_once
from prfl_jax.engine.evaluate import images_each
from prfl_jax.engine.placement import Placement
from prfl_jax.local import LocalWork
from prfl_jax.models import build_model, make_loss
from prfl_jax.models.module_checks import Sizes
from prfl_jax.models.products import precision_name
from prfl_jax.robustness.attacks import Attack
from prfl_jax.robustness.update_filter import UpdateFilter
from prfl_jax.submodel.choices import find_submodel, given, prunes
from prfl_jax.submodel.importance import check_scores
from prfl_jax.submodel.layers import layer_table
from prfl_jax.submodel.layout import Layout
from prfl_jax.submodel.leading import leading_levels, leading_size
from prfl_jax.submodel.size import ModelSize, to_percent
from prfl_jax.system import multi_process
from prfl_jax.system.errors import UserError
from prfl_jax.transport.costs import uploads_squares


@dataclasses.dataclass(frozen=True)
class Method:
    """What the config says of the six seams, resolved: no array is made yet."""

    model: Any
    layout: Layout
    size: ModelSize
    loss: Any
    importance: str | None
    scores: Callable[..., Any] | None  # of sub-models by importance
    clients_axis: str
    train: str
    matmul: str | None
    levels: tuple[np.ndarray, ...] | None  # of sub-models that the architecture gives


def resolve(config: Any, input_shape: tuple[int, ...], data_classes: int, images: Sequence[int] = ()) -> Method:
    """Model, layout and sizes of a validated config.

    Args:
      images: of each set that will be evaluated: a user's module is asked whether it takes them one by one.

    Raises:
      UserError: the model cannot be built for this data, or the sub-models not of this model.
    """
    normalization = NORMALIZATIONS.find(config.data.normalize)
    if not normalization.takes(input_shape[-1]):
        raise UserError(
            f"config.data.normalize={config.data.normalize!r}: the images are {input_shape}; "
            f"allowed with {normalization.channels} channels"
        )
    sizes = Sizes(
        evaluated=tuple(sorted({images_each(n, config.eval.batch_size, place(config).count) for n in images if n})),
        trained=(config.local.batch_size,),
    )
    model = build_model(config.model, input_shape, data_classes, sizes)
    if config.clients.flop_s and model.flop.unknown:
        raise UserError(
            f"config.clients.flop_s: the FLOP of {config.model.name!r} cannot be counted because of "
            f"{', '.join(model.flop.unknown)}; allowed: (), or a model without that"
        )
    submodel, leading = find_submodel(config.submodel), config.submodel.name == "leading"
    scored, given_once = submodel.scores is not None, leading or submodel.levels is not None
    layout = Layout.of(model.shapes(), prune=scored or given_once, channels=given_once)
    least = to_percent(config.density.min_density) if scored else 100
    size, levels = layout.model_size(model, config.model.size_mb, least, config.local.batch_size), None
    if prunes(config) and not layout.prunable:
        raise UserError(
            f"config.model.name: {config.model.name!r} has no weight of rank 2 or more, so there is nothing to prune "
            f"for config.submodel.name={config.submodel.name!r}; allowed: a model with such weights, or "
            "config.density.name=full"
        )
    if submodel.levels is not None:
        shapes = dict(zip(layout.paths, layout.shapes, strict=True))
        flop = dict(zip(layout.paths, size.layer_flop, strict=True))
        size, levels = given(config.submodel.name, submodel, shapes, size.bytes_per_value, flop, size.rest_flop)
    if scored:
        check_scores(config.submodel, submodel, [layout.shapes[i] for i in layout.prunable])
    if leading:
        layers = layer_table(config.model.name, input_shape, model.classes, config.model.width)  # type: ignore[arg-type]
        by_path = leading_levels(layers)
        size, levels = leading_size(layers, size.bytes_per_value), tuple(by_path[path] for path in layout.paths)
    check_kernel(config.aggregation, find_aggregation(config.aggregation.name), layout, model.shapes(), slots(config))
    axis, train, on_cpu = config.engine.clients, config.engine.train, jax.default_backend() == "cpu"
    if axis == "auto":
        axis = "map" if on_cpu else "vmap"
    if train == "auto":
        # a core is filled by one client; clients' own gradients are kept for none that has not arrived
        waits = on_cpu or axis == "map" or config.window.close in SYNCHRONOUS or uploads_squares(config)
        train = "arrival" if waits else "pending"
    return Method(
        model=model,
        layout=layout,
        size=size,
        loss=make_loss(config.model.loss),
        importance=config.submodel.importance if prunes(config) else None,
        scores=submodel.scores,
        clients_axis=axis,
        train=train,
        matmul=precision_name(config.engine.matmul, jax.default_backend()),
        levels=levels,
    )


def make_engine(config: Any, method: Method, placement: Placement | None = None) -> Engine:
    """The device side of a validated config; no array is made yet."""
    return Engine(
        method.model,
        method.loss,
        method.layout,
        slots(config),
        EngineConfig(
            clients=method.clients_axis,
            train=method.train,
            group=config.engine.group,
            store=config.engine.store,
            models=config.engine.models,
            aggregation=find_aggregation(config.aggregation.name),
            importance=method.importance,
            normalize=config.data.normalize,
            augment=config.data.augment,
            work=LocalWork(
                steps=config.local.steps,
                batch_size=config.local.batch_size,
                momentum=config.local.momentum,
                prox_mu=config.local.prox_mu,
                scaled=config.local.name == "scaled_sgd",
                unroll=config.engine.unroll,
            ),
            matmul=method.matmul,
            attack=None if config.attack.name == "none" else Attack(config.attack.name, config.attack.scale),
            update_filter=make_update_filter(config),
            byzantine=config.aggregation.byzantine,
        ),
        method.levels,
        placement,
    )


def make_update_filter(config: Any) -> UpdateFilter | None:
    """What the server does to each update that arrives; None: it counts as it is."""
    clip, noise = config.aggregation.clip_norm, config.privacy.noise_multiplier
    robust = find_aggregation(config.aggregation.name).robust
    # with noise a rejected update is noise alone: that one was rejected must not show
    return UpdateFilter(clip, noise, left_out=robust and not noise) if robust or clip is not None else None


def slots(config: Any) -> int:
    """S: clients whose models are on the devices at a time."""
    return config.window.cohort or config.clients.number


def models_at_once(config: Any, method: Method) -> int | None:
    """Models on the device at a time, where they lie with the host; else None."""
    if config.engine.models == "device":
        return None
    return 1 if method.clients_axis == "map" else at_once(config.engine.group, slots(config), "host")


def looks_at_all(config: Any) -> bool:
    """Whether the aggregation is given the models of all slots at once."""
    return find_aggregation(config.aggregation.name).at_once


def slots_key(config: Any) -> str:
    """The key that says how many slots there are."""
    return "window.cohort" if config.window.cohort else "clients.number"


def place(config: Any) -> Placement:
    """The slots of a config on the devices there are; on one where models lie with the host.

    Raises:
      UserError: they cannot be placed so.
    """
    if config.engine.models == "host" and not multi_process.alone():
        raise UserError("config.engine.models='host': allowed is device where several processes make a run")
    devices = 1 if config.engine.models == "host" else config.engine.devices
    return Placement.of(slots(config), devices, everyone=config.window.close in SYNCHRONOUS)
