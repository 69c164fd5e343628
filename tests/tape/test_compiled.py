"""The walk back as one compiled call: the plain walk's gradients, errors and frees, whatever the structure does."""

import contextlib
import functools
import gc
import random
import threading
import weakref

import jax
import numpy as np
import pytest

from tape.both import both
from tape.programs import program, run
from twograd import tape
from twograd.errors import NotReversible
from twograd.tape import chain, compiled, structures

NEW = compiled.NEW


@pytest.fixture(autouse=True)
def _forgotten():
    tape.compiled_backward.clear()
    yield
    tape.compiled_backward.clear()


def leaf(*shape, seed=0):
    return tape.tensor(np.random.default_rng(seed).normal(size=shape).astype(np.float32), requires_grad=True)


def counts():
    stats = tape.compiled_backward.stats()
    return stats.hits, stats.compiles, sum(stats.plain.values())


def network(x, w, v):
    """A fan-out, a value saved twice, an op with several results, and a leaf used at both ends."""
    h = (x @ w).tanh()
    values, _ = (h * h + h).sort()
    return (values[:, 1:] @ v).sum() + (h @ w).exp().mean()


def near(found, expected):
    for mine, true in zip(found, expected, strict=True):
        assert (mine is None) == (true is None)
        if mine is not None:
            np.testing.assert_allclose(mine.numpy(), true.numpy(), rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_plain_walk_and_accumulate():
    leaves = [leaf(4, 3), leaf(3, 3, seed=1), leaf(2, 2, seed=2)]
    network(*leaves).backward()
    once = [x.grad for x in leaves]
    for x in leaves:
        x.grad = None
    with tape.compiled_backward():
        for i in range(1, 5):
            network(*leaves).backward()
            near([x.grad for x in leaves], [g * i for g in once])
    assert counts() == (1, 1, 2)  # without gradients, and with them: each structure new once
    stats = tape.compiled_backward.stats()
    assert stats == tape.CompiledStats(hits=1, compiles=1, plain={NEW: 2})


def test_targets_in_the_middle_and_not_reached():
    x, w, v = leaves = leaf(4, 3), leaf(3, 3, seed=1), leaf(2, 2, seed=2)
    unused = leaf(2)

    def grads():
        h = x @ w
        loss = network(h, w, v) + h.sum()
        return tape.autograd.grad(loss, [h, unused, w, h], allow_unused=True)

    expected = grads()
    with tape.compiled_backward(1):
        for _ in range(2):
            near(grads(), expected)
        assert counts() == (1, 1, 0)
        with pytest.raises(RuntimeError, match="appears to not have been used"):
            tape.autograd.grad(network(*leaves), [unused])
    assert all(y.grad is None for y in (*leaves, unused))


def test_what_the_targets_are_belongs_to_the_structure():
    x, w, v = leaf(4, 3), leaf(3, 3, seed=1), leaf(2, 2, seed=2)
    sides = [[x], [w], [x, w], [w, x], [v, v]]
    expected = [tape.autograd.grad(network(x, w, v), side) for side in sides]
    with tape.compiled_backward(1):
        for _ in range(2):
            for side, grads in zip(sides, expected, strict=True):
                near(tape.autograd.grad(network(x, w, v), side), grads)
    assert counts() == (5, 5, 0)


def test_inputs_of_backward():
    x, w, v = leaf(4, 3), leaf(3, 3, seed=1), leaf(2, 2, seed=2)
    (expected,) = tape.autograd.grad(network(x, w, v), [w])
    with tape.compiled_backward(1):
        for i in (1, 2, 3):
            network(x, w, v).backward(inputs=[w])
            near([w.grad], [expected * i])
    assert x.grad is None
    assert counts() == (1, 2, 0)


def test_several_roots_and_their_number():
    x = leaf(3)
    a, b = x.sin(), x.exp()
    ones, twos = tape.ones(3), tape.ones(3) * 2
    with tape.compiled_backward(1):
        for _ in range(2):
            x.grad = None
            tape.autograd.backward([a, b], [ones, twos], retain_graph=True)
            near([x.grad], [(x.cos() + 2 * x.exp()).detach()])
            x.grad = None
            tape.autograd.backward([a], [ones], retain_graph=True)
            near([x.grad], [x.cos().detach()])
            x.grad = None
            tape.autograd.backward([a, a], [ones, twos], retain_graph=True)
            near([x.grad], [3 * x.cos().detach()])
            x.grad = None
            tape.autograd.backward([x], [twos])  # a leaf is its own root
            assert x.grad.tolist() == [2, 2, 2]
            assert x.grad is not twos
    assert counts() == (4, 4, 0)


def test_which_saved_values_are_one_belongs_to_the_structure():
    x, y = leaf(3), leaf(3, seed=1)
    with tape.compiled_backward(1):
        for a, b in [(x, x), (x, y), (y, x), (x, x)]:
            found = tape.autograd.grad((a * b).sum(), [x, y], materialize_grads=True)
            one = a.detach() + b.detach()
            near(found, [one, tape.zeros(3)] if a is b else [y.detach(), x.detach()])
    # x * x saves one array for both. Whether a target is the first or the second operand is a structure, too.
    assert counts() == (1, 3, 0)


def test_frees_what_the_plain_walk_frees():
    x = leaf(3)
    seen = []
    with tape.compiled_backward(1):
        for keep in (False, True, False):
            y = x.exp()
            z = (y * y).sum()
            z.backward(retain_graph=keep)
            seen.append(tape.stats(z).saved_values)
            if keep:
                z.backward()
            with pytest.raises(RuntimeError, match="backward through the graph a second time"):
                z.backward()
    assert seen == [0, 1, 0]
    y = x.exp()
    z = (y.sin() * 2).sum()
    with tape.compiled_backward(1):
        tape.autograd.grad(z, y)
        assert tape.stats(z).saved_values == 1  # what is asked for was found before exp, which keeps its result
        tape.autograd.grad(y, x, tape.ones(3))


def test_the_graph_dies_with_its_tensors():
    x = leaf(300)
    gc.collect()
    gc.disable()
    try:
        with tape.compiled_backward(1):
            for _ in range(2):
                y = x.exp()
                array = weakref.ref(y.array)
                y.sum().backward()
                del y
                assert array() is None
    finally:
        gc.enable()


def test_a_value_changed_in_place_is_the_same_error():
    x = leaf(3)
    with tape.compiled_backward(1):
        for spoil in (False, True, False, True):
            y = x.exp()
            z = (y.sin() * 2).sum()
            if spoil:
                y.mul_(2)
                with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                    z.backward()
            else:
                z.backward()
        y = x * 1.0
        y.exp_()  # saves its own result, and replaces its operand
        y.sum().backward()
    assert tape.compiled_backward.stats().plain == {"a value that it saved was changed in place": 2}


def test_create_graph_is_walked_plainly():
    x = leaf(3)
    with tape.compiled_backward(1):
        (g,) = tape.autograd.grad(x.sin().sum(), x, create_graph=True)
        g.sum().backward()
    near([x.grad], [-x.sin().detach()])
    assert counts() == (0, 1, 0)


def test_a_retained_gradient_is_kept():
    x = leaf(3)
    with tape.compiled_backward(1):
        y = x.exp()
        y.retain_grad()
        y.sin().sum().backward()
    near([y.grad], [y.cos().detach()])


def test_a_missing_derivative_is_the_plain_walks_error_each_time():
    x = leaf(3)

    def doubled(x):
        return jax.lax.while_loop(lambda x: x.sum() < 10, lambda x: x * 2, x * x)

    with tape.compiled_backward(1):
        for _ in range(2):
            with pytest.raises(NotReversible):
                tape.apply(doubled, x).sum().backward()
    assert x.grad is None
    assert tape.compiled_backward.stats().plain == {compiled.UNTRACEABLE: 2}


def test_old_gradients_are_given_up_only_if_nobody_else_has_them():
    x = leaf(1000)
    seen = []
    with tape.compiled_backward(1):
        (x * 2).sum().backward()
        for _ in range(3):
            before = weakref.ref(x.grad.array)
            where = x.grad.array.unsafe_buffer_pointer()
            (x * 2).sum().backward()
            assert before() is None
            assert x.grad.array.unsafe_buffer_pointer() == where  # added where they are
        for hold in (lambda g: g, lambda g: g.array, tape.Tensor.detach, tape.Tensor.numpy):
            kept = hold(x.grad)
            (x * 2).sum().backward()
            seen.append((np.asarray(kept.array if isinstance(kept, tape.Tensor) else kept)[0].item(), x.grad[0].item()))
            del kept
        y = x * x.grad.detach()
        y.sum().backward()  # it is saved by the tape
        assert x.grad[0].item() == 32
    assert seen == [(10, 10), (10, 12), (14, 14), (14, 16)]  # in place, as in PyTorch, where a Tensor shows it
    z = leaf(2)
    z.grad = x.grad[:2]
    x.grad = x.grad


@both
def test_two_leaves_may_hold_one_gradient(m):
    """Gradients are added in place, also to parts of a buffer that somebody made of all of them."""
    with tape.compiled_backward(1):
        x, y = (m.ones(3, requires_grad=True) for _ in range(2))
        x.grad = y.grad = m.ones(3)
        (x * 2 + y * 3).sum().backward()
        assert x.grad.tolist() == y.grad.tolist() == [6, 6, 6]
        buffer = m.ones(6)
        x.grad, y.grad = buffer[:3], buffer[3:]
        for _ in range(2):
            (x * 2 + y * 3).sum().backward()
        assert buffer.tolist() == [5, 5, 5, 7, 7, 7]


def test_weakly_typed_and_64_bit_gradients(compilations):
    x = leaf(3)
    with tape.compiled_backward(1):
        x.grad = tape.full((3,), 2.0)
        (x * 2).sum().backward()
        x.grad = tape.tensor(np.ones(3, np.float32))
        (x * 2).sum().backward()
        assert x.grad.tolist() == [3, 3, 3]
        assert compilations.of(lambda: (x * 2).sum().backward()) == 0


def test_clear_caches_forgets_structures_and_chains(compilations):
    x = leaf(3)

    def step():
        (x.sin().exp() * 2).sum().backward()

    with tape.compiled_backward(1, forward=True):
        step()
    step()
    assert compilations.of(step) == 0
    tape.clear_caches()
    assert (len(compiled._structures), len(compiled.structures), chain._composition.cache_info().currsize) == (0, 0, 0)
    assert compilations.of(step) > 0


def test_the_number_of_meetings_and_of_structures(monkeypatch):
    with pytest.raises(ValueError, match="meeting"):
        tape.compiled_backward(0)
    monkeypatch.setattr(structures, "MAX_KEPT", 2)
    x = leaf(3)

    def walk(length):
        y = x
        for _ in range(length):
            y = y.sin()
        tape.autograd.grad(y.sum(), x)

    with tape.compiled_backward(3):
        for _ in range(4):
            walk(1)
        assert counts() == (1, 1, 2)
    with tape.compiled_backward(1):
        for length in (2, 1, 3, 1, 2):  # 3 puts 2 out, which was not used for longest
            walk(length)
    assert counts() == (3, 4, 2)
    assert len(compiled._structures) == 2
    monkeypatch.setattr(structures, "MAX_MET", 2)
    with tape.compiled_backward():
        for length in range(4, 8):
            walk(length)
    assert len(compiled._structures._met) <= 2
    monkeypatch.setattr(compiled, "MAX_NODES", 3)
    with tape.compiled_backward(1):
        walk(4)
    assert tape.compiled_backward.stats().plain["it has more than 3 nodes"] == 1


def test_as_a_decorator_nested_and_after_an_error():
    x = leaf(3)

    @tape.compiled_backward(1)
    def step():
        x.sin().sum().backward()

    step()
    x.sin().sum().backward()
    assert counts() == (0, 1, 0)
    with tape.compiled_backward(1), pytest.raises(ZeroDivisionError), tape.compiled_backward(5):
        raise ZeroDivisionError
    x.grad = None
    x.sin().sum().backward()
    step()
    assert counts() == (0, 2, 0)


def test_threads():
    """A thread's own mode, and structures shared by all: they compile and run them at once, and none is lost."""
    failures = []

    def work(seed):
        try:
            x = leaf(3, seed=seed)
            with tape.compiled_backward(1):
                for i in range(12):
                    y = x
                    for _ in range(1 + (seed + i) % 3):
                        y = y.sin()
                    (g,) = tape.autograd.grad(y.sum(), x)
                    with np.errstate(all="raise"):
                        expected, z = np.ones(3), x.detach().numpy()
                        for _ in range(1 + (seed + i) % 3):
                            expected, z = expected * np.cos(z), np.sin(z)
                    np.testing.assert_allclose(g.numpy(), expected, rtol=1e-4)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    x = leaf(3)
    x.sin().sum().backward()
    assert sum(counts()) == 8 * 12


# --- random programs --------------------------------------------------------------------------------------------------


WAYS = pytest.mark.parametrize("forward", [False, True], ids=["backward", "forward and backward"])


def agree(seeds, forward, hooks=False):
    """Programs whose walks are all compiled see what they see uncompiled, and their hooks are called alike."""
    for seed in seeds:
        lines = program(seed, length=6, hooks=hooks)
        seen, *true = run(tape, lines, hooks)
        for _ in range(2):
            with tape.compiled_backward(1, forward):
                seen_now, *found = run(tape, lines, hooks)
            assert seen_now == seen, f"seed {seed}"
            calls, true_calls = found[2], true[2]
            assert [number for number, _ in calls] == [number for number, _ in true_calls], f"seed {seed}"
            pairs = [*zip(calls, true_calls, strict=True)]
            for mine, expected in [
                *((mine[1], expected[1]) for mine, expected in pairs),
                *((x, y) for i in (0, 1, 3) for x, y in zip(found[i], true[i], strict=True)),
            ]:
                assert (mine is None) == (expected is None), f"seed {seed}"
                if mine is not None:
                    np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-5, err_msg=f"seed {seed}")
    assert tape.compiled_backward.stats().hits > 2 * len(seeds)


@WAYS
@pytest.mark.filterwarnings("ignore")
def test_random_programs_are_the_same_compiled(forward):
    agree(range(2), forward)


@WAYS
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_more_random_programs_are_the_same_compiled(forward):
    agree(range(2, 16), forward)
    agree(range(16, 26), forward, hooks=True)


def changing(torch, seed, steps):
    """A loop whose depth, widths, branches, freezing and zeroing vary at random: the gradients after each step, and now
    and then the parameters and the loss."""
    draw = random.Random(seed)
    rng = np.random.default_rng(seed)
    params = [torch.tensor(0.5 * rng.normal(size=(4, 4)).astype(np.float32), requires_grad=True) for _ in range(2)]
    kept = []  # of some steps: their values must stay what they were
    for _ in range(steps):
        h = torch.tensor(rng.normal(size=(draw.choice([2, 2, 2, 2, 3]), 4)).astype(np.float32))
        for _ in range(draw.choice([1, 1, 1, 2])):
            w = draw.choice(params)
            h = h @ (w.detach() if draw.random() < 0.1 else w)
            h = h.tanh() if draw.random() < 0.8 else h * h
            if draw.random() < 0.1:
                h = h + h[:1].reshape(-1)
            if draw.random() < 0.1:
                kept.append(h)
        loss = h.sum()
        if draw.random() < 0.1:
            yield [loss.detach()]
        if loss.requires_grad:
            loss.backward(retain_graph=draw.random() < 0.2)
        yield [w.grad for w in params]
        for w in params:
            if draw.random() < 0.8:
                w.grad = None
            if draw.random() < 0.5:
                with torch.no_grad():
                    w.mul_(0.9)
                    w -= 0.1 if draw.random() < 0.5 else w * 0.1
    yield [*params, *kept]


BOTH = functools.partial(tape.compiled_backward, forward=True)


def check_changing(seed, steps, ways):
    def listed(module, around):
        with around():
            return [[x if x is None else x.tolist() for x in seen] for seen in changing(module, seed, steps)]

    true = listed(pytest.importorskip("torch"), contextlib.nullcontext)
    for around in ways:
        for mine, expected in zip(listed(tape, around), true, strict=True):
            for x, e in zip(mine, expected, strict=True):
                assert (x is None) == (e is None)
                if x is not None:
                    np.testing.assert_allclose(x, e, rtol=1e-3, atol=1e-4, err_msg=f"seed {seed}")


def test_a_loop_whose_structure_changes_does_as_in_pytorch():
    check_changing(0, 14, [BOTH])
    stats = tape.compiled_backward.stats()
    assert stats.hits
    assert stats.compiles
    assert stats.plain[NEW]


@pytest.mark.slow
def test_longer_loops_whose_structure_changes_do_as_in_pytorch():
    for seed in range(1, 4):
        check_changing(seed, 60, [contextlib.nullcontext, tape.compiled_backward, BOTH])
