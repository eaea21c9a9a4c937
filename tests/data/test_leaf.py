"""LEAF's folders as they come: writers in several files, files in any order, writers without images, damage."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT

from prfl_jax.config.defaults import default_config
from prfl_jax.data import load, prepare, prepared
from prfl_jax.data.femnist import leaf
from prfl_jax.data.leaf import parts
from prfl_jax.system import notices
from prfl_jax.system.errors import UserError


def pixels(seed, count):
    rng = np.random.default_rng(seed)
    return np.where(rng.random((count, 784)) < 0.8, 255, rng.integers(0, 256, (count, 784))).astype(np.uint8)


def content(users):
    """A file's JSON: user -> (images `[n, 784]` uint8, labels)."""
    data = {user: {"x": (x / 255).tolist(), "y": list(map(int, y))} for user, (x, y) in users.items()}
    return {"users": list(users), "num_samples": [len(y) for _, y in users.values()], "user_data": data}


def write(path, users):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(users if "users" in users else content(users)))


def some(seed, count):
    return pixels(seed, count), np.random.default_rng(seed).integers(0, 62, count)


def prepared_in(leaf_dir, data_dir, force=False):
    prepare.prepare_femnist(leaf_dir, data_dir, force)
    cfg = default_config().data
    cfg.name, cfg.dir = "femnist", str(data_dir)
    return load(cfg, 0)


def held(data, part):
    """(image, label, writer's number) of each record, sorted."""
    x, y, writer = (getattr(data, f"{name}_{part}") for name in ("x", "y", "writer"))
    return sorted((image.tobytes(), int(label), int(w)) for image, label, w in zip(x, y, writer, strict=True))


def wanted(*pieces):
    """The same of (writer's number, (images, labels))."""
    return sorted((x.tobytes(), int(y), w) for w, (xs, ys) in pieces for x, y in zip(xs, ys, strict=True))


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    monkeypatch.setattr(notices, "_said", set())


def test_shards_of_one_writer_are_joined_and_it_is_said(tmp_path, capfd):
    a, b, c, d = some(0, 5), some(1, 4), some(2, 3), some(3, 2)
    write(tmp_path / "leaf/train/1.json", {"f0": a, "f1": b})
    write(tmp_path / "leaf/train/2.json", {"f0": c})
    write(tmp_path / "leaf/test/1.json", {"f1": d, "f0": some(4, 2)})
    write(tmp_path / "leaf/test/2.json", {"f0": some(5, 1)})
    data = prepared_in(tmp_path / "leaf", tmp_path)
    assert held(data, "train") == wanted((0, a), (0, c), (1, b))
    assert held(data, "test") == wanted((0, some(4, 2)), (0, some(5, 1)), (1, d))
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert said == [
        f"note: {tmp_path / 'femnist'}: 12 training and 5 test images, 62 classes, 2 training writers",
        f"note: {tmp_path / 'leaf'}, train and test: 1 writers whose images lie in several files are joined, as f0 "
        "(1.json and 2.json)",
    ]


def test_a_writer_in_several_shards_gives_every_tenth_image(tmp_path, capfd):
    """Seven and eight images: the tenth is the third of the second file, though no file has ten."""
    a, b = some(0, 7), some(1, 8)
    write(tmp_path / "leaf/all_data_0.json", {"f0": a})
    write(tmp_path / "leaf/all_data_1.json", {"f0": b, "f1": some(2, 3)})
    data = prepared_in(tmp_path / "leaf", tmp_path)
    assert held(data, "test") == wanted((0, (b[0][2:3], b[1][2:3])))
    rest = (np.delete(b[0], 2, 0), np.delete(b[1], 2))
    assert held(data, "train") == wanted((0, a), (0, rest), (1, some(2, 3)))
    assert capfd.readouterr().err.count("are joined") == 1


def test_files_in_any_order_give_the_same_images(tmp_path):
    users = [{"f0": some(0, 4), "f2": some(1, 2)}, {"f1": some(2, 3)}, {"f0": some(3, 2)}]
    results = []
    for k, order in enumerate(itertools.permutations(range(3))):
        for name, which in zip("abc", order, strict=True):
            write(tmp_path / f"leaf{k}/train/{name}.json", users[which])
        write(tmp_path / f"leaf{k}/test/a.json", {"f1": some(9, 1)})
        write(tmp_path / f"leaf{k}/train/._a.json", {"users": "what a Mac leaves beside a file"})
        found = leaf.images_found()
        files = parts(tmp_path / f"leaf{k}")["train"]
        results.append(sorted((e.writer, e.image.tobytes(), e.label) for e in leaf.read(files, found)))
        numbers = sorted((e.writer, e.number) for e in leaf.read(files))
        assert numbers == [("f0", n) for n in range(6)] + [("f1", n) for n in range(3)] + [("f2", n) for n in range(2)]
        assert found.counts == {"f0": 6, "f1": 3, "f2": 2} and len(found.files["f0"]) == 2
    assert all(one == results[0] for one in results) and len(results[0]) == 11


def test_writers_without_images_are_left_out_and_counted(tmp_path, capfd):
    none = (np.zeros((0, 784)), [])
    write(tmp_path / "leaf/train/a.json", {"f0": some(0, 4), "f1": none, "f2": none})
    write(tmp_path / "leaf/train/b.json", {"f3": none, "f2": some(1, 2)})
    write(tmp_path / "leaf/test/a.json", {"f0": some(2, 1), "f2": some(3, 1)})
    write(tmp_path / "leaf/test/b.json", {"users": [], "num_samples": [], "user_data": {}})
    data = prepared_in(tmp_path / "leaf", tmp_path)
    assert held(data, "train") == wanted((0, some(0, 4)), (1, some(1, 2)))
    said = capfd.readouterr().err
    assert "train: 2 writers have no image, as f1, and are left out" in said and "joined" not in said


def test_json_in_another_unicode_form(tmp_path):
    text = json.dumps(content({"fé": some(0, 10)}), ensure_ascii=False)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32-le"):
        (tmp_path / "a.json").write_text(text, encoding=encoding)
        assert [e.writer for e in leaf.read([tmp_path / "a.json"])] == ["fé"] * 10


GOOD = content({"f0": some(0, 3), "f1": some(1, 2)})


def broken(**changes):
    return {**GOOD, **changes}


def data_with(user, **changes):
    return broken(user_data={**GOOD["user_data"], user: {**GOOD["user_data"][user], **changes}})


TEXT = json.dumps(GOOD)
REFUSED = {
    "cut short": (TEXT[: len(TEXT) // 2], "not a JSON file"),
    "nothing": ("", "not a JSON file"),
    "no UTF-8": (b'{"users": "\xff"}', "not a JSON file"),
    "nested without end": ("[" * 100_000, "not a JSON file"),
    "another layout": ([1, 2], "not LEAF's layout"),
    "a number": (3, "not LEAF's layout"),
    "users as text": (broken(users="f0"), "not LEAF's layout"),
    "counts as an object": (broken(num_samples={"f0": 3}), "not LEAF's layout"),
    "no list of images": (data_with("f0", x=7), "not LEAF's layout"),
    "null": (broken(user_data={**GOOD["user_data"], "f0": None}), "not LEAF's layout"),
    "one count too few": (broken(num_samples=[3]), "2 users but 1 entries in num_samples"),
    "another count": (broken(num_samples=[3, 5]), "user f1 has 2 images, 2 labels, num_samples 5"),
    "half a count": (broken(num_samples=[3.5, 2]), "user f0 has 3 images, 3 labels, num_samples 3.5"),
    "a label too few": (data_with("f1", y=[1]), "user f1 has 2 images, 1 labels, num_samples 2"),
    "no data": (broken(user_data={"f0": GOOD["user_data"]["f0"]}), "user f1 is in users but not in user_data"),
    "not listed": (broken(users=["f0"], num_samples=[3]), "user f1 is in user_data but not in users"),
    "listed twice": (broken(users=["f0", "f1", "f0"], num_samples=[3, 2, 3]), "user f0 is in users twice"),
    "held twice": (TEXT[:-2] + ', "f0": {"x": [], "y": []}}}', "not a JSON file (key 'f0' twice in one object)"),
    "label of text": (data_with("f1", y=[1, "3"]), "user f1, image 1: label '3', allowed are 0..61"),
    "label infinite": (data_with("f1", y=[1, float("inf")]), "user f1, image 1: label inf"),
    "label nan": (data_with("f1", y=[float("nan"), 1]), "user f1, image 0: label nan"),
    "no label": (data_with("f1", y=[-1, 1]), "user f1, image 0: label -1, allowed are 0..61"),
    "half a label": (data_with("f1", y=[1.5, 1]), "user f1, image 0: label 1.5"),
    "label true": (data_with("f1", y=[True, 1]), "user f1, image 0: label True"),
    "huge pixel": (data_with("f1", x=[[10**400] * 784] * 2), "user f1, image 0: expected 784 numbers in [0, 1]"),
    "pixels as bytes": (data_with("f1", x=[[255] * 784] * 2), "user f1, image 0: expected 784 numbers in [0, 1]"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_damaged_folder_is_refused_in_a_line(tmp_path, fault):
    made, said = REFUSED[fault]
    path = tmp_path / "leaf" / "a.json"
    path.parent.mkdir()
    text = made if isinstance(made, str | bytes) else json.dumps(made)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as e:
        prepare.prepare_femnist(tmp_path / "leaf", tmp_path / "data")
    assert said in str(e.value) and str(path) in str(e.value) and len(str(e.value).splitlines()) == 1
    assert not list((tmp_path / "data").glob("*"))


def test_a_copied_shard_would_count_its_images_twice(tmp_path):
    write(tmp_path / "leaf/train/a.json", GOOD)
    write(tmp_path / "leaf/train/copy.json", {"f1": some(1, 2), "f2": some(3, 2)})
    write(tmp_path / "leaf/test/a.json", {"f0": some(4, 2)})
    with pytest.raises(UserError, match=r"copy\.json: user f1 has the same images in a\.json; take one of the files"):
        prepare.prepare_femnist(tmp_path / "leaf", tmp_path / "data")


def test_folders_with_nothing_for_a_split(tmp_path):
    def fails(folder, said):
        with pytest.raises(UserError) as e:
            prepare.prepare_femnist(tmp_path / folder, tmp_path / "data")
        assert said in str(e.value) and len(str(e.value).splitlines()) == 1, str(e.value)
        assert not list((tmp_path / "data").glob("*"))

    write(tmp_path / "few/a.json", {"f0": some(0, 9), "f1": some(1, 3)})
    fails("few", f"{tmp_path / 'few'}: no writer has 10 images (the most is 9), and every 10th of a writer's is a test")
    nobody = {"users": [], "num_samples": [], "user_data": {}}
    write(tmp_path / "nobody/a.json", nobody)
    fails("nobody", "its files hold no image")
    write(tmp_path / "untested/train/a.json", GOOD)
    write(tmp_path / "untested/test/a.json", nobody)
    fails("untested", "its test files hold no image")
    write(tmp_path / "untrained/train/a.json", nobody)
    write(tmp_path / "untrained/test/a.json", GOOD)
    fails("untrained", "its train files hold no image")
    (tmp_path / "empty").mkdir()
    fails("empty", "no LEAF files; expected train/*.json and test/*.json, or *.json")


def test_what_was_there_stays_where_the_new_folder_is_refused(tmp_path):
    write(tmp_path / "good/a.json", {"f0": some(0, 20)})
    before = prepared_in(tmp_path / "good", tmp_path)
    write(tmp_path / "bad/a.json", {"f0": some(1, 9)})
    with pytest.raises(UserError, match="no writer has 10 images"):
        prepare.prepare_femnist(tmp_path / "bad", tmp_path, force=True)
    cfg = default_config().data
    cfg.name, cfg.dir = "femnist", str(tmp_path)
    np.testing.assert_array_equal(load(cfg, 0).x_train, before.x_train)


def run_without(packages, code):
    """A program for which packages cannot be imported."""
    hide = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, cwd=ROOT)


SCRIPT = """
import runpy
sys.argv = ["prepare_data.py", "--what=femnist", "--leaf_dir={leaf}", "--data_dir={data}"]
runpy.run_path("scripts/prepare_data.py", run_name="__main__")
"""
LOAD = """
from prfl_jax.config import default_config
from prfl_jax.data import load
from prfl_jax.system.errors import UserError
cfg = default_config().data; cfg.name, cfg.dir = {name!r}, {data!r}
try: load(cfg, 0)
except UserError as error: sys.exit(str(error))
"""


@pytest.mark.slow
def test_what_is_not_installed_is_said_in_a_line(tmp_path):
    write(tmp_path / "leaf/a.json", {"f0": some(0, 20)})
    (tmp_path / "data" / "femnist").mkdir(parents=True)
    tfds, where = "needs tensorflow-datasets", str(tmp_path / "data")
    cases = [
        (("tensorflow_datasets",), SCRIPT.format(leaf=tmp_path / "leaf", data=tmp_path / "new"), tfds),
        (("tensorflow_datasets",), LOAD.format(name="femnist", data=where), tfds),
        (("tensorflow_datasets",), LOAD.format(name="tfds:mnist", data=where), tfds),
    ]
    for hidden, code, said in cases:
        done = run_without(hidden, code)
        assert done.returncode != 0 and said in done.stderr and "pip install tensorflow-datasets" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_an_import_that_fails_on_the_way_names_the_package(tmp_path, monkeypatch):
    """Reading or making a set may import what is not there: TensorFlow for its own file format, Pillow for images."""

    class Builder:
        info = type("Info", (), {"features": {"image": 0, "label": type("L", (), {"num_classes": 3})()}})

        def as_data_source(self, part):
            try:
                raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
            except ModuleNotFoundError:
                raise RuntimeError("cannot read\nmore lines") from None

    package = type("Package", (), {"builder": staticmethod(lambda name, data_dir: Builder())})
    monkeypatch.setattr(prepared, "tensorflow_datasets", lambda needed_for: package)
    cfg = default_config().data
    cfg.name, cfg.dir = "tfds:own", str(tmp_path)
    with pytest.raises(UserError, match="cannot be read from .*cannot read.*; run: pip install tensorflow, or") as e:
        load(cfg, 0)
    assert len(str(e.value).splitlines()) == 1
