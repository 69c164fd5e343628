"""What users of PyTorch expect of a tape, where the tests of ``tests/tape`` do not hold it already."""

import numpy as np
import pytest

import twograd.tape as torch
from twograd import nn
from twograd.nn import functional as F


def behind(loss):
    """The nodes of a graph, each once."""
    found, stack = {}, [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found[node] = None
            stack += [after for after, _ in node.next_functions]
    return list(found)


def test_nothing_is_saved_for_a_frozen_prefix():
    """Item 1: what is saved is what the head alone would save."""
    body, head = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3), nn.Tanh()), nn.Linear(3, 2)
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 0, 1, 1])
    saved = {}
    for frozen in (False, True):
        for parameter in body.parameters():
            parameter.requires_grad = not frozen
        h = body(x)
        assert (h.grad_fn is None) == frozen
        saved[frozen] = torch.stats(F.cross_entropy(head(h), y)).saved_bytes
    alone = torch.stats(F.cross_entropy(head(body(x).detach()), y)).saved_bytes
    assert saved[True] == alone < saved[False]


def test_every_iteration_builds_a_graph_of_its_own_and_may_build_another():
    """Item 3."""
    w, graphs = torch.ones(3, requires_grad=True), []
    for depth in (1, 1, 4):
        y = w
        for _ in range(depth):
            y = (y * 2).sin()
        graphs.append(behind(y.sum()))
    first, second, deep = graphs
    assert [node.name() for node in first] == [node.name() for node in second]
    assert not set(first[:-1]) & set(second[:-1])
    assert first[-1] is second[-1] is deep[-1]  # but the end at the leaf
    assert len(deep) == len(first) + 6


@pytest.mark.parametrize("owner", ["module", "optimizer"])
def test_gradients_are_none_or_zeros_once_cleared(owner):
    """Item 12."""
    net = nn.Linear(3, 2)
    if owner == "optimizer":
        optim = pytest.importorskip("twograd.optim")
        clear = optim.SGD(net.parameters(), lr=0.1).zero_grad
    else:
        clear = net.zero_grad
    net(torch.ones(3)).sum().backward()
    once = net.weight.grad.numpy().copy()
    net(torch.ones(3)).sum().backward()
    np.testing.assert_array_equal(net.weight.grad.numpy(), 2 * once)
    clear(set_to_none=False)
    np.testing.assert_array_equal(net.weight.grad.numpy(), np.zeros((2, 3)))
    clear()
    assert net.weight.grad is None
    clear()
