"""Network and window rule out of a config's groups `clients`, `server` and `window`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prfl_jax.clock.types import Network, WindowRule


def in_turn(values: Sequence[float], clients: int) -> tuple[float, ...]:
    """A setting by client `[M]`: a shorter list is repeated, so that client i has entry i mod its length."""
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
