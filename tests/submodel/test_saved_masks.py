"""`masks.npz`: what is written is read back, bits lie as documented, and no other file is taken for one."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from prfl_jax.submodel import SavedMasks, load_masks
from prfl_jax.submodel.masks import pack
from prfl_jax.submodel.saved_masks import packed, save_masks
from prfl_jax.system.errors import UserError

SHAPES = {"a/kernel": (3, 3), "b/kernel": (2, 4)}  # 9 weights need a second byte, 8 fill one


def bits_by_hand(mask):
    """Bit k of byte j is weight k * ceil(n/8) + j."""
    stride = -(-mask.size // 8)
    out = np.zeros(stride, np.uint8)
    for place, held in enumerate(mask.reshape(-1)):
        out[place % stride] |= int(held) << (place // stride)
    return out


@pytest.fixture
def made(tmp_path):
    """(path, the server's masks, those of three clients) as booleans; the file is written."""
    rng = np.random.default_rng(0)
    server = {path: rng.random(shape) < 0.5 for path, shape in SHAPES.items()}
    clients = [{path: rng.random(shape) < 0.5 for path, shape in SHAPES.items()} for _ in range(3)]
    bits = {path: np.stack([bits_by_hand(own[path]) for own in clients]) for path in SHAPES}
    save_masks(
        tmp_path / "masks.npz", SavedMasks(SHAPES, {path: bits_by_hand(mask) for path, mask in server.items()}, bits)
    )
    return tmp_path / "masks.npz", server, clients


def equal(got, want):
    return got.keys() == want.keys() and all(
        got[path].dtype == bool and np.array_equal(got[path], want[path]) for path in want
    )


def test_what_is_saved_is_read_back(made):
    path, server, clients = made
    found = load_masks(path)
    assert found.shapes == SHAPES and equal(found.of_server(), server)
    assert all(equal(found.of_client(number), own) for number, own in enumerate(clients))
    assert [file.name for file in path.parent.iterdir()] == ["masks.npz"]


def test_packing_is_that_of_the_device():
    mask = np.random.default_rng(1).random((5, 7)) < 0.4
    np.testing.assert_array_equal(packed(mask), bits_by_hand(mask))
    np.testing.assert_array_equal(packed(mask), pack(jnp.asarray(mask).reshape(-1)))


def test_a_server_alone_has_no_clients(tmp_path):
    server = {path: bits_by_hand(np.ones(shape, bool)) for path, shape in SHAPES.items()}
    save_masks(tmp_path / "masks.npz", SavedMasks(SHAPES, server, {}))
    found = load_masks(tmp_path / "masks.npz")
    assert found.clients == {} == found.of_client(0)
    assert all(mask.all() and mask.shape == SHAPES[path] for path, mask in found.of_server().items())


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def flip(path):
    """A bit of the clients' masks, which the file's checksum covers."""
    content = bytearray(path.read_bytes())
    head = content.index(b"clients/a/kernel")
    content[content.index(b"\n", head) + 1] ^= 1
    path.write_bytes(content)


def with_arrays(**changes):
    """The file with some arrays replaced, or left out where None; `__` in a name stands for `/`."""

    def change(path):
        with np.load(path) as file:
            arrays = dict(file)
        for name, array in changes.items():
            arrays[name.replace("__", "/")] = array
        np.savez(path, **{name: array for name, array in arrays.items() if array is not None})

    return change


def foreign(path):
    np.savez(path, **{"Dense_0/kernel": np.zeros((3, 3), np.float32)})  # as final_model.npz


def pickled(path):
    with_arrays(server__a__kernel=np.array([{}], object))(path)


def plain_array(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3, np.uint8))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_text("{}"), ""),
        (cut, ""),
        (flip, "CRC"),
        (plain_array, ""),
        (pickled, "allow_pickle"),
        (foreign, "no array '@masks'"),
        (with_arrays(**{"@masks": np.int64(2)}), "'@masks' is not 1"),
        (with_arrays(**{"server__c__kernel": np.zeros(2, np.uint8)}), "leaves of 'server'"),
        (with_arrays(clients__a__kernel=None), "leaves of 'clients'"),
        (with_arrays(shape__a__kernel=np.array([3, 6])), r"server/a/kernel is uint8\[2\], not uint8\[3\]"),
        (with_arrays(server__a__kernel=np.zeros(2, np.int8)), "server/a/kernel is int8"),
        (with_arrays(clients__b__kernel=np.zeros((2, 1), np.uint8)), "clients/"),
        (with_arrays(notes=np.zeros(2)), "unknown array 'notes'"),
    ],
)
def test_another_file_is_refused_in_one_line(made, damage, said):
    path = made[0]
    damage(path)
    with pytest.raises(UserError, match=rf"masks.npz: not the masks of a run \(.*{said}.*\); allowed: ") as caught:
        load_masks(path)
    assert "\n" not in str(caught.value)
