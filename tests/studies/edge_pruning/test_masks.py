"""What is kept of a run's masks, and the figures drawn from it."""

import numpy as np
import pytest
from edge_pruning_runs import report, setting
from study_reports import material, rows_of

from prfl_jax.studies.edge_pruning import mask_figures
from prfl_jax.studies.edge_pruning.kept_masks import EDGE, keep_masks, kept_masks, picture
from prfl_jax.submodel.saved_masks import SavedMasks, packed, save_masks
from prfl_jax.system.errors import UserError

SHAPES = {"params/conv1/kernel": (3, 3, 2, 4), "params/dense0/kernel": (200, 20)}


def saved(folder, clients=7):
    """Random masks of a server and some clients, as a run writes them; returned as booleans, the server first."""
    rng = np.random.default_rng(0)
    masks = {path: rng.random((1 + clients, *shape)) < 0.4 for path, shape in SHAPES.items()}
    stacks = {path: np.stack([packed(own) for own in masks[path]]) for path in SHAPES}
    own = {path: stack[1:] for path, stack in stacks.items()} if clients else {}
    folder.mkdir(parents=True)
    save_masks(folder / "masks.npz", SavedMasks(SHAPES, {path: stack[0] for path, stack in stacks.items()}, own))
    return masks


def test_what_is_kept_is_what_there_was(tmp_path):
    masks = saved(tmp_path / "run")
    keep_masks(0, tmp_path / "run", tmp_path / "out/layerwise_seed0.json")
    found = kept_masks(tmp_path / "out/layerwise_seed0.masks.npz")
    assert list(found.pictures) == list(SHAPES)
    conv, dense = SHAPES
    np.testing.assert_allclose(found.shares[conv], masks[conv][:6].mean((1, 2, 3, 4)), rtol=1e-6)
    tiles = found.pictures[conv]
    assert tiles.shape == (6, 2 * 3, 4 * 3)  # of five of the seven clients
    for i, o in np.ndindex(2, 4):
        np.testing.assert_array_equal(tiles[4, 3 * i : 3 * i + 3, 3 * o : 3 * o + 3], masks[conv][4, :, :, i, o])
    assert found.pictures[dense].shape == (6, EDGE, 20)
    np.testing.assert_array_equal(found.pictures[dense][2][[0, -1]], masks[dense][2][[0, -1]])
    flat = np.concatenate([masks[path][1:].reshape(7, -1) for path in SHAPES], axis=1)
    slow = [[(a & b).sum() / (a | b).sum() for b in flat] for a in flat]
    np.testing.assert_allclose(found.similarity, slow, rtol=1e-6)


def test_only_the_first_seed_and_only_masks_are_kept(tmp_path):
    saved(tmp_path / "run", clients=0)
    keep_masks(1, tmp_path / "run", tmp_path / "a_seed1.json")
    keep_masks(0, tmp_path / "elsewhere", tmp_path / "b_seed0.json")
    assert not list(tmp_path.glob("*.npz"))
    keep_masks(0, tmp_path / "run", tmp_path / "c_seed0.json")  # clients have no masks of their own
    found = kept_masks(tmp_path / "c_seed0.masks.npz")
    assert len(found.pictures["params/conv1/kernel"]) == 1 and found.similarity.size == 0
    with pytest.raises(UserError, match="delete its report"):
        kept_masks(tmp_path / "run/masks.npz")


def test_isolated_weights_by_hand():
    one = np.zeros((4, 5), bool)
    one[0, 0] = one[2, 2] = one[2, 3] = one[3, 4] = True  # the pair touches, the corner pair does not
    assert mask_figures.isolated(one) == 0.5
    assert mask_figures.isolated(np.zeros((2, 2), bool)) == 0.0
    assert picture(np.eye(3, dtype=bool)).trace() == 3


def test_figures_of_masks(tmp_path):
    columns = (setting(), setting("s", sampled=True, methods=("layerwise",)))
    reports = {(key, "layerwise"): [report([0.1, 0.2], [0.5, 0.25])] for key in ("mnist", "s")}
    masks = saved(tmp_path / "run")
    made = material(tmp_path / "out", columns, reports, mark="A TEST")
    for make in (mask_figures.fig5, mask_figures.fig7, mask_figures.similarity):
        make(made)
    assert not (tmp_path / "out").exists()  # no masks were kept
    for key in ("mnist", "s"):
        keep_masks(0, tmp_path / "run", tmp_path / f"out/runs/{key}/layerwise_seed0.json")
    for make in (mask_figures.fig5, mask_figures.fig6, mask_figures.fig7, mask_figures.similarity):
        make(made)
        assert "A TEST" in (tmp_path / f"out/{make.__name__}.svg").read_text()
    a, b, c, d = rows_of(tmp_path / "out/fig5.csv")
    assert (a["setting"], c["setting"], a["paper, %"], d["paper, %"]) == ("S", "MNIST", "4.7", "8.6")
    assert (a["of the model, %"], b["of the model, %"]) == ("25.0", "45.0")
    assert b["of conv1, %"] == f"{100 * masks['params/conv1/kernel'][2].mean():.1f}"
    one, two = (rows_of(tmp_path / f"out/{name}.csv") for name in ("fig6", "fig7"))
    assert {row["whose mask"] for row in one} == {"client 0"} and {row["whose mask"] for row in two} == {"server"}
    rows = rows_of(tmp_path / "out/similarity.csv")
    assert len(rows) == 14 and rows[0]["with 0"] == "1.000" and rows[0]["with 1"] == rows[1]["with 0"] != "1.000"
