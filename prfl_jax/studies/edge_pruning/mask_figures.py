"""The edge pruning paper's figures of masks (Figs. 5 to 7), and how similar the clients' masks are."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from prfl_jax.studies.curves import grid, save
from prfl_jax.studies.edge_pruning import paper
from prfl_jax.studies.edge_pruning.kept_masks import KeptMasks, kept_masks, masks_file
from prfl_jax.studies.edge_pruning.setting import METHODS, VANILLA, Setting, bases, method_name, sampled, settings_of
from prfl_jax.studies.edge_pruning.tables import NONE, notes
from prfl_jax.studies.study import Material
from prfl_jax.studies.tables import write_table

LAYERWISE = "layerwise"
PRUNING = tuple(method for method in METHODS if method != VANILLA)
_TITLE = 68  # characters of a line of a title
LAYERS = ("conv1", "dense0")  # of which pictures are drawn


def masks_of(material: Material, setting: Setting, method: str) -> KeptMasks | None:
    """The masks of the first seed's run, None where there is no run or none were kept."""
    file = masks_file(material.out / "runs" / setting.key / f"{method}_seed0.json")
    reports = material.reports.get((setting.key, method), ())
    return kept_masks(file) if file.exists() and any(report["seed"] == 0 for report in reports) else None


def layer_of(masks: KeptMasks, name: str) -> str:
    """The path of a layer's mask."""
    return next(path for path in masks.pictures if name in path)


def isolated(picture: np.ndarray) -> float:
    """Share of the kept weights of a picture `[H, W]` with no kept one above, below, to the left or to the right."""
    padded = np.pad(picture, 1)
    beside = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return float((picture & ~beside).sum() / max(1, picture.sum()))


def similarity(material: Material) -> None:
    """How similar the clients' masks are: a table with a row for each client, and a heat map for each run."""
    found = [
        (setting, method, masks.similarity)
        for setting in settings_of(material.preset.columns)
        for method in PRUNING
        if (masks := masks_of(material, setting, method)) is not None and masks.similarity.size
    ]
    if not found:
        return
    figure, panels = grid(len(found), 4.6, 4.0)
    rows = []
    for ax, (setting, method, matrix) in zip(panels, found, strict=True):
        image = ax.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
        ax.set_title(f"{textwrap.fill(setting.title, _TITLE)}\n{method_name(method)}", fontsize=7)
        ax.set_xticks(range(len(matrix)))
        ax.set_yticks(range(len(matrix)))
        figure.colorbar(image, ax=ax)
        for client, own in enumerate(matrix):
            cells = [f"{value:.3f}" for value in own]
            rows.append([setting.title, method_name(method), str(client), *cells])
    save(figure, material.out / "similarity", material.preset.mark)
    widest = max(len(matrix) for _, _, matrix in found)
    rows = [row + [""] * (3 + widest - len(row)) for row in rows]
    header = ["setting", "method", "client", *(f"with {client}" for client in range(widest))]
    said = "weights that two clients keep over weights that one of the two keeps, all layers, seed 0, the first clients"
    settings = [setting for setting, _, _ in found]
    title = "Similarity of the clients' masks"
    write_table(material.out / "similarity", title, header, rows, notes(material.of(settings, PRUNING), said))


def fig5(material: Material) -> None:
    """Masks of two writers and of two groups of writers after layerwise pruning, and how similar each two are."""
    found = [
        (setting, masks)
        for setting in (*sampled(material.preset.columns), *bases(material.preset.columns))
        if (masks := masks_of(material, setting, LAYERWISE)) is not None
    ]
    if not found:
        return
    names = itertools.cycle("abcd")
    shown = [(next(names), setting, masks, client) for setting, masks in found for client in (0, 1)]
    figure, panels = grid(len(LAYERS) * len(shown), 4.2, 2.8)
    axes = iter(panels)
    rows = []
    for layer in LAYERS:
        for name, setting, masks, client in shown:
            _image(next(axes), masks, layer, 1 + client, f"({name}) {setting.title}, client {client}")
    for name, setting, masks, client in shown:
        shares = [f"{100 * masks.shares[layer_of(masks, layer)][1 + client]:.1f}" for layer in LAYERS]
        report = next(r for r in material.reports[setting.key, LAYERWISE] if r["seed"] == 0)
        kept = f"{100 * report['clients'][client]['retention']:.1f}"
        alike = f"{masks.similarity[0, 1]:.3f}"
        rows.append([name, setting.title, str(client), *shares, kept, f"{100 * paper.FIG5[name]:.1f}", alike])
    save(figure, material.out / "fig5", material.preset.mark)
    header = ["mask", "setting", "client", *(f"of {layer}, %" for layer in LAYERS), "of the model, %", "paper, %"]
    said = (
        "a client is one writer where ten writers are drawn a round, else a fifth of the writers; the paper's a and b "
        "are two writers, c and d two groups"
    )
    part = notes(material.of([setting for setting, _ in found], (LAYERWISE,)), said)
    title = "Fig. 5: masks of different clients"
    write_table(material.out / "fig5", title, [*header, "similarity of the two"], rows, part)


def fig6(material: Material) -> None:
    """The server's masks of the other pruning methods, and those of single clients of layerwise pruning."""
    others = [(method, 0) for method in PRUNING if method != LAYERWISE]
    _server_masks(material, "fig6", [*others, (LAYERWISE, 1)], "Fig. 6: masks of other methods, and of one client")


def fig7(material: Material) -> None:
    """The server's mask of layerwise pruning."""
    _server_masks(material, "fig7", [(LAYERWISE, 0)], "Fig. 7: the mask of layerwise pruning")


def _server_masks(material: Material, name: str, wanted: Sequence[tuple[str, int]], title: str) -> None:
    """Draws masks of the base settings and writes a table of how many kept weights stand alone.

    Args:
      wanted: method, and whose mask: 0 the server's, 1 that of the first client.
    """
    found = [
        (setting, method, whose, masks)
        for setting in bases(material.preset.columns)
        for method, whose in wanted
        if (masks := masks_of(material, setting, method)) is not None
    ]
    if not found:
        return
    figure, panels = grid(len(LAYERS) * len(found), 4.2, 2.8)
    rows = []
    for ax, ((setting, method, whose, masks), layer) in zip(panels, itertools.product(found, LAYERS), strict=True):
        who = f"client {whose - 1}" if whose else "server"
        _image(ax, masks, layer, whose, f"{method_name(method)}, {who}")
        path = layer_of(masks, layer)
        picture, share = masks.pictures[path][whose], masks.shares[path][whose]
        by_chance = f"{100 * (1 - picture.mean()) ** 4:.1f}" if picture.any() else NONE
        cells = [layer, f"{100 * share:.1f}", f"{100 * isolated(picture):.1f}", by_chance]
        rows.append([setting.title, method_name(method), who, *cells])
    save(figure, material.out / name, material.preset.mark)
    header = ["setting", "method", "whose mask", "layer", "kept, %", "of these isolated, %", "by chance, %"]
    said = (
        "isolated: no kept weight above, below, to the left or to the right in the picture (the paper's noise); by "
        "chance: of as many weights at random places; of a dense layer the picture has evenly spaced rows and columns"
    )
    methods = [method for method, _ in wanted]
    settings = [setting for setting, *_ in found]
    write_table(material.out / name, title, header, rows, notes(material.of(settings, methods), said))


def _image(ax: Axes, masks: KeptMasks, layer: str, whose: int, title: str) -> None:
    path = layer_of(masks, layer)
    ax.imshow(masks.pictures[path][whose], cmap="gray", interpolation="nearest", aspect="auto", vmin=0, vmax=1)
    ax.set_title(f"{textwrap.fill(title, _TITLE)}\n{layer}: {100 * masks.shares[path][whose]:.1f} % kept", fontsize=7)
    ax.set_xticks([])
    ax.set_yticks([])
