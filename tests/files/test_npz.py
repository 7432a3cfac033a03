"""Arrays in `.npz` files; `test_staging.py` tests how files are put in place."""

import re
import zipfile

import numpy as np
import pytest

from tfbn.files import npz

HOW = "Write it by numpy.savez('x.npz', x=x)."


def test_arrays_come_back_by_name(tmp_path):
    arrays = {"x": np.arange(6.0).reshape(2, 3), "words": np.array(["a", "b"])}
    np.savez(tmp_path / "x.npz", **arrays)
    found = npz.read(tmp_path / "x.npz", HOW)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_another_file_is_refused_with_how_to_write_one(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.ones(3))
    message = re.escape(f"{path} is no .npz file, or a damaged one. {HOW}")
    with pytest.raises(ValueError, match=f"^{message}$"):
        npz.read(path, HOW)


def test_objects_are_not_unpacked(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.array([{}], object))
    with pytest.raises(ValueError, match=r"x\.npz cannot be read as numbers: Object arrays"):
        npz.read(tmp_path / "x.npz", HOW)


def test_a_damaged_array_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("x.npy", b"\x93NUMPY")
    with pytest.raises(ValueError, match=r"x\.npz cannot be read as numbers: "):
        npz.read(tmp_path / "x.npz", HOW)
