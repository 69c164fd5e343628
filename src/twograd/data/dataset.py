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
class Dataset:
    """Labelled images.

    ``images`` is (N, height, width), float32 in [0, 1], and ``labels`` is (N,), int32; neither can be written to.
    ``sha256`` is the digest of the uncompressed file, the same in every version of the package that was looked at.
    """

    name: str
    source: str
    licence: str
    sha256: str
    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        """An image and its label; images and labels at several indices."""
        return self.images[index], self.labels[index]

    def __repr__(self) -> str:
        return f"<Dataset {self.name}: {len(self)} images of {self.images.shape[1]} x {self.images.shape[2]}>"

    def about(self) -> dict[str, str]:
        """What should stand beside every figure made with these data."""
        size = f"{len(self)} images of {self.images.shape[1]} x {self.images.shape[2]}"
        return {
            "data": f"{self.name}, {size}", "source": self.source, "licence": self.licence, "sha256": self.sha256,
        }  # fmt: skip

    def split(self, test: int, seed: int = 0) -> tuple["Dataset", "Dataset"]:
        """The training set and the test set of ``test`` images, drawn without replacement by this seed."""
        if not 0 < test < len(self):
            raise ValueError(f"{self.name} has {len(self)} images; a test set of {test} leaves none for one side")
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(order[test:]), self.take(order[:test])

    def take(self, rows: np.ndarray) -> "Dataset":
        """The images at these indices, in this order."""
        return replace(self, images=_locked(self.images[rows]), labels=_locked(self.labels[rows]))


@dataclass(frozen=True, eq=False)
class Text:
    """A text, character by character: ``codes`` is (N,), int32, what each is in ``alphabet``."""

    name: str
    source: str
    licence: str
    sha256: str
    content: str

    @functools.cached_property
    def alphabet(self) -> str:
        """The characters that occur, in order."""
        return "".join(sorted(set(self.content)))

    @functools.cached_property
    def codes(self) -> np.ndarray:
        number = {character: i for i, character in enumerate(self.alphabet)}
        return _locked(np.fromiter(map(number.__getitem__, self.content), np.int32, len(self.content)))

    def decode(self, codes: Any) -> str:
        """The text that has these codes."""
        return "".join(self.alphabet[code] for code in np.asarray(codes))

    def __len__(self) -> int:
        return len(self.content)

    def __repr__(self) -> str:
        return f"<Text {self.name}: {len(self)} characters, {len(self.alphabet)} different>"

    def about(self) -> dict[str, str]:
        """What should stand beside every figure made with these data."""
        size = f"{len(self)} characters, {len(self.alphabet)} different"
        return {
            "data": f"{self.name}, {size}", "source": self.source, "licence": self.licence, "sha256": self.sha256,
        }  # fmt: skip

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
    return _locked(images), _locked(labels.astype(np.int32))


def _locked(array: np.ndarray) -> np.ndarray:
    """Loaders keep what they have read, so nobody may write to it."""
    array.flags.writeable = False
    return array


def _distribution(package: str) -> str:
    return {"sklearn": "scikit-learn"}.get(package, package)
