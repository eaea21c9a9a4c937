"""The models of a run in which clients choose their masks: the server's under its mask, and each client's own (Eq. 6).

The oracle makes them in NumPy from the state at the end of the run, weight by weight as the paper has it, and counts
right answers on the test samples in float64.
"""

from __future__ import annotations

from unittest import mock

import jax
import numpy as np
import pytest
import tiny

from prfl_jax.models import load_model
from prfl_jax.report import read_metrics
from prfl_jax.runtime import experiment as experiment_module
from prfl_jax.runtime.experiment import Experiment
from prfl_jax.runtime.records import own_models
from prfl_jax.submodel import load_masks
from prfl_jax.tasks import Scores

LEAVES = ("Dense_0/kernel", "Dense_1/kernel")


class Ended:
    """A run at its end: its parts, the state on the device as NumPy arrays, and what it left."""

    def __init__(self, folder):
        self.experiment = Experiment(tiny.config("layerwise", pruning__interval=2, pruning__initial_rounds=0))

        def keep(simulation, state):
            self.state = jax.tree.map(np.array, state)
            return original(simulation, state)

        original = experiment_module.final_masks
        with (
            mock.patch.object(experiment_module, "final_masks", keep),
            mock.patch.object(experiment_module, "run_figure"),
        ):
            self.finished = self.experiment.run(folder, progress=False)
        self.folder, self.report = folder, self.finished.report
        (self.record,) = [r for r in read_metrics(folder / "metrics.jsonl") if r["kind"] == "final"]

    def server_mask(self):
        return {path: level == 1 for path, level in zip(LEAVES, self.state.levels, strict=True)}

    def client_mask(self, client):
        """Bit k of byte j is weight k * ceil(n/8) + j."""
        masks = {}
        for path, level, bits in zip(LEAVES, self.state.levels, self.state.clients.work.bits, strict=True):
            stride = -(-level.size // 8)
            held = [bool(bits[client][i % stride] >> (i // stride) & 1) for i in range(level.size)]
            masks[path] = np.array(held).reshape(level.shape)
        return masks

    def server_model(self):
        """w_s m_s, by path; biases as they are."""
        params = self.dense_model()
        return params | {path: params[path] * mask for path, mask in self.server_mask().items()}

    def own_model(self, client):
        """(w_s m_s + w_n (1 - m_s)) m_n, by path."""
        params, held, own = self.dense_model(), self.server_mask(), self.client_mask(client)
        for path, weights in zip(LEAVES, self.state.clients.work.weights, strict=True):
            params[path] = (params[path] * held[path] + weights[client] * ~held[path]) * own[path]
        return params

    def dense_model(self):
        named = jax.tree_util.tree_flatten_with_path(self.state.params)[0]
        return {"/".join(key.key for key in path): leaf.astype(np.float64) for path, leaf in named}

    def right(self, params):
        """(labels of the test samples, whether each is predicted)."""
        simulation = self.experiment.simulation
        rows = simulation.split.test
        x = simulation.dataset.x_test[rows].reshape(len(rows), -1) / 255
        y = simulation.dataset.y_test[rows]
        hidden = np.maximum(x @ params["Dense_0/kernel"] + params["Dense_0/bias"], 0)
        return y, np.argmax(hidden @ params["Dense_1/kernel"] + params["Dense_1/bias"], axis=1) == y

    def under_own_mix(self, params, client):
        """The mean over the client's training samples of the accuracy on test samples with the same label."""
        simulation = self.experiment.simulation
        y, right = self.right(params)
        labels = simulation.dataset.y_train[simulation.split.clients[client]]
        return np.mean([right[y == label].mean() for label in labels if (y == label).any()])


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    return Ended(tmp_path_factory.mktemp("own") / "run")


def test_the_server_model_is_evaluated_and_saved_under_its_mask(ended):
    want, dense = ended.server_model(), ended.dense_model()
    saved = load_model(str(ended.folder / "final_model.npz"))
    for path, leaf in want.items():
        layer, name = path.split("/")
        np.testing.assert_array_equal(saved[layer][name], leaf)
        np.testing.assert_array_equal(ended.finished.params[layer][name], leaf)
    assert all((dense[path][~mask] != 0).any() for path, mask in ended.server_mask().items())  # W itself is dense
    accuracy = ended.right(want)[1].mean()
    assert ended.report["final"]["accuracy"] == pytest.approx(accuracy, abs=1e-9)
    assert accuracy != ended.right(dense)[1].mean()  # else nothing was tested


def test_each_clients_own_model_is_scored_under_its_own_mix(ended):
    want = [ended.under_own_mix(ended.own_model(client), client) for client in range(4)]
    entries = ended.report["clients"]
    np.testing.assert_allclose([entry["own_accuracy"] for entry in entries], want, atol=1e-9)
    assert ended.record["own_models"]["per_client"] == [entry["own_accuracy"] for entry in entries]
    server = [ended.under_own_mix(ended.server_model(), client) for client in range(4)]
    np.testing.assert_allclose([entry["accuracy"] for entry in entries], server, atol=1e-9)
    assert want != server
    sizes = [len(rows) for rows in ended.experiment.simulation.split.clients]
    section = ended.report["own_models"]
    assert section["accuracy_mean"] == pytest.approx(np.average(want, weights=sizes), abs=1e-9)
    assert section["worst_client"] == {"client": np.argmin(want), "accuracy": pytest.approx(min(want))}


def test_own_models_have_values_that_the_servers_mask_lacks(ended):
    held = ended.server_mask()
    for client in range(4):
        own, kept = ended.client_mask(client), ended.own_model(client)
        assert any((kept[path][own[path] & ~held[path]] != 0).any() for path in LEAVES)
        assert any((own[path] < held[path]).any() for path in LEAVES)


def test_the_masks_file_has_the_masks_of_the_state(ended):
    found = load_masks(ended.folder / ended.report["masks"]["file"])
    for got, want in [
        (found.of_server(), ended.server_mask()),
        *((found.of_client(client), ended.client_mask(client)) for client in range(4)),
    ]:
        assert got.keys() == want.keys() and all(np.array_equal(got[path], want[path]) for path in want)
    values = {path: leaf.size for path, leaf in ended.dense_model().items()}
    biases = sum(size for path, size in values.items() if path not in LEAVES)
    for entry in ended.report["clients"]:
        held = sum(int(mask.sum()) for mask in found.of_client(entry["client"]).values())
        assert entry["retention"] == pytest.approx((held + biases) / sum(values.values()))
    held = sum(int(mask.sum()) for mask in found.of_server().values())
    masks, weights = ended.report["masks"], sum(values[path] for path in LEAVES)
    assert masks["retention"] == pytest.approx((held + biases) / sum(values.values()))
    per_value = 8e6 / sum(values.values())  # model.size_mb=8.0
    assert masks["server_bytes"] == round((held + biases) * per_value) + min(-(-weights // 8), 4 * held)


def scored(correct, count):
    return Scores(np.array(correct), np.array(count), loss=1.0)


def test_own_accuracies_are_weighted_by_samples_by_hand():
    scores = [scored([4, 1, 0], [4, 4, 0]), scored([2, 2, 0], [4, 4, 0]), scored([4, 4, 0], [4, 4, 0])]
    mixes = [np.array([1, 3, 9]), np.array([2, 2, 0]), np.array([0, 0, 5])]  # nothing is known of the third's label
    found = own_models(scores, [10, 30, 60], mixes)
    assert found["per_client"] == [pytest.approx((1 * 1 + 3 * 0.25) / 4), 0.5, None]
    assert found["mean"] == pytest.approx((10 * 0.4375 + 30 * 0.5) / 40)
    assert found["worst_client"] == {"client": 0, "accuracy": pytest.approx(0.4375)}
    without_labels = own_models(scores, [10, 30, 60], [])
    assert without_labels["per_client"] == [5 / 8, 0.5, 1.0]
    assert without_labels["mean"] == pytest.approx(0.1 * 0.625 + 0.3 * 0.5 + 0.6)
    assert own_models(scores[:1], [10], mixes[2:]) == {
        "per_client": [None], "mean": None, "worst_client": {"client": None, "accuracy": None},
    }  # fmt: skip
