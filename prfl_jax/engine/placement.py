"""Places clients on several devices: client c is held by device c mod D, in that device's slot c div D.

Everything stacked over clients (`State.sent`, `State.buffer`, their masks, `State.trained`) is sharded over the mesh's
one axis, the server's model is a copy on each device, and an aggregation adds the devices' sums up (`psum`). Clients
are dealt out in turn, so that neighbours in the config, which are often alike in speed, do not share a device. With one
device there is no mesh and no padding, and the program is the same as without this file.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from prfl_jax.engine.plan import Plan
from prfl_jax.system import accelerator, multi_process
from prfl_jax.system.errors import UserError

AXIS = "clients"
OWN, ALL = PartitionSpec(AXIS), PartitionSpec()  # each device its own part; a copy on each


@dataclasses.dataclass(frozen=True)
class Placement:
    """Which device holds which client.

    Attributes:
      clients: M.
      devices: the D devices.
    """

    clients: int
    devices: tuple[Any, ...]

    @classmethod
    def of(cls, clients: int, wanted: int = 0, everyone: bool = True) -> Placement:
        """Places clients on the first `wanted` devices, never on more than there are clients.

        With `wanted` 0 on all devices that exist. But CPU cores that count as devices share one memory and one pool of
        threads, which a single client's products fill already, and a device without arrivals is idle: of CPU devices, 0
        takes one, unless every window has `everyone`, all clients.

        Raises:
          UserError: there are fewer devices than wanted.
        """
        there = accelerator.devices()
        if wanted > len(there):
            more = "; with --xla_force_host_platform_device_count=N in XLA_FLAGS a CPU counts as N"
            raise UserError(
                f"config.engine.devices={wanted}: allowed is at most {len(there)}, which is what JAX finds here"
                f"{more if accelerator.on_cpu() else ''}"
            )
        if not wanted and multi_process.alone() and accelerator.on_cpu() and not everyone:
            wanted = 1
        count = min(wanted or len(there), clients)
        if not multi_process.alone() and count < len(there):
            raise UserError(
                f"config.engine.devices={wanted}: allowed with several processes is 0, all {len(there)} devices, "
                f"and at least as many clients at a time ({clients})"
            )
        return cls(clients, tuple(there[:count]))

    @property
    def count(self) -> int:
        """D."""
        return len(self.devices)

    @property
    def slots(self) -> int:
        """Slots of each device, m = ceil(M / D)."""
        return -(-self.clients // self.count)

    @functools.cached_property
    def mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), (AXIS,))

    def slot(self, client: int) -> int:
        """A client's index in arrays `[D m, ...]`."""
        return client % self.count * self.slots + client // self.count

    def to_clients(self, stack: np.ndarray) -> np.ndarray:
        """`[D m, ...]` by slot to `[M, ...]` by client."""
        return stack if self.count == 1 else stack[[self.slot(c) for c in range(self.clients)]]

    def to_slots(self, stack: np.ndarray) -> np.ndarray:
        """`[M, ...]` by client to `[D m, ...]` by slot; an empty slot is 0."""
        if self.count == 1:
            return stack
        out = np.zeros((self.count * self.slots, *stack.shape[1:]), stack.dtype)
        out[[self.slot(c) for c in range(self.clients)]] = stack
        return out

    def split_plan(self, plan: Plan) -> Plan:
        """Each device's part of a plan: arrays `[L, D m]` by slot, lists and their counts `[L, D]` by device.

        A device's lists hold its own clients, by slot within it, in the order of the whole.
        """
        if self.count == 1:
            return plan
        rows, (d, m) = len(plan.close), (self.count, self.slots)

        def by_device(ids: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """(slots, counts) of each device."""
            out, number_of = np.full((rows, d * m), m, np.int32), np.zeros((rows, d), np.int32)
            for r, number in enumerate(counts):
                for device in range(d if number else 0):
                    mine = ids[r, :number][ids[r, :number] % d == device]
                    out[r, device * m : device * m + len(mine)] = mine // d
                    number_of[r, device] = len(mine)
            return out, number_of

        lists = {}
        for name in ("dispatch", "train", "arrive"):
            count = f"{name}_count"
            lists[name], lists[count] = by_device(getattr(plan, name), getattr(plan, count))
        tables = (
            "percent",
            "client",
            "count",
            "lr",
            "density_pct",
            "steps",
            "values_up",
            "prunes",
            "coefficient",
            "weights",
        )
        return plan._replace(**lists, **{name: self.to_slots(getattr(plan, name).T).T for name in tables})

    def by_arrival(self, values: np.ndarray, arrive: np.ndarray) -> np.ndarray:
        """What a device reports of its arrivals, `[L, D m]`, in the order of the whole plan's `arrive` `[L, M]`."""
        if self.count == 1:
            return values
        out = np.zeros(arrive.shape, values.dtype)
        for r, ids in enumerate(arrive):
            seen = [0] * self.count
            for k, client in enumerate(ids[ids < self.clients]):
                device = client % self.count
                out[r, k] = values[r, device * self.slots + seen[device]]
                seen[device] += 1
        return out

    def jit(
        self,
        function: Callable[..., Any],
        takes: Any,
        gives: Any,
        donate: Sequence[int] = (),
        out_shardings: Any = None,
    ) -> Any:
        """`jax.jit` of a function that each device runs on its own part.

        Args:
          takes, gives: `PartitionSpec`s of arguments and results (prefixes of their pytrees).
          donate: arguments whose memory the results may take.
          out_shardings: with one device, shardings of results that are not on it.
        """
        if self.count == 1:
            return jax.jit(function, donate_argnums=tuple(donate), out_shardings=out_shardings)
        inner = jax.shard_map(function, mesh=self.mesh, in_specs=takes, out_specs=gives, check_vma=False)
        shardings_in, shardings_out = self._shardings(takes), self._shardings(gives)
        return jax.jit(inner, in_shardings=shardings_in, out_shardings=shardings_out, donate_argnums=tuple(donate))

    def jit_global(self, function: Callable[..., Any], gives: Any, out_shardings: Any = None) -> Any:
        """`jax.jit` of a function that makes whole arrays, sharded as `gives` says (one device: by `out_shardings`)."""
        return jax.jit(function, out_shardings=out_shardings if self.count == 1 else self._shardings(gives))

    def put(self, tree: Any, spec: Any) -> Any:
        """Copies whole arrays onto the devices, as `spec` says (a prefix of the pytree)."""
        if self.count == 1:
            return jax.tree.map(lambda leaf: jax.numpy.array(leaf, copy=True), tree)
        shardings = self._shardings(spec)
        if multi_process.alone():
            return jax.device_put(tree, shardings)

        def leaf(sharding: NamedSharding, part: Any) -> Any:
            def one(whole: Any) -> jax.Array:
                host = np.asarray(whole)  # the same in every process, which takes its own devices' part of it
                return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

            return jax.tree.map(one, part)

        return jax.tree.map(leaf, shardings, tree, is_leaf=lambda item: isinstance(item, NamedSharding))

    def shapes(self, tree: Any, spec: Any, elsewhere: Any = None) -> Any:
        """Shapes that stand for arrays as `put` would place them, for a program that is compiled and not run.

        Args:
          elsewhere: with one device, shardings of what is not on it (a prefix of the pytree; None: on the device).
        """
        own = SingleDeviceSharding(self.devices[0]) if self.count == 1 else None

        def place(sharding: Any, part: Any) -> Any:
            return jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding or own), part
            )

        if elsewhere is None:
            elsewhere = own if self.count == 1 else self._shardings(spec)
        return jax.tree.map(place, elsewhere, tree, is_leaf=lambda item: item is None or isinstance(item, Sharding))

    def _shardings(self, specs: Any) -> Any:
        return jax.tree.map(
            lambda spec: NamedSharding(self.mesh, spec), specs, is_leaf=lambda item: isinstance(item, PartitionSpec)
        )

    def sum(self, tree: Any) -> Any:
        """The sum over the devices, inside a function of `jit`."""
        return tree if self.count == 1 else jax.lax.psum(tree, AXIS)

    def gather(self, tree: Any) -> Any:
        """Arrays of each device's slots `[m, ...]` from all devices, `[D m, ...]`, inside a function of `jit`."""
        if self.count == 1:
            return tree
        return jax.tree.map(lambda part: jax.lax.all_gather(part, AXIS, axis=0, tiled=True), tree)
