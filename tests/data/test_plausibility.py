"""What can be trained on but looks strange: one line for each, once, where the user sees it."""

import copy

import numpy as np
import pytest
import tiny
from data_sources import RNG, TEST, TRAIN, Sources, good

from prfl_jax import Experiment, data
from prfl_jax.data import check, plausibility
from prfl_jax.system import notices


@pytest.fixture
def load(tmp_path, monkeypatch):
    every = Sources(tmp_path, monkeypatch)
    return lambda name, arrays: data.load(getattr(every, name)(arrays), 0)


STRANGE = {
    "channels first": (
        lambda a: {k: np.repeat(v[:, None], 3, 1) if k[0] == "x" else v for k, v in a.items()},
        "it is taken for images of 3 x 8 pixels and 8 channels; if the channels come first: x.transpose(0, 2, 3, 1)",
    ),
    "one channel first": (
        lambda a: {k: v[:, None] if k[0] == "x" else v for k, v in a.items()},
        "it is taken for images of 1 x 8 pixels and 8 channels; if the channels come first: x.transpose(0, 2, 3, 1)",
    ),
    "many channels": (
        lambda a: {k: np.repeat(v[..., None], 13, -1) if k[0] == "x" else v for k, v in a.items()},
        "it is taken for images of 8 x 8 pixels and 13 channels; channels come last",
    ),
    "flat with axes": (
        lambda a: {k: v.reshape(len(v), 64, 1) if k[0] == "x" else v for k, v in a.items()},
        "it is taken for images of 64 x 1 pixels and 1 channels; expected is [N, H, W] or [N, H, W, C]",
    ),
    "0/1 pixels": (
        lambda a: {"x_train": a["x_train"] // 128},
        "all pixels of the training images lie in 0..1, and 255 is full; scale them to 0..255",
    ),
    "0/16 pixels in the test images alone": (
        lambda a: {"x_test": a["x_test"] // 16},
        "all pixels of the test images lie in 0..15, and 255 is full; scale them to 0..255",
    ),
    "all black": (
        lambda a: {"x_train": 0 * a["x_train"]},
        "all pixels of the training images are 0, and 255 is full; scale them to 0..255",
    ),
    "some black": (
        lambda a: {"x_train": a["x_train"] * (np.arange(TRAIN) > 2)[:, None, None].astype(np.uint8)},
        "3 of 40 training images are one value all over (3 black)",
    ),
    "some white": (
        lambda a: {"x_test": np.where((np.arange(TEST) > 0)[:, None, None], a["x_test"], 255).astype(np.uint8)},
        "1 of 12 test images are one value all over",
    ),
    "labels from 5000": (
        lambda a: {"y_train": a["y_train"] + 5000, "y_test": a["y_test"] + 5000},
        "no training image has label 0 to 4999, of 0..5009; if labels count from 5000, subtract that",
    ),
    "labels from 1": (
        lambda a: {"y_train": a["y_train"] + 1, "y_test": a["y_test"] + 1},
        "no training image has label 0, of 0..10; if labels count from 1, subtract that",
    ),
    "labels with gaps": (
        lambda a: {"y_train": 3 * a["y_train"], "y_test": 3 * a["y_test"]},
        "no training image has label 1 to 2, 4 to 5, 7 to 8, 10 to 11 and 10 more, of 0..27",
    ),
    "test labels that are not trained": (
        lambda a: {"y_train": a["y_train"] % 8},
        "no training image has label 8 to 9, of 0..9, but 2 of 12 test images do",
    ),
    "one class for training": (lambda a: {"y_train": 0 * a["y_train"]}, "all 40 training images have one label, 0"),
    "one class for testing": (lambda a: {"y_test": 0 * a["y_test"] + 7}, "all 12 test images have one label, 7"),
    "test images among the training images": (
        lambda a: {"x_test": np.concatenate([a["x_train"][3:8], a["x_test"][5:]])},
        "5 of 12 test images are training images too",
    ),
}


@pytest.mark.parametrize("fault", STRANGE)
def test_what_only_looks_strange_is_taken_with_a_line(load, fault):
    change, said = STRANGE[fault]
    arrays = good()
    arrays |= change(arrays)
    got = load("npz", arrays)
    assert said in got.notes
    more = {"one class for training": 1, "labels from 5000": 0}.get(fault, 0)  # the untrained ones are told of as well
    assert len(got.notes) == 1 + more, got.notes
    np.testing.assert_array_equal(got.x_train.reshape(arrays["x_train"].shape), arrays["x_train"])
    np.testing.assert_array_equal(got.y_train, arrays["y_train"])
    assert got.num_classes == max(arrays["y_train"].max(), arrays["y_test"].max()) + 1


def test_sets_that_are_in_use_are_not_strange():
    """Colour, white background, one channel, small squares: no line."""
    for shape in ((8, 8), (8, 8, 1), (8, 8, 3), (8, 8, 4), (4, 4, 3), (28, 20)):
        arrays = good(shape)
        found = check.checked_arrays("x", arrays, None)
        assert found.notes == ()
    white = good() | {"x_train": np.where(RNG.random((TRAIN, 8, 8)) < 0.8, 255, 0).astype(np.uint8)}
    assert check.checked_arrays("x", white, 10).notes == ()
    assert plausibility._ranges([0, 1, 2, 5, 7, 8]) == "0 to 2, 5, 7 to 8"


# --- where it is said ---


@pytest.fixture
def strange_file(tmp_path):
    rng = np.random.default_rng(1)
    y = np.arange(400) % 4 + 1
    x = (rng.random((400, 6, 6)) < 0.2 * y[:, None, None]).astype(np.uint8)
    np.savez(tmp_path / "bits.npz", x_train=x, y_train=y, x_test=x[:0:-7] ^ 1, y_test=y[:0:-7])
    return tmp_path / "bits.npz"


@pytest.mark.slow
def test_a_warning_is_printed_once_and_is_in_the_report(strange_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(notices, "_said", set())
    config = tiny.config("fedavg", rounds=2, data__name=str(strange_file), data__train_limit=300, data__test_limit=50)
    first = Experiment(copy.deepcopy(config))
    config.seed += 1
    Experiment(config)  # a comparison, another seed
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    notes = first.simulation.dataset.notes
    assert lines == [f"warning: data.name={strange_file}: {note}" for note in notes]
    assert len(notes) == 3 and any("lie in 0..1" in note for note in notes) and any("count from 1" in n for n in notes)
    report = tiny.run_experiment(first).report
    assert report["partition"]["notes"] == list(notes)
    assert "notes" not in Experiment(tiny.config("fedavg"))._data_notes()


def test_the_dry_run_says_it_too(strange_file):
    from prfl_jax.runtime.dry_run import describe

    config = tiny.config("fedavg", rounds=2, data__name=str(strange_file), data__train_limit=300, data__test_limit=50)
    rows = [line for line in describe(config).splitlines() if line.startswith("warning")]
    assert len(rows) == 3 and "training images lie in 0..1" in rows[0] and "bits.npz" in rows[0]


def test_it_is_said_where_the_data_are_then_refused(tmp_path, capsys, monkeypatch):
    """Images with their channels first do not fit a model: the reason is told beside the refusal."""
    from prfl_jax.runtime.dry_run import describe
    from prfl_jax.system.errors import UserError

    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 256, (440, 3, 16, 16), dtype=np.uint8), np.arange(440) % 10
    np.savez(tmp_path / "first.npz", x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:])
    config = tiny.config("fedavg", rounds=2, data__name=str(tmp_path / "first.npz"), model__name="conv2")
    for call in (describe, Experiment):
        monkeypatch.setattr(notices, "_said", set())
        with pytest.raises(UserError, match="does not take images"):
            call(copy.deepcopy(config))
        assert "taken for images of 3 x 16 pixels and 16 channels; if the channels" in capsys.readouterr().err


def test_a_warning_is_one_line_whatever_is_in_it(capsys, monkeypatch):
    monkeypatch.setattr(notices, "_said", set())
    for _ in range(2):
        notices.warn_once("a\nb \x1b[31m c")
    notices.note_once("a")
    assert capsys.readouterr().err == "warning: a b \\x1b[31m c\nnote: a\n"
    monkeypatch.setattr("sys.stderr", None)
    notices.warn_once("nobody hears it")
