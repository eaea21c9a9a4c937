"""From `config.model` to a `Model`: any Flax module, linen or nnx, as pure functions of a params pytree."""

from __future__ import annotations

import dataclasses
import inspect
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from prfl_jax.models import checked_module, module_checks
from prfl_jax.models.checked_module import Sizes
from prfl_jax.models.choices import MODELS
from prfl_jax.models.flop_count import BATCH, FlopCount, count_flop
from prfl_jax.models.inputs import TOKENS, as_sample, batch_shape, output_shape
from prfl_jax.models.linen_adapter import linen_functions
from prfl_jax.models.matmul_conv import plain_convolutions
from prfl_jax.models.nnx_adapter import nnx_functions
from prfl_jax.models.training_switch import build_switch, call_switch
from prfl_jax.models.variables import CLIENTS, Functions, Params, split_state, whole, with_state
from prfl_jax.system.errors import UserError, first_line
from prfl_jax.system.files import replacing
from prfl_jax.system.jax_settings import fixed as fixed_settings
from prfl_jax.system.jax_settings import root_key
from prfl_jax.tasks import SampleSpec


def no_fixed(key: jax.Array) -> Params:
    """The fixed variables of a module without any."""
    return {}


@dataclasses.dataclass(frozen=True)
class Model:
    """A network as pure functions.

    Args:
      name: what the report calls it.
      input_shape: one sample, `(H, W, C)` of an image.
      classes: number of outputs.
      init: key -> params, a nested dict of float32 arrays, with the module's state under `variables.STATE`.
      apply: (params, x `[B, ...]`, train, key or None) -> logits float32, `[B, classes]` or, where `sequence`,
        `[B, T, classes]`. Of a module with fixed variables the params are those of `whole`.
      flop: FLOP of the forward pass in training (`flop_count.py`).
      fixed: key -> its variables that are not trained (`variables.py`), of the same drawing as `init`'s params.
      warnings: what a user should know of the module, a line each.
      spec: of a sample; None: of an image of `input_shape`.
      sequence: whether each step of a sample has outputs.
      train_step: `step` of a module with state; None: it has none.
      norm_leaves: paths of the params that belong to the same layers as the state.
      channel_groups: as the module declares them (`channel_search.py`); None: they are traced.
      module: of linen, from which narrower ones are made (`narrower.py`); None: of another kind.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array, bool, jax.Array | None], jax.Array]
    flop: FlopCount = dataclasses.field(default_factory=FlopCount)
    fixed: Callable[[jax.Array], Params] = no_fixed
    warnings: tuple[str, ...] = ()
    spec: SampleSpec | None = None
    sequence: bool = False
    train_step: Callable[[Params, jax.Array, jax.Array | None], tuple[jax.Array, Params]] | None = None
    norm_leaves: frozenset[str] = frozenset()
    channel_groups: Mapping[str, Sequence[str | None]] | None = None
    module: Any = None

    @property
    def has_state(self) -> bool:
        """Whether a step of training changes variables besides the params, such as running statistics."""
        return self.train_step is not None

    def step(self, params: Params, x: jax.Array, key: jax.Array | None) -> tuple[jax.Array, Params]:
        """(logits of `apply` in training, the state after it as it stands under `variables.STATE`; {} without one)."""
        if self.train_step is None:
            return self.apply(params, x, True, key), {}
        return self.train_step(params, x, key)

    @property
    def sample(self) -> SampleSpec:
        """What the model is given of one sample."""
        return self.spec or SampleSpec(self.input_shape)

    @property
    def leaf_flop(self) -> dict[str, float]:
        """Forward FLOP of each leaf, by `/`-joined path, for one sample alone."""
        return self.flop.by_leaf()

    def whole(self, key: jax.Array) -> Params:
        """Params and fixed variables of that key, as `apply` takes them and `final_model.npz` has them."""
        return whole(self.init(key), self.fixed(key))

    def bound(self, fixed: Params) -> Model:
        """The model with these fixed variables, whose `apply` takes params alone."""
        if not fixed:
            return self
        apply, step = self.apply, self.train_step
        return dataclasses.replace(
            self,
            apply=lambda p, x, train, key: apply(whole(p, fixed), x, train, key),
            train_step=step and (lambda p, x, key: step(whole(p, fixed), x, key)),
        )

    def shapes(self) -> Params:
        """The params, with the state, as `ShapeDtypeStruct`s; computes nothing."""
        return jax.eval_shape(lambda: self.init(root_key(0)))

    def num_parameters(self) -> int:
        """Values of all params, without the state."""
        return _values(split_state(self.shapes())[0])

    def num_state(self) -> int:
        """Values of the state."""
        return _values(split_state(self.shapes())[1])

    def num_fixed(self) -> int:
        """Values of all fixed variables."""
        return _values(jax.eval_shape(lambda: self.fixed(root_key(0))))


def _values(shapes: Params) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@fixed_settings()
def build_model(
    cfg: Any,
    input_shape: SampleSpec | tuple[int, ...],
    data_classes: int,
    sizes: Sizes | None = None,
    sequence: bool = False,
    causal: bool = False,
) -> Model:
    """The model of `config.model` for samples of `input_shape` and labels `0..data_classes-1`.

    `cfg.name` is `conv2`, `vgg11`, or `module:object` / `file.py:object`: a linen or
    nnx module class or a linen instance, which need know nothing of this package. A
    class that takes `classes` (or `num_classes`) gets it, and the number of tokens as `tokens` (`vocab_size`,
    `num_tokens`, `vocabulary`, `num_embeddings`); its own initialisers are used.

    Examples:
      >>> from prfl_jax.config import default_config
      >>> build_model(default_config().model, input_shape=(28, 28, 1), data_classes=62).num_parameters()
      6603710

    Args:
      cfg: the group `model` of a config.
      input_shape: of one image, (H, W, C), or the `SampleSpec` of any other sample.
      data_classes: number of labels in the data.
      sizes: batch sizes of the run; a user's module is checked with batches of these sizes.
      sequence: whether each step of a sample has outputs.
      causal: whether they must not depend on later steps (`Task.causal`), which a user's module is checked for.

    Raises:
      UserError: the module cannot be found, has state that cannot be kept, looks across its batch or ahead, or has too
        few outputs.
    """
    classes = int(cfg.classes or data_classes)
    if classes < data_classes:
        raise UserError(f"config.model.classes: {classes}; allowed: at least the data's {data_classes} classes")
    sample = as_sample(input_shape)
    module = MODELS.find(cfg.name)
    if cfg.name in MODELS:
        made = _built_in(cfg, module, sample, classes, sequence)
        return dataclasses.replace(wrap_linen(cfg.name, made, sample, classes, sequence), module=made)
    return wrap_module(cfg.name, module, sample, classes, sizes, sequence, causal)


def _built_in(cfg: Any, module: Any, sample: SampleSpec, classes: int, sequence: bool) -> nn.Module:
    """A built-in network, given those of the settings that it has a field for.

    Raises:
      UserError: it does not take such samples.
    """
    if (takes := getattr(module, "takes", None)) is not None:
        takes.check(cfg.name, sample)
    fields = module.__dataclass_fields__
    given = {"classes": classes, "width": cfg.width, "init_name": cfg.init}
    given |= {"tokens": sample.tokens} if "tokens" in fields else {}
    given |= {"sequence": sequence} if "sequence" in fields else {}
    given |= {"norm": cfg.norm} if "norm" in fields else {}
    return module(**given)


def wrap_module(
    name: str,
    module: Any,
    sample: SampleSpec | tuple[int, ...],
    classes: int,
    sizes: Sizes | None = None,
    sequence: bool = False,
    causal: bool = False,
) -> Model:
    """A user's linen class or instance, or nnx class, as a `Model`; after all checks of `module_checks`.

    Args:
      sample: of one sample; a shape stands for an image.

    Raises:
      UserError: it cannot be used; one line.
    """
    sample = as_sample(sample)
    if not isinstance(module, nn.Module) and not (
        isinstance(module, type) and issubclass(module, (nn.Module, nnx.Module))
    ):
        raise UserError(f"config.model.name: {name!r} is {module!r}; allowed: a flax linen or nnx module")
    kind, made = module if isinstance(module, type) else type(module), None
    try:
        if issubclass(kind, nn.Module):
            made = module if isinstance(module, nn.Module) else _make(name, kind, sample)(classes)()
            functions = linen_functions(name, made, sample)
        else:
            functions = nnx_functions(name, kind, _make(name, kind, sample)(classes), sample)
        model = _checked(name, functions, sample, classes, sequence)
        asked = checked_module.Module(name, sample, classes, functions, module, sequence, causal)
        warnings, groups = module_checks.check_once(asked, sizes or Sizes()), getattr(module, "channel_groups", None)
        return dataclasses.replace(model, warnings=warnings, channel_groups=groups, module=made)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        raise _not_taken(name, sample, error) from error


def _make(name: str, module: type, sample: SampleSpec) -> Callable[[int], Callable[..., Any]]:
    """From the number of classes to a constructor of the user's module, called with training switches (nnx: `rngs`).

    Raises:
      UserError: the module cannot be built so (`name` in the text).
    """

    def of(classes: int) -> Callable[..., Any]:
        # nnx's metaclass hides the signature of the class, not that of __init__
        takes = inspect.signature(module.__init__).parameters  # type: ignore[misc]
        outputs = {key: classes for key in ("classes", "num_classes") if key in takes}
        if sample.tokens:
            outputs |= {key: sample.tokens for key in TOKENS if key in takes}
        is_linen = issubclass(module, nn.Module)
        gets_rngs = "rngs" in takes or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())
        switches = build_switch(module.__init__, call_switch(name, module, sample.words)(True)[1])  # type: ignore[misc]
        first = switches(False) if is_linen else {}

        def make(rngs: Any = None, **switches: Any) -> Any:
            given = {"rngs": rngs} if gets_rngs and not is_linen else {}
            try:
                return module(**outputs, **first, **switches, **given)
            except (Exception, SystemExit) as error:  # whatever a user's code raises
                what, said = outputs or "nothing", first_line(error)
                raise UserError(f"config.model.name: {name!r} cannot be built from {what}: {said}") from error

        return make

    return of


def wrap_linen(
    name: str, module: Any, sample: SampleSpec | tuple[int, ...], classes: int, sequence: bool = False
) -> Model:
    """A linen module as a `Model`, checked by its shapes alone; a shape stands for an image."""
    sample = as_sample(sample)
    try:
        return _checked(name, linen_functions(name, module, sample), sample, classes, sequence)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        raise _not_taken(name, sample, error) from error


def _checked(name: str, functions: Functions, sample: SampleSpec, classes: int, sequence: bool) -> Model:
    """A `Model` after the checks of its shapes; nothing is computed."""
    shapes, fixed = jax.eval_shape(lambda: (functions.init(root_key(0)), functions.fixed(root_key(0))))
    model = Model(
        name, sample.shape, classes, functions.init, functions.apply, fixed=functions.fixed, spec=sample,
        sequence=sequence, train_step=functions.step if split_state(shapes)[1] else None,
        norm_leaves=functions.norm_leaves,
    )  # fmt: skip
    tree, batch = whole(shapes, fixed), batch_shape(sample, 2)
    out = jax.eval_shape(lambda tree, x: model.apply(tree, x, False, None), tree, batch)
    checked_module.check_outputs(name, output_shape(sample, classes, sequence, 2), out, sample)
    paths, fixed_paths = flat_paths(shapes), flat_paths(fixed)
    for path, leaf in paths.items():
        if leaf.dtype != jnp.float32:
            raise UserError(
                f"config.model.name: {name!r} has {leaf.dtype} params ({path}); allowed: float32, which layers may "
                "compute from in another type (`dtype`), and variables that are not trained for other arrays"
            )
    if not sum(math.prod(leaf.shape) for leaf in paths.values()):
        raise UserError(f"config.model.name: {name!r} has no params to train; allowed: a module with some")
    for path, leaf in [*paths.items(), *fixed_paths.items()]:
        if not math.prod(leaf.shape):  # which no checkpoint takes
            where = f"{path} {tuple(leaf.shape)}"
            raise UserError(f"config.model.name: {name!r} has an array without values ({where}); allowed: none")
    for path, leaf in fixed_paths.items():
        if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
            raise UserError(
                f"config.model.name: {name!r} keeps a random key ({path}); allowed: make_rng, or rngs that it calls"
            )
    return dataclasses.replace(model, flop=_forward_flop(model, shapes, fixed))


def _not_taken(name: str, sample: SampleSpec, error: BaseException) -> UserError:
    return UserError(f"config.model.name: {name!r} does not take {sample.words}: {first_line(error)}")


def flat_paths(params: Params) -> dict[str, Any]:
    """Leaves by `/`-joined path, in the order of `jax.tree.leaves`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return {"/".join(str(getattr(k, "key", k)) for k in path): leaf for path, leaf in flat}


def _forward_flop(model: Model, shapes: Params, fixed: Params) -> FlopCount:
    """FLOP of a forward pass in training, traced with plain convolutions, from the shapes of params and the rest."""
    params, state = split_state(shapes)
    others = state, fixed
    tree = jax.tree.structure(params)

    def forward(leaves: list[jax.Array], others: tuple[Params, Params], x: jax.Array) -> jax.Array:
        state, fixed = others
        params = with_state(jax.tree.unflatten(tree, leaves), state)
        return model.apply(whole(params, fixed), x, True, root_key(0))

    with plain_convolutions():
        return count_flop(forward, flat_paths(params), others, batch_shape(model.sample, BATCH))


def norm_leaves(model: Model) -> set[str]:
    """Paths of the params of layers that have state, such as gain and bias of batch norm."""
    return set(model.norm_leaves)


def save_model(path: str, params: Params) -> None:
    """Writes params as `.npz`, one array a leaf, keyed by `/`-joined path; atomic.

    State is beside them under `@state/`, and fixed variables under `@fixed/`: those of types that NumPy lacks
    (bfloat16) as float32, which holds them.
    """
    arrays: dict[str, Any] = {key: np.asarray(leaf) for key, leaf in flat_paths(params).items()}
    arrays = {key: leaf.astype(np.float32) if leaf.dtype.kind == "V" else leaf for key, leaf in arrays.items()}
    with replacing(path) as part, open(part, "wb") as f:
        np.savez(f, **arrays)


def client_model(saved: Params, client: int) -> Params:
    """A client's own model out of a run with `model.state=local`: the server's, with that client's layers.

    Args:
      saved: as `load_model` reads it.
      client: its number.

    Raises:
      ValueError: the saved model has no layers of clients.
    """
    if CLIENTS not in saved:
        raise ValueError(f"no layers of clients in this model; allowed: one that has them under {CLIENTS!r}")
    own = {path: leaf[client] for path, leaf in flat_paths(saved[CLIENTS]).items()}
    shared = flat_paths({name: part for name, part in saved.items() if name != CLIENTS})
    return traverse_util.unflatten_dict({**shared, **own}, sep="/")


def load_model(path: str) -> Params:
    """Reads params written by `save_model` (nested dict of NumPy arrays).

    Raises:
      UserError: no such file, or not one of these.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return traverse_util.unflatten_dict({key: file[key] for key in file.files}, sep="/")
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        said = first_line(error)
        raise UserError(f"{path}: not a saved model ({said}); allowed: a final_model.npz of a run") from error
