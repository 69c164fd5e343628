"""Packed sequences, and recurrent layers over them, against PyTorch's."""

import numpy as np
import pytest

from twograd import graph, nn, tape
from twograd.nn.utils import rnn

LENGTHS = {"decreasing": [5, 3, 3, 1], "as they come": [3, 5, 1, 3]}
draws = np.random.default_rng(0)
X = draws.standard_normal((5, 4, 3)).astype(np.float32)


def pytorchs():
    return pytest.importorskip("torch"), pytest.importorskip("torch.nn.utils.rnn")


def same(ours, theirs, tolerance=1e-5):
    assert (ours is None) == (theirs is None)
    if theirs is not None:
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_packing_and_padding(lengths, batch_first):
    torch, theirs = pytorchs()
    x = X.swapaxes(0, 1).copy() if batch_first else X
    how = {"batch_first": batch_first, "enforce_sorted": lengths == "decreasing"}
    a = rnn.pack_padded_sequence(tape.tensor(x), LENGTHS[lengths], **how)
    b = theirs.pack_padded_sequence(torch.tensor(x), torch.tensor(LENGTHS[lengths]), **how)
    same(a.data, b.data)
    assert a.batch_sizes.tolist() == b.batch_sizes.tolist()
    if b.sorted_indices is not None:  # ties may be in another order
        assert np.array(LENGTHS[lengths])[a.sorted_indices.numpy()].tolist() == sorted(LENGTHS[lengths], reverse=True)
        assert a.sorted_indices[a.unsorted_indices].tolist() == [0, 1, 2, 3]
    for again in ({}, {"padding_value": -7.0, "total_length": 6}):
        mine, expected = (
            module.pad_packed_sequence(packed, batch_first, **again) for module, packed in ((rnn, a), (theirs, b))
        )
        same(mine[0], expected[0])
        assert mine[1].tolist() == expected[1].tolist() == LENGTHS[lengths]


@pytest.mark.parametrize("side", ["right", "left"])
def test_sequences_are_padded_and_packed(side):
    torch, theirs = pytorchs()
    parts = [X[:n, i].copy() for i, n in enumerate(LENGTHS["decreasing"])]
    mine, expected = [tape.tensor(p) for p in parts], [torch.tensor(p) for p in parts]
    how = {"batch_first": True, "padding_value": 2.0, "padding_side": side}
    same(rnn.pad_sequence(mine, **how), theirs.pad_sequence(expected, **how))
    same(rnn.pack_sequence(mine).data, theirs.pack_sequence(expected).data)


LAYERS = [
    ("LSTM", {"bidirectional": True, "num_layers": 2}),
    ("GRU", {"bidirectional": True}),
    ("RNN", {"nonlinearity": "relu", "batch_first": True}),
]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("name", "settings"), LAYERS)
def test_layers_over_packed_sequences(name, settings, lengths):
    torch, theirs = pytorchs()
    ours, other = getattr(nn, name)(3, 2, **settings), getattr(torch.nn, name)(3, 2, **settings)
    ours.load_state_dict(other.state_dict())
    directions = settings.get("num_layers", 1) * (2 if settings.get("bidirectional") else 1)
    h = draws.standard_normal((directions, 4, 2)).astype(np.float32)
    sides = []
    for module, layer, packing in ((tape, ours, rnn), (torch, other, theirs)):
        x, state = module.tensor(X, requires_grad=True), module.tensor(h, requires_grad=True)
        packed = packing.pack_padded_sequence(x, LENGTHS[lengths], enforce_sorted=lengths == "decreasing")
        out, last = layer(packed, (state, state) if name == "LSTM" else state)
        padded, _ = packing.pad_packed_sequence(out)
        lasts = last if name == "LSTM" else (last,)
        (padded.sin().sum() + sum((part**2).sum() for part in lasts)).backward()
        sides.append([padded, *lasts, x.grad, state.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*sides, strict=True):
        same(a, b, 1e-4)
    layer_without_state = ours(rnn.pack_padded_sequence(tape.tensor(X), LENGTHS[lengths], enforce_sorted=False))[0]
    assert type(layer_without_state) is rnn.PackedSequence


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: rnn.pack_padded_sequence(x, [5, 3]), r"to be equal to batch_size, but got 2 \(batch_size=4\)"),
        (lambda x: rnn.pack_padded_sequence(x, [5, 3, 3, 0]), "has to be greater than 0"),
        (lambda x: rnn.pack_padded_sequence(x, [6, 3, 3, 1]), "a length of 6 is more than the 5 steps"),
        (lambda x: rnn.pack_padded_sequence(x, [3, 5, 3, 1]), "must be sorted in decreasing order"),
        (lambda x: rnn.pad_sequence([x], padding_side="up"), "must be either 'left' or 'right'"),
        (
            lambda x: rnn.pad_packed_sequence(rnn.pack_padded_sequence(x, [5, 3, 3, 1]), total_length=4),
            "got total_length=4 and max sequence length being 5",
        ),
    ],
)
def test_what_cannot_be_packed(call, error):
    with pytest.raises((RuntimeError, ValueError), match=error):
        call(tape.tensor(X))


def test_a_traced_program_takes_packed_sequences():
    layer = nn.GRU(3, 2)
    packed = rnn.pack_padded_sequence(tape.tensor(X), LENGTHS["as they come"], enforce_sorted=False)

    def loss(params, rows):
        out, last = nn.functional_call(layer, params, (packed._replace(data=rows),))
        return (out.data**2).sum() + last.sum()

    params = {name: p.array for name, p in layer.named_parameters()}
    gradient = graph.grad(loss)(params, packed.data.array)
    out, last = layer(packed)
    ((out.data**2).sum() + last.sum()).backward()
    for name, p in layer.named_parameters():
        np.testing.assert_allclose(gradient[name], p.grad.numpy(), rtol=1e-4, atol=1e-5)
