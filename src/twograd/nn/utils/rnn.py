"""Sequences of different lengths in one batch: ``torch.nn.utils.rnn``.

What flows in: a padded batch (T, N, *) and the lengths, or the sequences themselves. What flows out: a
:class:`PackedSequence`, which the recurrent layers take and return, or a padded batch again. Lengths decide shapes, so
they are numbers or arrays that are known, never traced. Read :func:`_places`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from twograd.nn.settled import settled
from twograd.tape import Tensor


class PackedSequence(NamedTuple):
    """The elements of all sequences, step by step: ``data`` (sum of lengths, *) has those of step 0 first.

    ``batch_sizes`` (T,) counts the sequences that have a step t; within a step the longer sequences come first.
    ``sorted_indices`` are their numbers in the batch, and ``unsorted_indices`` the inverse; None where the batch was in
    that order.
    """

    data: Any
    batch_sizes: Any
    sorted_indices: Any = None
    unsorted_indices: Any = None


def _known(indices: Any) -> np.ndarray:
    return np.asarray(indices.array if isinstance(indices, Tensor) else indices)


def _places(packed: PackedSequence) -> tuple[np.ndarray, np.ndarray, int]:
    """For each row of ``data`` its step and the number of its sequence; and how many sequences there are."""
    sizes = _known(packed.batch_sizes)
    ranks = np.concatenate([np.arange(size) for size in sizes])
    order = np.arange(sizes[0]) if packed.sorted_indices is None else _known(packed.sorted_indices)
    return np.repeat(np.arange(len(sizes)), sizes), order[ranks], int(sizes[0])


def _picked(x: Any, steps: Any, samples: Any) -> Any:
    return x[steps, samples]


def _laid(data: Any, rows: Any, *, value: float) -> Any:
    present = (rows >= 0).reshape(*rows.shape, *[1] * (data.ndim - 1))
    return jnp.where(present, data[rows], jnp.asarray(value, data.dtype))


def repacked(x: Any, packed: PackedSequence) -> PackedSequence:
    """Of a padded batch (T, N, *) what ``packed`` has of its own."""
    steps, samples, _ = _places(packed)
    return packed._replace(data=settled(_picked)(x, steps, samples))


def pack_padded_sequence(
    input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Packs (T, N, *), or (N, T, *) with ``batch_first``, of which sequence n has ``lengths[n]`` steps.

    Raises RuntimeError where a length is not between 1 and T, or there are not N of them, or, unless
    ``enforce_sorted=False``, where they do not decrease.
    """
    lengths = _known(lengths)
    x = input.transpose(0, 1) if batch_first else input
    if lengths.shape != (x.shape[1],):
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {lengths.size} (batch_size={x.shape[1]})"
        )
    if (lengths <= 0).any():
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"
        )
    if lengths.max() > x.shape[0]:
        raise RuntimeError(f"a length of {lengths.max()} is more than the {x.shape[0]} steps that the input has")
    order = None
    if not enforce_sorted:
        order = np.argsort(-lengths, kind="stable").astype(np.int32)
    elif (np.diff(lengths) > 0).any():
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
            "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement."
        )
    sizes = (lengths > np.arange(lengths.max())[:, None]).sum(1).astype(np.int32)
    indices = [None, None] if order is None else [Tensor(order), Tensor(np.argsort(order).astype(np.int32))]
    return repacked(x, PackedSequence(None, Tensor(sizes), *indices))


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Any, Tensor]:
    """The padded batch, (T, N, *) or (N, T, *), in the order it had before it was packed; and the lengths (N,).

    T is the longest length, or ``total_length``; ValueError where that is less.
    """
    steps, samples, count = _places(sequence)
    length = len(sequence.batch_sizes)
    if total_length is not None and total_length < length:
        raise ValueError(
            "Expected total_length to be at least the length of the longest sequence in input, but got "
            f"total_length={total_length} and max sequence length being {length}"
        )
    rows = np.full((total_length or length, count), -1, np.int32)
    rows[steps, samples] = np.arange(len(steps))
    padded = settled(_laid, value=float(padding_value))(sequence.data, rows)
    lengths = Tensor((rows >= 0).sum(0).astype(np.int32))
    return padded.transpose(0, 1) if batch_first else padded, lengths


def _stacked(*xs: Any, value: float, left: bool) -> Any:
    longest = max(x.shape[0] for x in xs)
    absent = [(longest - x.shape[0]) * (1 if left else -1) for x in xs]
    widths = [[(max(n, 0), max(-n, 0)), *[(0, 0)] * (x.ndim - 1)] for n, x in zip(absent, xs, strict=True)]
    return jnp.stack([jnp.pad(x, w, constant_values=value) for x, w in zip(xs, widths, strict=True)], axis=1)


def pad_sequence(
    sequences: Sequence[Any], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Any:
    """Sequences (T_n, *) as a padded batch (T, N, *), or (N, T, *)."""
    if padding_side not in ("left", "right"):
        raise RuntimeError("padding_side must be either 'left' or 'right'")
    padded = settled(_stacked, value=float(padding_value), left=padding_side == "left")(*sequences)
    return padded.transpose(0, 1) if batch_first else padded


def pack_sequence(sequences: Sequence[Any], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences (T_n, *), packed; they must not grow longer unless ``enforce_sorted=False``."""
    lengths = [len(sequence) for sequence in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)
