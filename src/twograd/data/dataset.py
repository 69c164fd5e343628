"""A data set, where it comes from, and how its file is found and read.

What flows in: the file of an installed package. What flows out: a :class:`Dataset`. Read :func:`read_file`: the package
is not imported, nothing is unpickled, and nothing is believed that has not the known digest.
"""

import functools
import gzip
import hashlib
import importlib.util
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np


class DataError(Exception):
    """A data set that cannot be had."""


class MissingData(DataError):
    """The package that carries the data set is not installed."""


class DamagedData(DataError):
    """The file of the data set is there, and is not what it should be."""


@dataclass(frozen=True, eq=False)
class Source:
    """What is to be known of any data: what they are called, where they come from, and which bytes they are."""

    name: str
    source: str
    licence: str
    sha256: str

    @property
    def size(self) -> str:
        """How much there is of what, in words."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.size}>"

    def about(self) -> dict[str, str]:
        """What should stand beside every figure made with these data."""
        return {
            "data": f"{self.name}, {self.size}", "source": self.source, "licence": self.licence, "sha256": self.sha256,
        }  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Source):
    """Labelled images.

    ``images`` is (N, height, width), float32 in [0, 1], and ``labels`` is (N,), int32; neither can be written to.
    ``sha256`` is the digest of the uncompressed file, the same in every version of the package that was looked at.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        """An image and its label; images and labels at several indices."""
        return self.images[index], self.labels[index]

    @property
    def size(self) -> str:
        return f"{len(self)} images of {self.images.shape[1]} x {self.images.shape[2]}"

    def split(self, test: int, seed: int = 0) -> tuple["Dataset", "Dataset"]:
        """The training set and the test set of ``test`` images, drawn without replacement by this seed."""
        learn, held_out = _parted(self, test, seed)
        return self.take(learn), self.take(held_out)

    def take(self, rows: np.ndarray) -> "Dataset":
        """The images at these indices, in this order."""
        return replace(self, images=locked(self.images[rows]), labels=locked(self.labels[rows]))


@dataclass(frozen=True, eq=False, repr=False)
class Trees(Source):
    """Labelled binary trees: each of ``trees`` is a number of ``words``, or a pair of trees; ``labels`` is (N,), int32,
    numbers of ``classes``."""

    words: tuple[str, ...]
    classes: tuple[str, ...]
    trees: tuple[Any, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.trees)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """A tree and its label."""
        return self.trees[index], self.labels[index]

    @property
    def size(self) -> str:
        return f"{len(self)} trees of {len(self.words)} different words"

    def split(self, test: int, seed: int = 0) -> tuple["Trees", "Trees"]:
        """The training set and the test set of ``test`` trees, drawn without replacement by this seed."""
        learn, held_out = _parted(self, test, seed)
        return self.take(learn), self.take(held_out)

    def take(self, rows: np.ndarray) -> "Trees":
        """The trees at these indices, in this order."""
        return replace(self, trees=tuple(self.trees[row] for row in rows), labels=locked(self.labels[rows]))


@dataclass(frozen=True, eq=False, repr=False)
class Text(Source):
    """A text, character by character: ``codes`` is (N,), int32, what each is in ``alphabet``."""

    content: str
    alphabet: str

    @functools.cached_property
    def codes(self) -> np.ndarray:
        number = {character: i for i, character in enumerate(self.alphabet)}
        return locked(np.fromiter(map(number.__getitem__, self.content), np.int32, len(self.content)))

    def decode(self, codes: Any) -> str:
        """The text that has these codes."""
        return "".join(self.alphabet[code] for code in np.asarray(codes))

    def __len__(self) -> int:
        return len(self.content)

    @property
    def size(self) -> str:
        return f"{len(self)} characters, {len(self.alphabet)} different"

    def split(self, test: int) -> tuple["Text", "Text"]:
        """All but the last ``test`` characters, and these, as texts of the same alphabet."""
        if not 0 < test < len(self):
            raise ValueError(f"{self.name} has {self.size}; a test text of {test} leaves none for one side")
        return replace(self, content=self.content[:-test]), replace(self, content=self.content[-test:])

    def batches(self, batch_size: int, length: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Without end: (batch_size, length) codes from places drawn by this seed, and the codes one place later."""
        rng = np.random.default_rng(seed)
        while True:
            starts = rng.integers(len(self) - length, size=batch_size)
            rows = self.codes[starts[:, None] + np.arange(length + 1)]
            yield rows[:, :-1], rows[:, 1:]


def read_file(package: str, path: str, sha256: str, largest: int) -> bytes:
    """The uncompressed bytes of the gzip file at ``path`` inside an installed ``package``.

    No more than ``largest`` bytes are uncompressed. Raises MissingData where the package is not installed, DamagedData
    where its file is absent, is no gzip file, or holds something else than the bytes of the digest ``sha256``.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingData(f"the package {_distribution(package)} is not installed: pip install 'twograd[data]'")
    file = Path(next(iter(spec.submodule_search_locations)), path)
    mend = f"Install it again: pip install --force-reinstall --no-deps {_distribution(package)}"
    try:
        with gzip.open(file) as stream:
            content = stream.read(largest)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DamagedData(f"{package}/{path}: cannot be read ({reason}). {mend}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise DamagedData(f"{package}/{path}: has sha256 {digest}, not {sha256}. {mend}")
    return content


def table(content: bytes) -> np.ndarray:
    """Lines of comma-separated whole numbers from 0 to 255 as a matrix of bytes."""
    return np.loadtxt(io.BytesIO(content), dtype=np.uint8, delimiter=",")


def labelled_images(pixels: np.ndarray, labels: np.ndarray, side: int, white: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``side * side`` pixels from 0 to ``white``, and their labels, as :class:`Dataset` holds them."""
    images = pixels.reshape(-1, side, side).astype(np.float32) / np.float32(white)
    return locked(images), locked(labels.astype(np.int32))


def _parted(data: Any, test: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of all but ``test`` items, and of these."""
    if not 0 < test < len(data):
        raise ValueError(f"{data.name} has {data.size}; a test set of {test} leaves none for one side")
    order = np.random.default_rng(seed).permutation(len(data))
    return order[test:], order[:test]


def locked(array: np.ndarray) -> np.ndarray:
    """Loaders keep what they have read, so nobody may write to it."""
    array.flags.writeable = False
    return array


def _distribution(package: str) -> str:
    return {"sklearn": "scikit-learn"}.get(package, package)
