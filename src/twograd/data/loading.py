"""Batches in an order of one's own: ``torch.utils.data``'s loader over anything with a length and items.

What flows in: a data set, whose items are arrays, numbers or tuples of these. What flows out: batches of Tensors. Read
:class:`DataLoader`.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from twograd.tape import Tensor


class TensorDataset:
    """Several Tensors or arrays of one length; an item is a row of each."""

    def __init__(self, *tensors: Any):
        if any(len(tensor) != len(tensors[0]) for tensor in tensors):
            raise ValueError(f"Size mismatch between tensors: lengths {[len(tensor) for tensor in tensors]}")
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(tensor[index] for tensor in self.tensors)


class Subset:
    """The items of a data set at some indices."""

    def __init__(self, dataset: Any, indices: Sequence[int]):
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]


def random_split(dataset: Any, lengths: Sequence[int], seed: int = 0) -> list[Subset]:
    """Parts of these lengths, without a common item, drawn by this seed."""
    if sum(lengths) != len(dataset):
        raise ValueError("Sum of input lengths does not equal the length of the input dataset!")
    order = np.random.default_rng(seed).permutation(len(dataset))
    bounds = np.cumsum([0, *lengths])
    return [Subset(dataset, order[a:b].tolist()) for a, b in itertools.pairwise(bounds)]


def default_collate(items: Sequence[Any]) -> Any:
    """Items one above the other, in the structure that each has, as Tensors."""
    first = items[0]
    if isinstance(first, Mapping):
        return {key: default_collate([item[key] for item in items]) for key in first}
    if isinstance(first, (tuple, list)):
        return type(first)([default_collate(part) for part in zip(*items, strict=True)])
    if isinstance(first, (str, bytes)):
        return list(items)
    arrays = [item.detach().array if isinstance(item, Tensor) else item for item in items]
    stacked = np.stack([np.asarray(array) for array in arrays])
    # Python's numbers have no width of their own.
    kinds = {float: np.float32, int: np.int32, bool: np.bool_}
    return Tensor(stacked.astype(kinds[type(first)]) if type(first) in kinds else stacked)


class DataLoader:
    """Yields the items of ``dataset`` in batches, once per loop over it.

    With ``shuffle`` each loop has an order of its own, drawn from ``seed`` and the number of the loop: so one that is
    resumed (``load_state_dict``) sees what it would have seen. ``collate_fn`` makes a batch of a list of items.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        seed: int = 0,
        drop_last: bool = False,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle
        self.seed, self.drop_last, self.collate_fn = seed, drop_last, collate_fn
        self.epoch = self.batch = 0

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        count = len(self.dataset)
        order = np.random.default_rng((self.seed, self.epoch)).permutation(count) if self.shuffle else np.arange(count)
        first, self.batch = self.batch, 0
        for i in range(first, len(self)):
            rows = order[i * self.batch_size : (i + 1) * self.batch_size].tolist()
            batch = self.collate_fn([self.dataset[row] for row in rows])
            self.batch = i + 1
            yield batch
        self.epoch, self.batch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """How many loops were finished, and how many batches of this one were given out."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """The next loop goes on where that state was taken."""
        self.epoch, self.batch = state["epoch"], state["batch"]
