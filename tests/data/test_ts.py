"""Series in the `.ts` format: small files written here, damage, and two real sets where they are."""

import numpy as np
import pytest
from texts import config

from prfl_jax.data import data_dir, load
from prfl_jax.data.ts import read_ts
from prfl_jax.system.errors import UserError

HEADER = """# A comment: with colons, 1:2
%another
@problemName Own
@timestamps false
@missing true
@univariate false
@dimensions 2
@equalLength false
@classLabel true up down

@data
"""
TRAIN = HEADER + "1,2,3:4,5,6:down\n-1.5,2e-1:0,.5:up\n1,2,?,NaN:3,4,?,nan:up\n"
TEST = HEADER.replace("up down", "down up") + "7:8:up\n\n1,2:3,4:down\n"


def write(folder, train=TRAIN, test=TEST, name="Own"):
    for part, text in (("TRAIN", train), ("TEST", test)):
        if text is not None:
            (folder / f"{name}_{part}.ts").write_text(text)
    return config(f"{name}_TRAIN.ts", folder)


def test_ragged_series_are_padded_behind(tmp_path):
    nan = np.nan
    data = load(write(tmp_path), 0)
    wanted = [[[1, 4], [2, 5], [3, 6]], [[-1.5, 0], [0.2, 0.5], [nan, nan]], [[1, 3], [2, 4], [nan, nan]]]
    np.testing.assert_array_equal(data.x_train, np.float32(wanted))
    np.testing.assert_array_equal(
        data.x_test, np.float32([[[7, 8], [nan] * 2, [nan] * 2], [[1, 3], [2, 4], [nan] * 2]])
    )
    # numbered as the training file has them
    assert data.y_train.tolist() == [1, 0, 0] and data.y_test.tolist() == [0, 1] and data.num_classes == 2
    assert data.x_train.dtype == np.float32 and data.sample.padded and data.writer_train is None
    assert data.source == "files Own_TRAIN.ts and Own_TEST.ts"
    absolute = load(config(str(tmp_path / "Own_TRAIN.ts")), 0)
    np.testing.assert_array_equal(absolute.x_train, data.x_train)
    scaled = load(write(tmp_path).copy_and_resolve_references(), 0)
    assert scaled.name == "Own_TRAIN.ts"


def test_standard_scaling_leaves_padding_out(tmp_path):
    cfg = write(tmp_path)
    cfg.normalize = "standard"
    data = load(cfg, 0)
    first = np.array([1, 2, 3, -1.5, 0.2, 1, 2])  # the first channel of all training steps
    np.testing.assert_allclose(data.x_train[0, :, 0], (first[:3] - first.mean()) / first.std(), rtol=1e-6)
    assert np.isnan(data.x_train[1, 2]).all()


def test_univariate_series_of_one_length(tmp_path):
    head = "@problemName A\n@univariate true\n@equalLength true\n@seriesLength 3\n@classLabel true 0 1\n@data\n"
    data = load(write(tmp_path, head + "1,2,3:1\n4,5,6:0", head + "1,1,1:0\n"), 0)
    assert data.x_train.tolist() == [[[1], [2], [3]], [[4], [5], [6]]] and not data.sample.padded
    bare = "@classLabel true 0 1\n@data\n1,2:3,4:0\n5,6:7,8:1\n"  # channels are counted in the first series
    assert load(write(tmp_path, bare, bare, "Bare"), 0).x_train.shape == (2, 2, 2)


LAST = TRAIN.rstrip("\n").rindex("\n") + 1
REFUSED = {
    "cut in a value": (TRAIN[: LAST + 5], "line 14: label '1,2,?', allowed are up, down, behind the last ':'"),
    "cut in a channel": (TRAIN[: LAST + 13], "line 14: label '3,4', allowed are up, down"),
    "cut in a label": (TRAIN.rstrip()[:-1], "line 14: label 'u', allowed are up, down"),
    "cut before the label": (TRAIN.rstrip()[:-2], "line 14: label '', allowed are up, down"),
    "cut in the header": (HEADER[: HEADER.index("@data")], "no line @data; it is cut, or no .ts file"),
    "cut behind the header": (HEADER, "no series behind @data; fetch it again"),
    "empty": ("", "no line @data"),
    "csv": ("1,2,3\n4,5,6\n", "line 1: values before @data"),
    "bytes": (None, "no text in UTF-8"),
    "a label that is not listed": (TRAIN + "1:2:left\n", "line 15: label 'left', allowed are up, down"),
    "too few channels": (TRAIN + "1,2:up\n", "line 15: 1 channels, expected 2"),
    "too many channels": (TRAIN + "1:2:3:up\n", "line 15: 3 channels, expected 2"),
    "ragged channels": (TRAIN + "1,2:3:up\n", "line 15: channels of 1 to 2 values; allowed are equally many"),
    "a word": (TRAIN + "1,x:3,4:up\n", "line 15: channel 1 holds 'x', allowed are numbers"),
    "an empty value": (TRAIN + "1,2:3,:up\n", "line 15: channel 2 holds '', allowed are numbers"),
    "missing inside": (TRAIN + "1,2,3:4,?,6:up\n", "line 15: value 2 of channel 2 is missing; fill it in"),
    "missing at the start": (TRAIN + "NaN,2:?,2:up\n", "line 15: value 1 of channel 1 is missing"),
    "missing in one channel": (TRAIN + "1,2:3,?:up\n", "line 15: value 2 of channel 2 is missing"),
    "nothing there": (TRAIN + "?,?:?,?:up\n", "line 15: all values are missing; leave the line out"),
    "infinite": (TRAIN + "1,2:-inf,3:up\n", "line 15: channel 2 holds '-inf', allowed are finite numbers of float32"),
    "beyond float32": (TRAIN + "1,1e40:2,3:up\n", "line 15: channel 1 holds '1e40', allowed are finite numbers"),
    "beyond float64": (TRAIN + "1,-1e999:2,3:up\n", "line 15: channel 1 holds '-1e999', allowed are finite numbers"),
    "time stamps": (TRAIN.replace("@timestamps false", "@timeStamps true"), "line 4: series with time stamps"),
    "no labels": (TRAIN.replace("@classLabel true up down", "@classLabel false"), "no '@classLabel true LABEL"),
    "no such flag": (TRAIN.replace("@univariate false", "@univariate no"), "@univariate is 'no', allowed are true and"),
    "no such count": (TRAIN.replace("@dimensions 2", "@dimensions two"), "@dimensions is 'two', allowed are whole"),
    "a label twice": (TRAIN.replace("up down", "up up"), "a label stands twice in @classLabel"),
    "another length": (
        TRAIN.replace("@equalLength false", "@equalLength true\n@seriesLength 3"),
        "line 14: 2 values in each channel, @seriesLength is 3",
    ),
}


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("1", "Own_TRAIN.ts ends without a line end behind its last label 1: if it was cut, that was 12"),
        ("1\n", None),
        ("1 ", None),
        ("12", None),  # no label is longer
        ("2", None),
    ],
)
def test_a_label_cut_to_another_one_is_noted(tmp_path, end, said):
    head = "@classLabel true 1 12 2\n@data\n"
    data = load(write(tmp_path, head + "1,2:2\n3,4:12\n5,6:" + end, head + "1,1:2\n1,2:2\n"), 0)
    assert [note for note in data.notes if "line end" in note] == ([said] if said else [])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fault", REFUSED)
def test_a_damaged_file_is_refused_in_a_line(tmp_path, fault):
    text, said = REFUSED[fault]
    cfg = write(tmp_path)
    (tmp_path / "Own_TRAIN.ts").write_bytes(b"\xff\xfe@" if text is None else text.encode())
    with pytest.raises(UserError) as e:
        load(cfg, 0)
    assert said in str(e.value) and "\n" not in str(e.value) and "Own_TRAIN.ts" in str(e.value)


def test_two_files_that_do_not_belong_together(tmp_path):
    cfg = write(tmp_path, test=TEST.replace("down up", "down up left"))
    with pytest.raises(UserError, match=r"Own_TEST\.ts: labels down, up, left, the training file has up, down"):
        load(cfg, 0)
    cfg = write(tmp_path, test=TEST.replace("@dimensions 2", "@dimensions 1").replace("7:8", "7").replace(":3,4", ""))
    with pytest.raises(UserError, match=r"Own_TEST\.ts: 1 channels, the training file has 2"):
        load(cfg, 0)
    (tmp_path / "Own_TEST.ts").unlink()
    with pytest.raises(UserError, match=r"no file .*Own_TEST\.ts of test series \(set data\.dir"):
        load(cfg, 0)
    with pytest.raises(UserError, match=r"no file .*Other_TRAIN\.ts of training series"):
        load(config("Other_TRAIN.ts", tmp_path), 0)


@pytest.mark.parametrize(
    ("name", "shape", "test", "classes"),
    [("JapaneseVowels", (270, 29, 12), 370, 9), ("ItalyPowerDemand", (67, 24, 1), 1029, 2)],
)
def test_real_series(name, shape, test, classes):
    path = data_dir(config("")) / "series" / f"{name}_TRAIN.ts"
    if not path.is_file():
        pytest.skip(f"no series/{path.name} in the data folder (PRFL_DATA_DIR)")
    data = load(config(str(path)), 0)
    assert data.x_train.shape == shape and data.x_test.shape == (test, *shape[1:]) and data.num_classes == classes
    assert data.notes == () and np.isin(np.arange(classes), data.y_train).all()
    header, series, labels = read_ts(path)
    # a slow reading of the last line
    *channels, label = path.read_text().strip().splitlines()[-1].split(":")
    wanted = np.array([[float(value) for value in channel.split(",")] for channel in channels]).T
    np.testing.assert_array_equal(series[-1], wanted)
    np.testing.assert_array_equal(data.x_train[-1, : len(wanted)], wanted.astype(np.float32))
    assert np.isnan(data.x_train[-1, len(wanted) :]).all() and header.labels[data.y_train[-1]] == labels[-1] == label
    if name == "JapaneseVowels":
        lengths = [len(one) for one in series]
        assert (min(lengths), max(lengths)) == (7, 26) and np.bincount(data.y_train).tolist() == [30] * 9
