"""Hooks of Tensors, leaves and nodes beside PyTorch: when they are called, with what, and what they may return."""

import gc
import itertools
import weakref

import numpy as np
import pytest

from tape.both import both
from tape.programs import MANY, program, run
from twograd import tape


def leaf(m, *values):
    return m.tensor(values, requires_grad=True)


def plain(value):
    """Gradients as lists, so that both libraries' can be compared."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(plain, value))
    return value.tolist() if hasattr(value, "tolist") else value


class Calls(list):
    """Makes hooks that write down their name and gradients, and return a function of these, or None."""

    def tensor(self, name, replace=None):
        def hook(grad):
            self.append((name, plain(grad)))
            return None if replace is None else replace(grad)

        return hook

    def node(self, name, replace=None):
        def hook(*grads):
            self.append((name, *map(plain, grads)))
            return None if replace is None else replace(*grads)

        return hook


def hooked(m):
    """x -> y -> z with hooks of every kind at y and x."""
    calls = Calls()
    x = leaf(m, 1.0, 2.0)
    y = x * 2
    z = y * 3
    y.retain_grad()
    y.register_hook(calls.tensor("y", lambda g: g * 10))
    y.register_hook(calls.tensor("y again", lambda g: g + 1))
    y.grad_fn.register_prehook(calls.node("before y", lambda grads: (grads[0] * 100,)))
    y.grad_fn.register_prehook(calls.node("before y again"))
    y.grad_fn.register_hook(calls.node("after y", lambda into, out: None if into[0] is None else (into[0] + 1, None)))
    y.grad_fn.register_hook(calls.node("after y again"))
    end = y.grad_fn.next_functions[0][0]
    x.register_post_accumulate_grad_hook(lambda p: calls.append(("accumulated", p is x, p.grad.tolist())))
    end.register_prehook(calls.node("before x", lambda grads: (grads[0] * 7,)))
    end.register_hook(calls.node("after x"))
    x.register_hook(calls.tensor("x", lambda g: -g))
    return calls, x, y, z


WAYS = {
    "backward": lambda m, x, y, z: z.sum().backward(),
    "to y": lambda m, x, y, z: m.autograd.grad(z.sum(), y),
    "to x": lambda m, x, y, z: m.autograd.grad(z.sum(), [x]),
    "to both": lambda m, x, y, z: m.autograd.grad(z.sum(), [y, x]),
    "inputs y": lambda m, x, y, z: z.sum().backward(inputs=[y]),
    "inputs x": lambda m, x, y, z: z.sum().backward(inputs=x),
    "inputs both": lambda m, x, y, z: z.sum().backward(inputs=[x, y]),
    "create_graph": lambda m, x, y, z: m.autograd.grad((z * z).sum(), [x, y], create_graph=True),
    "twice": lambda m, x, y, z: (z.sum().backward(retain_graph=True), z.sum().backward(), None)[-1],
}


@pytest.mark.parametrize("way", WAYS)
def test_order_and_values(way):
    """What is called, in what order, with which gradients, is as in PyTorch; as are the gradients in the end."""
    torch = pytest.importorskip("torch")
    seen = []
    for m in (tape, torch):
        calls, x, y, z = hooked(m)
        result = WAYS[way](m, x, y, z)
        seen.append((list(calls), plain(result), plain(x.grad), plain(y.grad)))
    assert len(seen[0][0]) > 1
    assert seen[0] == seen[1]


@both
def test_handles(m):
    calls = Calls()
    x = leaf(m, 1.0)
    y = x * 2
    first, second = y.register_hook(calls.tensor("first")), y.register_hook(calls.tensor("second"))
    with y.grad_fn.register_prehook(calls.node("before")):
        y.backward(retain_graph=True)
    first.remove()
    first.remove()
    y.backward(retain_graph=True)
    second.remove()
    y.backward()
    assert [name for name, _ in calls] == ["first", "second", "before", "second"]
    assert x.grad.tolist() == [6.0]


@both
def test_hooks_changed_by_hooks(m):
    """Those are called that were registered as the walk came to the Tensor."""
    calls = Calls()
    y = leaf(m, 1.0) * 2
    late = y.register_hook(calls.tensor("late"))

    def adds(_):
        calls.append(("adds", None))
        late.remove()
        y.register_hook(calls.tensor("added"))

    y.register_hook(adds)
    y.backward(retain_graph=True)
    y.backward()
    assert [name for name, _ in calls] == ["late", "adds", "adds", "added"]


@both
def test_registering_errors(m):
    for method in ("register_hook", "register_post_accumulate_grad_hook"):
        with pytest.raises(RuntimeError, match=r"^cannot register a hook on a tensor that doesn't require gradient$"):
            getattr(m.ones(2), method)(print)
    with pytest.raises(RuntimeError, match=r"^post accumulate grad hooks cannot be registered on non-leaf tensors$"):
        (leaf(m, 1.0) * 2).register_post_accumulate_grad_hook(print)


RETURNS = {
    "a number": lambda m: 3,
    "a string": lambda m: "a",
    "another shape": lambda m: m.ones(3),
    "another dtype": lambda m: m.ones(2).int(),
    "a Tensor": lambda m: m.ones(2),
    "a pair": lambda m: (m.ones(2), None),
    "one": lambda m: (m.ones(2),),
    "two": lambda m: (m.ones(2), m.ones(2)),
    "None in a tuple": lambda m: (None,),
    "two Nones": lambda m: (None, None),
    "a list": lambda m: [m.ones(2)],
    "a wrong pair": lambda m: (m.ones(3), None),
    "a wrong one": lambda m: (m.ones(3),),
}


@pytest.mark.parametrize("where", ["tensor", "leaf", "before", "after"])
def test_what_hooks_return(where):
    """The same gradient, or the same error, as in PyTorch."""
    torch = pytest.importorskip("torch")

    def outcome(m, made):
        x = leaf(m, 1.0, 2.0)
        y = x * 2

        def named(*_):
            return made(m)

        register = {
            "tensor": y.register_hook,
            "leaf": x.register_hook,
            "before": y.grad_fn.register_prehook,
            "after": y.grad_fn.register_hook,
        }[where]
        register(named)
        try:
            y.sum().backward()
        except (RuntimeError, TypeError) as error:
            return type(error), str(error)
        return plain(x.grad)

    for name, made in RETURNS.items():
        assert outcome(tape, made) == outcome(torch, made), name


@both
def test_an_error_in_a_hook_is_the_users(m):
    x = leaf(m, 1.0)
    y = x * 2

    def fails(_):
        raise ValueError("mine")

    handle = y.register_hook(fails)
    with pytest.raises(ValueError, match=r"^mine$"):
        y.backward(retain_graph=True)
    handle.remove()
    y.backward()
    assert x.grad.tolist() == [2.0]


@both
def test_hooks_and_changes_in_place(m):
    """A hook stays with what the Tensor was; what is to be retained moves to what it becomes."""
    calls = Calls()
    x = leaf(m, 1.0, 2.0)
    y = x.clone()
    y.register_hook(calls.tensor("old"))
    y.retain_grad()
    y.mul_(3)
    y.register_hook(calls.tensor("new"))
    y.sum().backward()
    assert calls == [("new", [1.0, 1.0]), ("old", [3.0, 3.0])]
    assert y.grad.tolist() == [1.0, 1.0]
    assert x.grad.tolist() == [3.0, 3.0]


@both
def test_a_hook_may_change_its_gradient_in_place(m):
    x = leaf(m, 1.0, 2.0)
    y = x * 2

    def doubles(grad):
        grad.mul_(2)

    y.register_hook(doubles)
    (y * y).sum().backward()
    assert x.grad.tolist() == [16.0, 32.0]


@both
def test_outputs_of_one_op(m):
    calls = Calls()
    x = leaf(m, 3.0, 1.0)
    values, _ = x.sort()
    parts = values.unbind()
    parts[1].register_hook(calls.tensor("used"))
    values.grad_fn.register_prehook(lambda grads: calls.append(("sort", plain(grads[0]))))
    parts[1].backward()
    assert calls == [("used", 1.0), ("sort", [0.0, 1.0])]


@both
def test_recording_within_hooks(m):
    """Hooks record if derivatives are to be differentiated again, and see gradients with their history."""
    seen = []
    x = leaf(m, 2.0)
    y = x * x * x
    y.register_hook(lambda g: seen.append((m.is_grad_enabled(), g.requires_grad)))
    with m.no_grad():
        m.autograd.grad(y, x, m.ones(1), retain_graph=True, create_graph=True)
    (y * y).sum().backward(retain_graph=True)
    y.register_hook(lambda g: g * x)
    (g,) = m.autograd.grad((y * y).sum(), x, create_graph=True)
    assert seen == [(True, False), (False, False), (True, True)]
    assert g.tolist() == [384.0]  # 2 x**3 * x * 3 x**2 = 6 x**6
    (h,) = m.autograd.grad(g, x)
    assert h.tolist() == [1728.0]  # what comes through y, 24 x**5 of 36, is multiplied by x once more, and x is 2


@both
def test_a_gradient_that_a_hook_keeps_is_its_own(m):
    kept = []
    x = leaf(m, 1.0, 2.0)
    x.register_hook(kept.append)
    (x * m.tensor([3.0, 4.0])).sum().backward()
    x.grad.zero_()
    assert kept[0].tolist() == [3.0, 4.0]
    y = x * 1
    y.register_hook(lambda g: (kept.append(g * 2), kept[-1])[1])
    (y + 0).sum().backward()
    x.grad.mul_(5)
    assert kept[-2].tolist() == [2.0, 2.0]


@both
def test_optimizer_in_backward(m):
    """A hook that uses the gradient as soon as it is there, and drops it."""
    weights = [leaf(m, 1.0, 2.0), leaf(m, 3.0, 4.0)]

    def update(weight):
        with m.no_grad():
            weight.sub_(weight.grad * 0.5)
        weight.grad = None

    for weight in weights:
        weight.register_post_accumulate_grad_hook(update)
    (weights[0] * 2 + weights[1]).sum().backward()
    assert [weight.tolist() for weight in weights] == [[0.0, 1.0], [2.5, 3.5]]
    assert [weight.grad for weight in weights] == [None, None]


@both
def test_leaves_are_done_as_soon_as_their_gradient_is_complete(m):
    calls = []
    a, b, c = leaf(m, 1.0), leaf(m, 2.0), leaf(m, 3.0)
    for name, x in (("a", a), ("b", b), ("c", c)):
        x.register_post_accumulate_grad_hook(lambda x, name=name: calls.append((name, x.grad.tolist())))
    first = a * b
    second = first * c
    first.register_hook(lambda g: calls.append(("first", g.tolist())))
    (second + b).sum().backward()
    assert calls == [("c", [2.0]), ("first", [3.0]), *sorted(calls[2:])]
    assert sorted(calls[2:]) == [("a", [6.0]), ("b", [4.0])]


MULTI = {
    "y": lambda m, x, y, z: y.sum().backward(retain_graph=True),
    "inputs": lambda m, x, y, z: y.sum().backward(inputs=[x], retain_graph=True),
    "to y": lambda m, x, y, z: m.autograd.grad(y.sum(), y, retain_graph=True),
    "all": lambda m, x, y, z: (y * z).sum().backward(retain_graph=True),
    "all but x": lambda m, x, y, z: m.autograd.grad((y * z).sum(), (y, z), retain_graph=True),
    "again": lambda m, x, y, z: (y * z).sum().backward(),
}


@pytest.mark.parametrize("mode", ["all", "any"])
def test_multi_grad_hooks(mode):
    torch = pytest.importorskip("torch")
    seen = []
    for m in (tape, torch):
        calls = []
        x = leaf(m, 1.0, 2.0)
        y, z = x * 2, x * 3
        handle = m.autograd.graph.register_multi_grad_hook(
            [x, y, z], lambda grads, calls=calls: calls.append(plain(grads)), mode=mode
        )
        for way in MULTI.values():
            way(m, x, y, z)
        handle.remove()
        (x * 2).sum().backward()
        seen.append(calls)
    assert len(seen[0]) == len(MULTI)
    assert seen[0] == seen[1]


@both
def test_multi_grad_hook_errors(m):
    with pytest.raises(ValueError, match=r"^Expects mode to be one of \('all', 'any'\) but got some$"):
        m.autograd.graph.register_multi_grad_hook([leaf(m, 1.0)], print, mode="some")
    m.autograd.graph.register_multi_grad_hook([m.ones(1)], print, mode="any")
    with pytest.raises((RuntimeError, AssertionError)):
        m.autograd.graph.register_multi_grad_hook([m.ones(1)], print)


def test_hooks_keep_no_graph_alive():
    """A graph with hooks that know nothing of it dies by reference count."""
    x = leaf(tape, 1.0)
    y = x.exp()
    y.register_hook(lambda g: g * 2)
    y.grad_fn.register_hook(lambda *_: None)
    y.retain_grad()
    y.backward(retain_graph=True)
    node = weakref.ref(y.grad_fn)
    gc.disable()
    try:
        del y
        assert node() is None
    finally:
        gc.enable()


@both
def test_a_change_through_a_view_leads_past_the_views_hooks(m):
    """As PyTorch's CopySlices does; what else reads the view still goes by its node."""

    def seen(change, on=lambda x, v, w: v):
        x = m.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        y = x * 1
        v = y[0]
        w = v[:1]
        calls = Calls()
        on(y, v, w).register_hook(calls.tensor("view"))
        on(y, v, w).grad_fn.register_hook(calls.node("node"))
        change(v, w, m.tensor([2.0, 5.0], requires_grad=True))
        (y.sum() + v.sum()).backward()
        return [call[-1] for call in calls], x.grad.tolist()

    assert seen(lambda v, w, b: v.mul_(b)) == ([], [[4.0, 10.0], [1.0, 1.0]])
    assert seen(lambda v, w, b: v.add_(v)) == ([[2.0, 2.0], ([2.0, 2.0],)], [[4.0, 4.0], [1.0, 1.0]])
    assert seen(lambda v, w, b: w.mul_(3.0)) == ([], [[6.0, 2.0], [1.0, 1.0]])
    assert seen(lambda v, w, b: v.fill_(3.0)) == ([], [[0.0, 0.0], [1.0, 1.0]])
    assert seen(lambda v, w, b: v.__setitem__([0], 3.0)) == ([], [[0.0, 2.0], [1.0, 1.0]])
    assert seen(lambda v, w, b: m.nn.functional.relu(v, inplace=True)) == ([], [[2.0, 2.0], [1.0, 1.0]])
    assert seen(lambda v, w, b: v.mul_(b), on=lambda x, v, w: w) == ([], [[4.0, 10.0], [1.0, 1.0]])
    of_base = seen(lambda v, w, b: v.mul_(3.0), on=lambda x, v, w: x)[0]
    assert of_base[0] == [[6.0, 6.0], [1.0, 1.0]]


# --- random programs --------------------------------------------------------------------------------------------------


def agree(seeds):
    """The hooks are called in PyTorch's order, with its gradients; all that can be seen afterwards is the same."""
    torch = pytest.importorskip("torch")
    called = 0
    for seed in seeds:
        lines = program(seed, length=12, hooks=True)
        (seen, *ours), (expected, *theirs) = (run(m, lines, with_hooks=True) for m in (tape, torch))
        if any("some elements of the input tensor" in str(line) for line in expected):
            continue  # overlapping operands, which arrays that cannot change do not mind
        if "more than one element" in str(seen) and "more than one element" not in str(expected):
            continue  # zero_() of what was expanded, which the tape refuses with the rest
        assert seen == expected, f"seed {seed}"
        calls, true_calls = ours[2], theirs[2]
        assert [number for number, _ in calls] == [number for number, _ in true_calls], f"seed {seed}"
        ours[2], theirs[2] = ([grad for _, grad in c] for c in (calls, true_calls))
        called += len(calls)
        for mine, true in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
            assert (mine is None) == (true is None), f"seed {seed}"
            if mine is not None:
                np.testing.assert_allclose(mine, true, rtol=1e-3, atol=1e-5, err_msg=f"seed {seed}")
    assert called > len(seeds)


@pytest.mark.filterwarnings("ignore")
def test_random_programs_with_hooks():
    agree(range(6))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_random_programs_with_hooks():
    agree(range(6, MANY))
