"""Transports (`transport.name`): which streams the server makes of a batch of dispatches. Both clock paths use them.

What a dispatch costs in bytes before its transport is `prfl_jax.transport`; how streams share the server's rate is
`transfers.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from prfl_jax.clock.types import Costs
from prfl_jax.registry import Registry, call, one_line, wrong
from prfl_jax.system.errors import UserError


class Transport:
    """How sub-models get to the clients; a custom transport is an object of a subclass.

    By default the clients that are dispatched from one version of the model take what they need from one stream: its
    sub-models are nested, so each is the beginning of the largest.

    Attributes:
      shares: clients may take from a stream together; False: each dispatch is a stream of its own.
      smallest_first: streams of a batch are sent in the order of their first client's bytes; False: of `streams`.
      whole_model: all clients receive the same bytes, so it takes density 1 for everybody.
      increments: a stream has the sub-model of each density and then what the next one adds, so they must be nested.
      sends_mask: a client is sent its mask with its first dispatch under new costs.
    """

    shares = True
    smallest_first = False
    whole_model = False
    increments = True
    sends_mask = True
    plugin_name = ""  # the value of `transport.name`, where it was loaded from a user's file

    def streams(self, group: np.ndarray) -> np.ndarray:
        """`[M]` integers: clients of one version that have the same number share a stream.

        Args:
          group: `[M]` integers, equal for clients whose sub-models are the same (`Costs.group`).
        """
        return np.zeros_like(group)

    def charge(self, costs: Costs) -> Costs:
        """Returns what is sent instead of `costs`, for instance fewer bytes for a transport that compresses.

        Bytes are whole numbers. `Costs` refuses a fraction, so a plugin rounds what it computes.
        """
        return costs

    def apply(self, costs: Costs) -> Costs:
        """What the clock sends: bytes as charged, no masks where none are sent, and `streams` as `group`.

        Raises:
          UserError: a plugin fails, or its `charge` gives no costs of M clients, or its `streams` no integers `[M]`.
        """
        clients = len(costs.group)
        charged = self._called(self.charge, costs)
        if not isinstance(charged, Costs):
            raise self._wrong("charge", one_line(charged), f"Costs of {clients} clients")
        if len(charged.group) != clients:
            raise self._wrong("charge", f"costs of {len(charged.group)} clients", str(clients))
        mask_bytes = charged.mask_bytes if self.sends_mask else np.zeros_like(charged.mask_bytes)
        group = self._called(lambda: np.asarray(self.streams(charged.group)))
        if group.dtype.kind not in "iu" or group.shape != (clients,):
            given = f"{one_line(group)} (shape {group.shape}, {group.dtype})"
            raise self._wrong("streams", given, f"integers of shape ({clients},)")
        return dataclasses.replace(charged, mask_bytes=mask_bytes, group=group)

    @property
    def _key(self) -> str:
        return f"config.transport.name={self.plugin_name!r}" if self.plugin_name else "config.transport.name"

    def _called(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function returns; of a plugin, whatever it raises becomes a `UserError`."""
        if not self.plugin_name:
            return function(*args)
        return call("config.transport.name", self.plugin_name, function, *args)

    def _wrong(self, what: str, gives: str, allowed: str) -> UserError:
        return UserError(f"{self._key}: {type(self).__name__}.{what} gives {gives}; allowed is {allowed}")


class Delta(Transport):
    """One stream per version: increments of the nested sub-models in ascending order (Algorithm 3, Eq. 12, 13)."""


class OneCopy(Transport):
    """One stream per version: all take the same copy of a model that all clients share."""

    whole_model = True
    increments = False


class Distinct(Transport):
    """One stream per version and distinct sub-model, the smallest first."""

    smallest_first = True
    increments = False

    def streams(self, group: np.ndarray) -> np.ndarray:
        return group


class Unicast(Transport):
    """One stream per dispatch; the client with the lowest id first."""

    shares = False
    increments = False


def _accept(name: str, found: object) -> Transport:
    """A plugin as a transport."""
    if not isinstance(found, Transport):
        allowed = "an object of a subclass of prfl_jax.clock.Transport"
        raise wrong("config.transport.name", name, found, allowed)
    vars(found)["plugin_name"] = name  # for errors; not by setattr, which a frozen dataclass refuses
    return found


# values of `transport.name`
TRANSPORTS: Registry[Transport] = Registry(
    "transport.name", {"delta": Delta(), "distinct": Distinct(), "one_copy": OneCopy(), "unicast": Unicast()}, _accept
)


def find_transport(name: str | Transport) -> Transport:
    """The transport that `transport.name` names, a built-in or a plugin; a transport itself is returned as it is.

    Raises:
      UserError: there is no such transport, or the plugin cannot be loaded or is none.
    """
    return name if isinstance(name, Transport) else TRANSPORTS.find(name)
