"""What a recorded graph holds: nodes, leaves and saved bytes, each array counted once."""

import numpy as np

from twograd import tape


def test_counts():
    x = tape.ones(4, requires_grad=True)
    y = x * x
    stats = tape.stats(y)
    assert (stats.nodes, stats.leaves, stats.saved_values, stats.saved_bytes) == (1, 1, 1, 16)
    assert stats.names == {"MulBackward0": 1}
    z = y.exp() + y
    assert tape.stats(z).names == {"MulBackward0": 1, "ExpBackward0": 1, "AddBackward0": 1}
    assert tape.stats(z).saved_bytes == 32  # x, and what exp returned
    assert tape.stats(z, y) == tape.stats(z)
    z.sum().backward()
    assert tape.stats(z).saved_bytes == 0


def test_of_nothing():
    assert tape.stats() == tape.stats(tape.ones(2)) == tape.TapeStats(0, 0, 0, 0, tape.stats().names)


def test_a_frozen_prefix_saves_nothing_and_is_never_walked():
    x = tape.ones(3, 8)
    frozen = [tape.randn(8, 8) for _ in range(4)]
    for weight in frozen:
        x = (x @ weight).tanh()
    assert x.grad_fn is None
    head = tape.randn(8, 2, requires_grad=True)
    loss = (x @ head).sum()
    stats = tape.stats(loss)
    assert (stats.nodes, stats.leaves) == (2, 1)
    assert stats.saved_bytes == x.array.nbytes  # what the head's gradient needs; not the head itself
    before = [weight.numpy().copy() for weight in frozen]
    loss.backward()
    assert head.grad is not None
    assert all(weight.grad is None for weight in frozen)
    assert all(np.array_equal(b, w.numpy()) for b, w in zip(before, frozen, strict=True))


def test_total_loss_leaks_unless_it_is_a_number():
    x = tape.ones(2, requires_grad=True)
    total, number, nodes = 0.0, 0.0, []
    for _ in range(3):
        loss = (x * x).sum()
        total, number = total + loss, number + loss.item()
        nodes.append(tape.stats(total).nodes)
    assert nodes == [3, 6, 9]
    assert number == 6.0
    assert tape.stats(loss).nodes == 2


def test_next_functions_show_operands_without_gradient():
    x = tape.ones(2, requires_grad=True)
    y = tape.ones(2) * x
    assert [node and node.name() for node, _ in y.grad_fn.next_functions] == [None, "torch::autograd::AccumulateGrad"]
    assert repr(y.grad_fn).startswith("<MulBackward0 object at 0x")
    assert y.grad_fn.sequence_nr > y.grad_fn.next_functions[1][0].sequence_nr
    assert y.grad_fn.next_functions[1][0].next_functions == ()
