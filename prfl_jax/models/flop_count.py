"""Counts the FLOP of a module in its traced JAX program, by parameter leaf, without running it.

Products count: `dot_general`, convolutions (groups, strides, dilation, transposed ones), FFTs. A
multiplication and an addition are two FLOP. Sums, activations, normalisation, softmax, pooling and products written as
`(a * b).sum()` do not count, nor does what rematerialised layers compute again in the backward pass: training is
charged as three times the forward pass. Zeros around an image count as pixels, as papers count a SAME convolution (XLA
leaves them out: a 3x3 kernel on 28x28 has 4.7 % less there, and on 2x2 56 %).

Each product belongs to the parameter leaf that it reads, through whatever is done with parameters alone before (casts,
transposes, slices, weight standardisation, a loop's stacked layers), so that a mask discounts it:

- of two operands the one that does not depend on the samples counts; if both do, one that picks values of a leaf
  (an expert's kernel by an index from the samples);
- a product that reads none (attention's q k^T and softmax v, a kernel that samples modulate) is a rest that no mask
  discounts;
- one that reads several leaves (`w + a @ b`, `concatenate([w_q, w_k, w_v])`) is shared out in proportion to their
  sizes, among those of rank 2 and more if there is one: a gain or a bias takes nothing from its kernel;
- a product of parameters alone (`a @ b`) is made once for a batch, not for each of its samples.

Loops count as often as they run: `scan` by its length, `while` where its counter is known beforehand. Of `cond`'s
branches the most expensive one counts, and of a switch on a known number the branch that it selects. Operations that
cannot be counted (other `while` loops with products inside, linear algebra, kernels in other languages) are listed in
`FlopCount.unknown`, and `clients.flop_s` is then refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import Literal, jaxprs_in_params

from prfl_jax.models.product_flop import product_flop
from prfl_jax.models.static_values import called, evaluate, known, turns

BATCH = 2  # samples of the traced batch; products that depend on them are divided by it

REST = ""  # in place of a leaf's path

# How a value depends on the samples: not at all; as a choice among values of leaves; in its values.
FIXED, PICKED, MIXED = range(3)
Flop = Counter[tuple[str, bool]]  # FLOP by (path or REST, whether once for a batch)

# What has products inside that cannot be counted from outside.
_OPAQUE = {
    "cholesky", "cholesky_update", "eig", "eigh", "ffi_call", "geqp3", "geqrf", "hessenberg", "householder_product",
    "io_callback", "lu", "pallas_call", "pure_callback", "qr", "schur", "svd", "symmetric_product", "triangular_solve",
    "tridiagonal", "tridiagonal_solve",
}  # fmt: skip
_ONE_BY_ONE = {"optimization_barrier", "psum", "psum2", "psum_invariant", "pmax", "pmin", "pvary", "pcast"}
# Of these, the values that are picked from, by position; what is left says which.
_PICKS: dict[str, tuple[int, ...]] = {
    "gather": (0,), "dynamic_slice": (0,), "dynamic_update_slice": (0, 1),
    "scatter": (0, 2), "scatter-add": (0, 2), "scatter_add": (0, 2), "scatter_mul": (0, 2),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FlopCount:
    """FLOP of a model's forward pass in training.

    Attributes:
      leaves: by `/`-joined path of every leaf: (for each sample, once for a batch).
      rest: likewise, of products that read no leaf.
      unknown: what could not be counted, in words.
      order: paths of the leaves that products read, in the order of the forward pass.
    """

    leaves: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    rest: tuple[float, float] = (0.0, 0.0)
    unknown: tuple[str, ...] = ()
    order: tuple[str, ...] = ()

    def by_leaf(self, batch_size: int = 1) -> dict[str, float]:
        """FLOP per sample of each leaf, in batches of that size."""
        return {path: each + once / batch_size for path, (each, once) in self.leaves.items()}

    def rest_at(self, batch_size: int = 1) -> float:
        """FLOP per sample that belong to no leaf, in batches of that size."""
        return self.rest[0] + self.rest[1] / batch_size

    def total(self, batch_size: int = 1) -> float:
        """All FLOP per sample, in batches of that size."""
        return sum(self.by_leaf(batch_size).values()) + self.rest_at(batch_size)


def count_flop(function: Callable[..., Any], leaves: Mapping[str, Any], fixed: Any, *args: Any) -> FlopCount:
    """Traces `function(list of leaves, fixed, *args)` and counts its products.

    Args:
      leaves: arrays or their shapes, by path.
      fixed: a pytree of what is neither trained nor depends on the samples, likewise; its products are a rest.
      args: what depends on the samples, with `BATCH` of them, as arrays or shapes.
    """
    closed = jax.make_jaxpr(function)(list(leaves.values()), fixed, *args)
    counter = _Counter({path: tuple(leaf.shape) for path, leaf in leaves.items()})
    constants = [Source()] * len(jax.tree.leaves(fixed))
    samples = len(closed.jaxpr.invars) - len(leaves) - len(constants)
    sources = [*(Source(frozenset({path})) for path in leaves), *constants, *[Source(data=MIXED)] * samples]
    _, flop = counter.count(closed.jaxpr, sources, [True] * len(closed.jaxpr.outvars))
    pairs = {path: (flop[path, False] / BATCH, flop[path, True]) for path in [*leaves, REST]}
    rest, order = pairs.pop(REST), dict.fromkeys(path for path, _ in flop if path != REST)
    return FlopCount(pairs, rest, tuple(counter.unknown), tuple(order))


@dataclasses.dataclass(frozen=True)
class Source:
    """The origin of a value in the program.

    Attributes:
      leaves: whose values it has; of a MIXED one none.
      data: FIXED, PICKED or MIXED.
      value: a number that is known without running the program.
    """

    leaves: frozenset[str] = frozenset()
    data: int = FIXED
    value: Any = None


def _join(sources: Sequence[Source], choices: Sequence[Source] = ()) -> Source:
    """The source of a value computed from others; `choices` selects among them."""
    data = max((source.data for source in sources), default=FIXED)
    if any(choice.data for choice in choices):
        data = max(data, PICKED)
    if data == MIXED:
        return Source(data=MIXED)
    return Source(frozenset().union(*(source.leaves for source in sources)), data)


def _either(one: Source, other: Source) -> Source:
    """The source of a value that is one of two."""
    same = one.value is not None and one.value == other.value
    return dataclasses.replace(_join([one, other]), value=one.value if same else None)


def _times(flop: Flop, often: float) -> Flop:
    return Counter({key: value * often for key, value in flop.items()})


def _live(jaxpr: Any, wanted: Sequence[bool]) -> list[tuple[Any, list[bool]]]:
    """The equations that the wanted outputs need, each with which of its own outputs are needed."""
    needed = {var for var, want in zip(jaxpr.outvars, wanted, strict=True) if want and not isinstance(var, Literal)}
    live = []
    for equation in reversed(jaxpr.eqns):
        wants = [var in needed for var in equation.outvars]
        if any(wants):
            live.append((equation, wants))
            needed.update(var for var in equation.invars if not isinstance(var, Literal))
    return live[::-1]


class _Counter:
    """Walks through a program; `shapes` are those of the leaves, by path."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
        self.unknown: dict[str, None] = {}  # in the order met

    def count(self, program: Any, sources: Sequence[Source], wanted: Sequence[bool]) -> tuple[list[Source], Flop]:
        """Sources of the outputs, and the FLOP of what the `wanted` ones need."""
        jaxpr = getattr(program, "jaxpr", program)
        env = dict(zip(jaxpr.invars, sources, strict=True))
        for var, value in zip(jaxpr.constvars, getattr(program, "consts", ()), strict=False):
            env[var] = Source(value=known(value))
        total: Flop = Counter()

        def read(var: Any) -> Source:
            return Source(value=known(var.val)) if isinstance(var, Literal) else env.get(var, Source())

        for equation, wants in _live(jaxpr, wanted):
            outs, flop = self._equation(equation, [read(var) for var in equation.invars], wants)
            env.update(zip(equation.outvars, outs, strict=True))
            total.update(flop)
        return [read(var) for var in jaxpr.outvars], total

    def _equation(self, equation: Any, sources: list[Source], wanted: list[bool]) -> tuple[list[Source], Flop]:
        name, outs = equation.primitive.name, len(equation.outvars)
        shapes = [var.aval for var in equation.invars]
        flop = product_flop(name, shapes, equation.outvars[0].aval, equation.params) if outs == 1 else None
        if flop is not None:
            return self._product(flop, sources[:2])
        if name in _LOOPS:
            return _LOOPS[name](self, equation, sources, wanted)
        if name in _ONE_BY_ONE and outs == len(sources):
            return sources, Counter()
        if (inner := called(equation)) is not None and name not in _OPAQUE:
            results, total = self.count(inner, sources, wanted)
            return results, _times(total, _copies(equation))
        self._note_unknown(equation)
        if name in _PICKS:
            picked = [source for place, source in enumerate(sources) if place in _PICKS[name]]
            choices = [source for place, source in enumerate(sources) if place not in _PICKS[name]]
            return [_join(picked, choices)], Counter()
        if name == "select_n":
            return [dataclasses.replace(_join(sources[1:], sources[:1]), value=_value(equation, sources))], Counter()
        return [dataclasses.replace(_join(sources), value=_value(equation, sources))] * outs, Counter()

    def _product(self, flop: float, operands: Sequence[Source]) -> tuple[list[Source], Flop]:
        """Counts a product of two operands, or of one that is transformed (FFT)."""
        once = all(operand.data == FIXED for operand in operands)
        leaves: frozenset[str] = frozenset()
        for kind in (FIXED, PICKED):
            leaves = leaves or frozenset().union(*(o.leaves for o in operands if o.data == kind))
        out = Source(leaves) if once else Source(data=MIXED)
        matrices = [path for path in sorted(leaves) if len(self._shapes[path]) >= 2] or sorted(leaves)
        sizes = {path: math.prod(self._shapes[path]) for path in matrices}
        whole = sum(sizes.values())
        shares = {path: flop * size / whole for path, size in sizes.items()} if whole else {REST: flop}
        return [out], Counter({(path, once): share for path, share in shares.items()})

    def _scan(self, equation: Any, sources: list[Source], wanted: list[bool]) -> tuple[list[Source], Flop]:
        params = equation.params
        fixed, carried = scan_operands(equation)
        each = [dataclasses.replace(source, value=None) for source in sources[fixed + carried :]]
        carry = sources[fixed : fixed + carried]
        wanted = [True] * carried + wanted[carried:]
        while True:
            outs, flop = self.count(params["jaxpr"], [*sources[:fixed], *carry, *each], wanted)
            later = [_either(one, other) for one, other in zip(carry, outs, strict=False)]
            if later == carry:
                break
            carry = later
        stacked = [dataclasses.replace(out, value=None) for out in outs[carried:]]
        return carry + stacked, _times(flop, params["length"])

    def _while(self, equation: Any, sources: list[Source], wanted: list[bool]) -> tuple[list[Source], Flop]:
        params = equation.params
        ahead, behind = params["cond_nconsts"], params["body_nconsts"]
        tested, used, carry = sources[:ahead], sources[ahead : ahead + behind], sources[ahead + behind :]
        often = turns(params, [source.value for source in sources])
        while True:
            outs, flop = self.count(params["body_jaxpr"], [*used, *carry], [True] * len(carry))
            later = [_either(one, other) for one, other in zip(carry, outs, strict=True)]
            if later == carry:
                break
            carry = later
        _, test = self.count(params["cond_jaxpr"], [*tested, *carry], [True])
        if often is None and (flop or test):
            self.unknown["a while loop whose number of turns is not known before it runs"] = None
        often = 1 if often is None else often
        return carry, _times(flop, often) + _times(test, often + 1)

    def _cond(self, equation: Any, sources: list[Source], wanted: list[bool]) -> tuple[list[Source], Flop]:
        which, branches = sources[0], equation.params["branches"]
        if which.value is not None:
            branches = [branches[min(max(int(which.value), 0), len(branches) - 1)]]
        counted = [self.count(branch, sources[1:], wanted) for branch in branches]
        outs = list(counted[0][0])
        for other, _ in counted[1:]:
            outs = [_either(one, two) for one, two in zip(outs, other, strict=True)]
        if len(branches) > 1:
            outs = [_join([out], [which]) for out in outs]
        return outs, max((flop for _, flop in counted), key=lambda flop: sum(flop.values()))

    def _note_unknown(self, equation: Any) -> None:
        name = equation.primitive.name
        inside = [self._products(inner) for inner in jaxprs_in_params(equation.params)]
        if name in _OPAQUE or any(inside):
            self.unknown[f"the operation {name}"] = None

    def _products(self, jaxpr: Any) -> bool:
        """Whether a program contains any product."""
        _, flop = self.count(jaxpr, [Source()] * len(jaxpr.invars), [True] * len(jaxpr.outvars))
        return bool(flop)


def scan_operands(equation: Any) -> tuple[int, int]:
    """How many operands of a `scan` are the same in every turn, and how many are carried; the others are stacked.

    Told by rank, since JAX's parameters for it change: what is stacked has one axis more outside than inside.
    """
    body = getattr(equation.params["jaxpr"], "jaxpr", equation.params["jaxpr"])
    stacked = sum(a.aval.ndim > b.aval.ndim for a, b in zip(equation.invars, body.invars, strict=True))
    carried = sum(a.aval.ndim == b.aval.ndim for a, b in zip(equation.outvars, body.outvars, strict=True))
    return len(equation.invars) - carried - stacked, carried


_LOOPS = {"scan": _Counter._scan, "while": _Counter._while, "cond": _Counter._cond}


def _value(equation: Any, sources: Sequence[Source]) -> Any:
    return evaluate(equation, [source.value for source in sources])


def _copies(equation: Any) -> int:
    """How many devices run the called program, each on its part."""
    if equation.primitive.name != "shard_map":
        return 1
    mesh = equation.params["mesh"]
    axes = equation.params.get("manual_axes", mesh.axis_names)
    return math.prod(mesh.shape[axis] for axis in axes)
