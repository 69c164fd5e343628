"""Eight threads that build and differentiate at once: what each thread finds is what it finds alone."""

import threading

import numpy as np
import pytest

from twograd import tape
from twograd.tape.autograd.forward_ad import dual_level, make_dual, unpack_dual
from twograd.tape.modes import mode
from twograd.tape.utils.checkpoint import checkpoint

THREADS = 8


def at_once(work, count=THREADS):
    """The results of ``work(i)`` in threads that start together; an error of any of them is raised."""
    barrier, results = threading.Barrier(count), [None] * count

    def run(i):
        try:
            barrier.wait(timeout=60)
            results[i] = work(i), None
        except BaseException as error:
            results[i] = None, error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    for _, error in results:
        if error is not None:
            raise error
    return [result for result, _ in results]


def everything(i):
    """One thread's work: a network, changes in place and views, modes, hooks, duals, checkpoints; its gradients."""
    found = []
    sizes = 3
    for step in range(2):
        values = np.linspace(0.1, 1.0 + i, 2 * sizes, dtype=np.float32).reshape(2, sizes)
        x = tape.tensor(values, requires_grad=True)
        w = tape.tensor(values.T.copy(), requires_grad=True)
        h = (x @ w).tanh() * (i + 1)
        h[0] = h[1] * 2
        h.register_hook(lambda g: g * (i + 1))
        with tape.no_grad():
            assert not (x * 2).requires_grad
        y = checkpoint(lambda h, w: (h @ w.T).sin(), h, w, use_reentrant=False)
        order = y.grad_fn.sequence_nr
        y.sum().backward()
        assert tape.is_grad_enabled()
        (g,) = tape.autograd.grad((x * x * x).sum(), x, create_graph=True)
        (second,) = tape.autograd.grad(g.sum(), x)
        with dual_level():
            tangent = unpack_dual((make_dual(x.detach(), w.detach().T) * i).exp()).tangent
        found += [a.tolist() for a in (x.grad, w.grad, second, tangent)]
        assert (x + step).grad_fn.sequence_nr > order
    assert mode.watchers == ()
    return found


def test_each_thread_finds_what_it_finds_alone():
    tape.clear_caches()  # so that they also make and look up plans at once
    together = at_once(everything)
    assert together == [everything(i) for i in range(THREADS)]


def test_modes_belong_to_their_thread():
    def work(i):
        x = tape.ones(2, requires_grad=True)
        for _ in range(50):
            with tape.set_grad_enabled(i % 2 == 0):
                assert (x * 2).requires_grad == (i % 2 == 0)
            with tape.granularity("primitive" if i % 3 == 0 else "op"):
                y = (x * 2 + 1).sum()
                assert y.item() == 6.0
        tape.manual_seed(i)
        return tape.randn(3).tolist()

    drawn = at_once(work)
    for i in range(THREADS):
        tape.manual_seed(i)
        assert drawn[i] == tape.randn(3).tolist()


def test_numbers_of_nodes_are_never_given_twice():
    def work(i):
        x = tape.ones(1, requires_grad=True)
        nodes = []
        for _ in range(200):
            x = x.sin()
            nodes.append(x.grad_fn.sequence_nr)
        assert nodes == sorted(nodes)
        return nodes

    numbers = [number for found in at_once(work) for number in found]
    assert len(set(numbers)) == len(numbers)


def test_a_shared_graph_that_is_retained():
    """Each walk is its own; what two threads add to the same ``.grad`` may race in PyTorch, and so each asks for its
    gradients by ``grad`` here."""
    x = tape.tensor([0.5, -1.0, 2.0], requires_grad=True)
    y = x
    for _ in range(20):
        y = (y * x).sin()
    expected = tape.autograd.grad(y.sum(), x, retain_graph=True)[0].tolist()
    loss = y.sum()

    def work(i):
        return [tape.autograd.grad(loss, x, retain_graph=True)[0].tolist() for _ in range(5)]

    assert all(found == expected for of_thread in at_once(work) for found in of_thread)


def test_backward_over_a_shared_graph_accumulates():
    x = tape.tensor([1.0, 2.0], requires_grad=True)
    loss = (x * x).sum()

    def work(i):
        for _ in range(25):
            loss.backward(retain_graph=True)

    at_once(work, 2)
    assert x.grad.tolist() == [2.0 * 50, 4.0 * 50]


def test_a_graph_that_is_not_retained_is_walked_by_one_of_them():
    """Without ``retain_graph`` whoever comes later finds the values freed, and says so."""
    x = tape.tensor([1.0, 2.0], requires_grad=True)
    loss = (x * x).sum()
    refused = []

    def work(i):
        try:
            return tape.autograd.grad(loss, x)[0].tolist()
        except RuntimeError as error:
            refused.append(str(error))
            return None

    found = [result for result in at_once(work) if result is not None]
    assert found
    assert all(result == [2.0, 4.0] for result in found)
    assert all(text.startswith("Trying to backward through the graph a second time") for text in refused)
    with pytest.raises(RuntimeError, match="a second time"):
        tape.autograd.grad(loss, x)
