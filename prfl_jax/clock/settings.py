"""Makes the clock of a config: its network, window rule, transport and faults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prfl_jax.clock.clock import Clock
from prfl_jax.clock.close_rules import find_close_rule
from prfl_jax.clock.faults import Faults, faults_from_config
from prfl_jax.clock.faulty_clock import FaultyClock
from prfl_jax.clock.transports import find_transport
from prfl_jax.clock.types import Costs, Network
from prfl_jax.clock.window_rule import WindowRule


def in_turn(values: Sequence[float], clients: int) -> tuple[float, ...]:
    """A setting per client, `[M]`: a shorter list is repeated, so that client i has entry i mod its length."""
    return tuple(values) * (clients // len(values)) if values else ()


def network_from_config(config: Any) -> Network:
    """Speeds of `config.clients` and `config.server` (MB/s).

    Raises:
      UserError: see `Network`.
    """
    number = config.clients.number
    return Network(
        client_up=in_turn(config.clients.up_mb_s, number),
        client_down=in_turn(config.clients.down_mb_s, number),
        server_up=config.server.up_mb_s,
        server_down=config.server.down_mb_s,
        client_sigma=config.clients.sigma,
        server_sigma=config.server.sigma,
        contention=config.server.contention,
    )


def rule_from_config(config: Any) -> WindowRule:
    """The rule of `config.window`, key by key.

    Raises:
      UserError: see `WindowRule`.
    """
    return WindowRule(**{key: config.window[key] for key in WindowRule.__dataclass_fields__})


def faults_on(config: Any) -> bool:
    """Whether a config has any fault, or windows that cut clients off (attributes or keys, as a report has it)."""
    faults = config.get("faults") or {}
    close = (config.get("window") or {}).get("close")
    return any(faults.values()) or (close is not None and find_close_rule(close).cuts_off)


def clock_from_config(config: Any, start: Costs | dict[str, Any], faults: Faults | None = None) -> Clock:
    """The clock of a config at time 0, or as `Clock.to_state` left it; one with faults only where there can be any.

    Args:
      start: costs of the first dispatches, or that state.
      faults: those of the config, if its files have been read already.

    Raises:
      UserError: a value that is not allowed, or a file of faults that cannot be read.
    """
    rule = rule_from_config(config)
    own = (network_from_config(config), rule, find_transport(config.transport.name), config.seed)
    faults = faults_from_config(config) if faults is None else faults
    if faults.any or rule.close_rule.cuts_off:
        if isinstance(start, Costs):
            return FaultyClock(*own, start, faults)
        return FaultyClock.from_state(*own, start, faults)
    return Clock(*own, start) if isinstance(start, Costs) else Clock.from_state(*own, start)
