"""Resolves the six choices of a config into objects (`ResolvedMethod`) before any array is made; makes the engine."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from prfl_jax.aggregate import find_aggregation
from prfl_jax.aggregate.plugin_check import check_kernel
from prfl_jax.aggregate.server_check import check_server_optimizer
from prfl_jax.aggregate.server_optimizers import step_rule
from prfl_jax.clock import find_close_rule
from prfl_jax.config.comparison import compared
from prfl_jax.config.validate import validate
from prfl_jax.data import NORMALIZATIONS
from prfl_jax.density import prunes, uploads_squares
from prfl_jax.engine.engine import Engine, EngineConfig
from prfl_jax.engine.evaluate import samples_each
from prfl_jax.engine.find_widths import find_widths
from prfl_jax.engine.groups import group_size
from prfl_jax.engine.memory import check_memory, state_bytes
from prfl_jax.engine.model_state import check_state, leaves_that_stay
from prfl_jax.engine.placement import Placement
from prfl_jax.engine.widths import Widths
from prfl_jax.local import LocalWork, find_client_state, find_local
from prfl_jax.local.optimizer_check import check_optimizer
from prfl_jax.local.plugin_check import checked_work
from prfl_jax.local.settings_from_config import settings_from_config
from prfl_jax.models import STATES, build_model, make_loss
from prfl_jax.models.build import Model
from prfl_jax.models.channel_search import find_channels
from prfl_jax.models.checked_module import Sizes
from prfl_jax.models.products import precision_name
from prfl_jax.robustness.attacks import make_attack
from prfl_jax.robustness.update_filter import UpdateFilter
from prfl_jax.submodel import (
    IMPORTANCES,
    Importance,
    ModelSize,
    Network,
    Submodels,
    find_submodel,
    pruning_settings,
    to_percent,
)
from prfl_jax.submodel.importance import check_scores
from prfl_jax.submodel.layers import layer_table
from prfl_jax.submodel.layout import Layout
from prfl_jax.system import accelerator, multi_process
from prfl_jax.system.errors import UserError
from prfl_jax.tasks import IMAGES, SampleSpec, Task, check_task, find_task
from prfl_jax.transport import find_upload


@dataclasses.dataclass(frozen=True)
class ResolvedMethod:
    """The resolved choices of one config.

    Attributes:
      task: what is learned.
      model, loss: what is trained; `loss` gives one value a sample.
      target_loss: (logits, labels) -> a value a target, for evaluation.
      layout: which leaves of the model have masks.
      submodels: the sub-models of the rule `submodel.name` for this model.
      importance: how pruning scores are made, or what the rule gathers in their place; None for nothing.
      scores: (weights, squares) -> pruning scores, for a rule that is `scored`; else None.
      work: what a client does in a round.
      clients_axis, train: `engine.clients` and `engine.train`, with `auto` resolved.
      matmul: what products are computed in, as JAX names it; None: JAX's default.
      stays: paths of leaves that no client sends.
      widths: in which sub-models are trained; None: all at full size.
    """

    model: Any
    layout: Layout
    submodels: Submodels
    loss: Any
    importance: Importance | None
    scores: Callable[..., Any] | None
    work: LocalWork
    clients_axis: str
    train: str
    matmul: str | None
    target_loss: Any
    task: Task
    stays: frozenset[str] = frozenset()
    widths: Widths | None = None

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the channels, that sub-models are trained with besides all of them."""
        return () if self.widths is None else self.widths.shares

    @property
    def size(self) -> ModelSize:
        """What sub-models cost."""
        return self.submodels.size


def resolve(
    config: Any, sample: SampleSpec | tuple[int, ...], data_classes: int, evaluated: Sequence[int] = ()
) -> ResolvedMethod:
    """Model, layout and sizes of a validated config.

    Args:
      sample: what a model is given of one sample; a shape stands for an image.
      data_classes: number of labels in the data.
      evaluated: samples of each set that will be evaluated: a user's module is asked whether it takes them one by one.

    Raises:
      UserError: the model cannot be built for this data, or the sub-models not of this model.
    """
    sample = sample if isinstance(sample, SampleSpec) else SampleSpec(tuple(sample))
    task, normalization = find_task(config.task.name), NORMALIZATIONS.find(config.data.normalize)
    if sample.kind is IMAGES and not normalization.takes(sample.shape[-1]):
        raise UserError(
            f"config.data.normalize={config.data.normalize!r}: the images are {sample.shape}; "
            f"allowed with {normalization.channels} channels"
        )
    sizes = Sizes(
        evaluated=tuple(sorted({samples_each(n, config.eval.batch_size, place(config).count) for n in evaluated if n})),
        trained=(config.local.batch_size,),
    )
    model = build_model(config.model, sample, data_classes, sizes, task.sequence, task.causal)
    if config.clients.flop_s and model.flop.unknown:
        raise UserError(
            f"config.clients.flop_s: the FLOP of {config.model.name!r} cannot be counted because of "
            f"{', '.join(model.flop.unknown)}; allowed: (), or a model without that"
        )
    rule, name = find_submodel(config.submodel), config.submodel.name
    layout, size, stays = _lay_out(config, model)
    channels = functools.cache(lambda: find_channels(model))
    network = Network(
        shapes=layout.param_shapes(),
        size=size,
        layers=lambda: layer_table(config.model.name, sample.shape, model.classes, config.model.width),  # type: ignore[arg-type]
        channels=channels,
        masked=tuple(layout.paths[i] for i in layout.prunable),
        order=model.flop.order,
    )
    submodels = rule.fit(network, name)
    _check_choices(config, model, layout, submodels.size)
    work = find_local(config.local.name)
    importance = IMPORTANCES.find(config.submodel.importance)
    target_loss = make_loss(config.model.loss)
    check_task(config.task.name, task, sample, (model.classes, data_classes), target_loss)
    axis, train, on_cpu = config.engine.clients, config.engine.train, accelerator.on_cpu()
    if axis == "auto":
        axis = "map" if on_cpu else "vmap"
    if train == "auto":
        # a core is filled by one client; clients' own gradients are kept for none that has not arrived
        waits = on_cpu or axis == "map" or find_close_rule(config.window.close).synchronous or uploads_squares(config)
        train = "arrival" if waits and not work.own_masks else "pending"
    work = checked_work(config, work, model, layout, submodels.levels)
    return ResolvedMethod(
        model=model,
        layout=layout,
        submodels=submodels,
        loss=task.sample_loss(target_loss),
        importance=importance if prunes(config) else rule.evidence,
        scores=rule.scoring(importance),
        work=work,
        clients_axis=axis,
        train=train,
        matmul=precision_name(config.engine.matmul, accelerator.backend()),
        target_loss=target_loss,
        task=task,
        stays=stays,
        widths=find_widths(config, axis, model, layout, submodels, work, channels),
    )


def _lay_out(config: Any, model: Model) -> tuple[Layout, ModelSize, frozenset[str]]:
    """(which leaves have masks, what the model costs, paths of leaves that no client sends); computes nothing."""
    rule, stays = find_submodel(config.submodel), leaves_that_stay(config, model)
    layout = Layout.of(model.shapes(), prune=rule.partial, channels=rule.channels, stays=stays, state=rule.masks_state)
    if prunes(config) and not layout.prunable:
        raise UserError(
            f"config.model.name: {config.model.name!r} has no weight of rank 2 or more, so there is nothing to prune "
            f"for config.submodel.name={config.submodel.name!r}; allowed: a model with such weights, or "
            "config.density.name=full"
        )
    least = to_percent(config.density.min_density) if rule.scored else 100
    return layout, layout.model_size(model, config.model.size_mb, least, config.local.batch_size, stays), stays


def _check_choices(config: Any, model: Model, layout: Layout, size: ModelSize) -> None:
    """Checks the choices with the model; traces what comes from a user's file, and computes nothing."""
    rule = find_submodel(config.submodel)
    rule.check_fitted(size, pruning_settings(config))
    if rule.scored:
        check_scores(config.submodel, rule, [layout.shapes[i] for i in layout.prunable])
    check_kernel(config.aggregation, find_aggregation(config.aggregation.name), layout, model.shapes(), slots(config))
    check_state(config, model)
    check_server_optimizer(config.aggregation, model.shapes())
    check_optimizer(config.local, settings_from_config(config, find_local(config.local.name)), model.shapes())


def check_compared(config: Any, model: Model) -> None:
    """Checks the strategies that a run is compared with, with its model, before it is trained.

    Raises:
      UserError: one of them could not be resolved; the text names the strategy.
    """
    for name in config.compare:
        try:
            other = compared(config, name, validate).config
            layout, size, _ = _lay_out(other, model)
            _check_choices(other, model, layout, size)
        except UserError as error:
            raise UserError(f"config.compare={name!r} cannot run ({error}); or give config.compare=()") from None


def make_engine(
    config: Any, method: ResolvedMethod, placement: Placement | None = None, steps: int | None = None
) -> Engine:
    """The device side of a validated config; no array is made yet.

    Args:
      steps: of a local round; None: `local.steps`.
    """
    local = settings_from_config(config, method.work)
    placement = placement or Placement(slots(config), accelerator.devices()[:1])
    return Engine(
        method.model,
        method.loss,
        method.layout,
        slots(config),
        EngineConfig(
            train=method.train,
            group=group_of(config, method, placement),
            store=config.engine.store,
            models=config.engine.models,
            aggregation=find_aggregation(config.aggregation.name),
            importance=method.importance,
            normalize=config.data.normalize,
            augment=config.data.augment,
            work=method.work if method.widths is None else method.widths.wrap(method.work),
            local=local if steps is None else dataclasses.replace(local, steps=steps),
            matmul=method.matmul,
            attack=make_attack(config.attack),
            update_filter=make_update_filter(config),
            byzantine=config.aggregation.byzantine,
            optimizer=step_rule(config.aggregation),
            stays=method.stays,
            personal=STATES.find(config.model.state).personal,
            cohort_of=config.clients.number if config.window.cohort else 0,
            upload=find_upload(config.transport.upload),
        ),
        method.submodels,
        placement,
    )


def group_of(config: Any, method: ResolvedMethod, placement: Placement) -> int:
    """How many clients a device trains at once; 0: one after another, under `map`."""
    if method.clients_axis == "map":
        return 0
    synchronous = find_close_rule(config.window.close).synchronous
    # where few arrive at a time, about half of the clients wait: 4.3 of 10 in the paper's network
    waiting = placement.slots if synchronous else -(-placement.slots // 2)
    return group_size(config.engine.group, placement.slots, waiting)


def make_update_filter(config: Any) -> UpdateFilter | None:
    """What the server does to each update that arrives; None: it counts as it is."""
    clip, noise = config.aggregation.clip_norm, config.privacy.noise_multiplier
    robust = find_aggregation(config.aggregation.name).robust
    # with noise a rejected update is noise alone: that one was rejected must not show
    return UpdateFilter(clip, noise, rejected_as_nan=robust and not noise) if robust or clip is not None else None


def slots(config: Any) -> int:
    """S: clients whose models are on the devices at a time."""
    return config.window.cohort or config.clients.number


def check_fits(
    config: Any, method: ResolvedMethod, placement: Placement, shapes: Any, samples: int, training: int | None = None
) -> str:
    """`check_memory` of a run by itself: one line about what it keeps in memory.

    Args:
      shapes: of its state.
      samples: bytes of all samples.
      training: bytes that its chunk takes beside them on each device; None: not compiled yet, models at least.

    Raises:
      UserError: it would not fit.
    """
    on_host = config.engine.models == "host"
    if training is None:
        # each client that is trained has its model as sent, as trained, and whole if the aggregation restores it
        copies = 3 if find_aggregation(config.aggregation.name).restores else 2
        training = copies * max(1, group_of(config, method, placement)) * state_bytes(shapes)["server model"]
    return check_memory(
        shapes, samples, placement, slots_key(config),
        training=training, on_host=on_host, looks_at_all=looks_at_all(config),
    )  # fmt: skip


def looks_at_all(config: Any) -> bool:
    """Whether the aggregation is given the models of all slots at once."""
    return find_aggregation(config.aggregation.name).at_once


def slots_key(config: Any) -> str:
    """The key that says how many slots there are."""
    return "window.cohort" if config.window.cohort else "clients.number"


def place(config: Any) -> Placement:
    """The slots of a config on the available devices; on one device where models are kept in the host's memory.

    Raises:
      UserError: they cannot be placed so.
    """
    if config.engine.models == "host" and not multi_process.alone():
        raise UserError("config.engine.models='host': allowed is device where several processes make a run")
    devices = 1 if config.engine.models == "host" else config.engine.devices
    placed = Placement.of(slots(config), devices, everyone=find_close_rule(config.window.close).synchronous)
    if placed.count > 1 and config.window.cohort and keeps(config):
        raise UserError(
            f"config.engine.devices={config.engine.devices}: {placed.count} devices would share a cohort, and what a "
            "client keeps between rounds would be on another one of them; allowed: engine.devices=1, or window.cohort=0"
        )
    return placed


def keeps(config: Any) -> bool:
    """Whether clients keep something between their rounds."""
    work = find_local(config.local.name)
    state = find_client_state(work, settings_from_config(config, work))
    personal = STATES.find(config.model.state).personal
    return state is not None or personal or find_upload(config.transport.upload).compresses
