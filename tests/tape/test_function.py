"""Functions with a derivative of the user's own, beside PyTorch: results, gradients and errors of many small programs.

Each scenario takes the module and a leaf, and returns what can be seen; both must see the same.
"""

import gc
import weakref

import numpy as np
import pytest

from twograd import tape

SCENARIOS = []


def scenario(function):
    SCENARIOS.append(function)
    return function


def plain(value):
    if isinstance(value, (tuple, list)):
        return type(value)(map(plain, value))
    return np.round(np.asarray(value.tolist()), 4).tolist() if hasattr(value, "tolist") else value


def outcome(run, m):
    try:
        return plain(run(m, m.tensor([1.0, 2.0], requires_grad=True)))
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        return type(error).__name__, str(error)


def function(m, forward=None, backward=None, **others):
    methods = {"forward": forward, "backward": backward, **others}
    return type("My", (m.autograd.Function,), {k: staticmethod(f) for k, f in methods.items() if f is not None})


def square(ctx, x):
    ctx.save_for_backward(x)
    return x * x


def square_backward(ctx, grad):
    return 2 * ctx.saved_tensors[0] * grad


@scenario
def used_twice(m, x):
    f = function(m, square, square_backward)
    y = f.apply(x) + f.apply(x * 3)
    y.sum().backward()
    return x.grad, y


@scenario
def walked_twice(m, x):
    y = function(m, square, square_backward).apply(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    y.backward()


@scenario
def nothing_saved_walked_twice(m, x):
    y = function(m, lambda ctx, x: x * 5, lambda ctx, g: g * 5).apply(x).sum()
    y.backward()
    y.backward()
    return x.grad


@scenario
def reading_what_was_freed(m, x):
    y = function(m, square, square_backward).apply(x)
    before = y.grad_fn.saved_tensors
    y.sum().backward()
    return before, y.grad_fn.saved_tensors


@scenario
def the_node(m, x):
    y = function(m, square, square_backward).apply(x)
    node = y.grad_fn
    node.mine = 3
    return (
        node.name(), type(node).__name__, node.mine, node.needs_input_grad, node.metadata, len(node.next_functions),
        isinstance(node, m.autograd.graph.Node), node.saved_tensors[0] is x,
    )  # fmt: skip


@scenario
def next_functions(m, x):
    node = function(m, lambda ctx, a, b, c, d: a * b, None).apply(x, 3, m.ones(1), x * 2).grad_fn
    return [(end and end.name(), i) for end, i in node.next_functions]


@scenario
def no_forward(m, x):
    return function(m, None, square_backward).apply(x)


@scenario
def no_backward(m, x):
    function(m, square).apply(x).sum().backward()


@scenario
def vjp_in_place_of_backward(m, x):
    function(m, square, vjp=square_backward).apply(x).sum().backward()
    return x.grad


@scenario
def backward_and_vjp(m, x):
    function(m, square, square_backward, vjp=square_backward).apply(x).sum().backward()


def returning(name, made, forward=square, args=lambda m, x: (x,)):
    """A scenario whose ``backward`` returns ``made(m, grad)``."""

    def run(m, x):
        f = function(m, forward, lambda ctx, grad: made(m, grad))
        return m.autograd.grad(f.apply(*args(m, x)).sum(), x, allow_unused=True)

    run.__name__ = f"returns {name}"
    SCENARIOS.append(run)


returning("None", lambda m, g: None)
returning("too many", lambda m, g: (g, g))
returning("Nones more", lambda m, g: (g, None, None))
returning("too few", lambda m, g: g, lambda ctx, x, y: x * y, lambda m, x: (x, x))
returning("another shape", lambda m, g: m.ones(3))
returning("a smaller shape", lambda m, g: m.ones(1))
returning("a bigger shape", lambda m, g: m.ones(4, 2))
returning("a shape to be summed", lambda m, g: m.ones(4, 2), lambda ctx, x: x * 1, lambda m, x: (x[:1],))
returning("a number", lambda m, g: 3.0)
returning("integers", lambda m, g: m.ones(2).int())
returning("a gradient for a number", lambda m, g: (g, g), lambda ctx, x, a: x * a, lambda m, x: (x, 3.0))
returning("None for a number", lambda m, g: (g * 3, None), lambda ctx, x, a: x * a, lambda m, x: (x, 3.0))


@scenario
def results_that_are_no_tensors(m, x):
    seen = []
    f = function(m, lambda ctx, x: (x * 2, "a", None, 3), lambda ctx, *g: (seen.append(g), g[0] * 2)[1])
    y, *others = f.apply(x)
    y.sum().backward()
    return y, others, seen, x.grad


@scenario
def no_tensor_at_all(m, x):
    return [function(m, lambda ctx, x, r=r: r, None).apply(x) for r in ("a", None, 3)]


@scenario
def saving_no_tensor(m, x):
    return function(m, lambda ctx, x: (ctx.save_for_backward(3), x * 2)[1]).apply(x)


@scenario
def saving_none(m, x):
    seen = []

    def forward(ctx, x):
        ctx.save_for_backward(None, x, None)
        return x * 2

    function(m, forward, lambda ctx, g: (seen.append(ctx.saved_tensors), g)[1]).apply(x).sum().backward()
    return seen


def two(ctx, x):
    return x * 2, x * 3


@scenario
def zeros_for_an_unused_result(m, x):
    seen = []
    f = function(m, two, lambda ctx, *g: (seen.append(g), g[0] * 2 + g[1] * 3)[1])
    return m.autograd.grad(f.apply(x)[1].sum(), x), seen


@scenario
def none_for_an_unused_result(m, x):
    seen = []

    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        return two(ctx, x)

    f = function(m, forward, lambda ctx, *g: (seen.append(g), g[1] * 3)[1])
    return m.autograd.grad(f.apply(x)[1].sum(), x), seen


@scenario
def not_differentiable(m, x):
    def forward(ctx, x):
        mask, doubled = x > 1, x * 2
        ctx.mark_non_differentiable(mask, doubled)
        return x * 3, mask, doubled

    seen = []
    results = function(m, forward, lambda ctx, *g: (seen.append(len(g)), g[0] * 3)[1]).apply(x)
    results[0].sum().backward()
    return seen, x.grad, [r.requires_grad for r in results], [r.grad_fn is None for r in results]


@scenario
def integer_results(m, x):
    results = function(m, lambda ctx, x: (x * 2, x.argmax()), lambda ctx, g, _: g * 2).apply(x)
    results[0].sum().backward()
    return x.grad, [r.requires_grad for r in results]


@scenario
def an_operand_returned(m, x):
    f = function(m, lambda ctx, x: x, lambda ctx, g: g * 5)
    y = f.apply(x)
    y.sum().backward()
    z = x * 1
    return y is x, y._version, x.grad, f.apply(z).grad_fn.name(), z.grad_fn.name()


@scenario
def an_operand_returned_is_not_to_be_changed(m, x):
    function(m, lambda ctx, x: x, lambda ctx, g: g).apply(x * 1).mul_(2)


@scenario
def one_result_twice(m, x):
    seen = []
    f = function(m, lambda ctx, x: (x * 2,) * 2, lambda ctx, *g: (seen.append(g), g[0] + g[1])[1])
    a, b = f.apply(x)
    a.sum().backward()
    return a is b, seen, x.grad


def double_(ctx, x):
    x.mul_(2)
    ctx.mark_dirty(x)
    return x


@scenario
def changed_in_place(m, x):
    z = x * 1
    y = function(m, double_, lambda ctx, g: g * 2).apply(z)
    (y * y).sum().backward()
    return y is z, y, z._version, z.grad_fn.name(), x.grad


@scenario
def changed_in_place_without_gradient(m, x):
    z = m.ones(2)
    y = function(m, double_, lambda ctx, g: g * 2).apply(z)
    return y is z, y, z._version, y.requires_grad


@scenario
def changed_through_a_view(m, x):
    z = x * 1
    v = z[:1]
    y = function(m, double_, lambda ctx, g: g * 7).apply(v)
    z.sum().backward()
    return y is v, z, z.grad_fn.name(), z._version, x.grad


@scenario
def changed_and_saved(m, x):
    def forward(ctx, x):
        double_(ctx, x)
        ctx.save_for_backward(x)
        return x

    z = x * 1
    y = function(m, forward, lambda ctx, g: g * ctx.saved_tensors[0]).apply(z)
    (y * 1).sum().backward()
    return x.grad


@scenario
def changed_leaf(m, x):
    function(m, double_, lambda ctx, g: g * 2).apply(x)


@scenario
def changed_and_not_returned(m, x):
    function(m, lambda ctx, x: (double_(ctx, x), x * 1)[1]).apply(x * 1)


@scenario
def changed_since_it_was_saved(m, x):
    z = x * 1
    y = function(m, square, square_backward).apply(z)
    z.mul_(2)
    try:
        y.sum().backward()
    except RuntimeError as error:
        return str(error)[:72]


def exponential(ctx, x):
    y = x.exp()
    ctx.save_for_backward(y)
    return y


@scenario
def a_saved_result(m, x):
    y = function(m, exponential, lambda ctx, g: g * ctx.saved_tensors[0]).apply(x)
    (first,) = m.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = m.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = m.autograd.grad(second.sum(), x)
    return first, second, third, y.grad_fn.saved_tensors[0].grad_fn is y.grad_fn


@scenario
def a_saved_result_that_was_changed(m, x):
    y = function(m, exponential, lambda ctx, g: g * ctx.saved_tensors[0]).apply(x)
    y.mul_(2)
    try:
        y.sum().backward()
    except RuntimeError as error:
        return str(error)[:72]


@scenario
def second_derivative(m, x):
    y = function(m, square, square_backward).apply(x)
    (g,) = m.autograd.grad((y * y).sum(), x, create_graph=True)
    g.sum().backward()
    return g, x.grad


@scenario
def once_differentiable_is_once(m, x):
    seen = []

    @m.autograd.function.once_differentiable
    def backward(ctx, grad):
        seen.append(m.is_grad_enabled())
        return square_backward(ctx, grad)

    y = function(m, square, backward).apply(x)
    (g,) = m.autograd.grad((y * y).sum(), x, create_graph=True)
    (constant,) = m.autograd.grad(y.sum(), x, create_graph=True)
    try:
        g.sum().backward()
    except RuntimeError as error:
        return g, g.requires_grad, constant.requires_grad, seen, str(error)


def scaled(x, factor=3):
    return x * factor


def keep_factor(ctx, inputs, output):
    ctx.save_for_backward(inputs[0], output)
    ctx.factor = inputs[1]


@scenario
def separate_context(m, x):
    f = function(m, scaled, lambda ctx, g: (g * ctx.factor, None), setup_context=keep_factor)
    x.grad = None
    (f.apply(x) + f.apply(x, 10) + f.apply(x, factor=100)).sum().backward()
    return x.grad, len(f.apply(x).grad_fn.saved_tensors)


@scenario
def keywords(m, x):
    return m.autograd.grad(function(m, square, square_backward).apply(x=x).sum(), x)


@scenario
def what_needs_a_gradient(m, x):
    seen = []
    constant, other = m.ones(2), m.ones(2, requires_grad=True)

    def forward(ctx, *args):
        seen.append((ctx.needs_input_grad, m.is_grad_enabled(), args[0].requires_grad))
        return args[0] * args[2]

    def backward(ctx, grad):
        seen.append((ctx.needs_input_grad, m.is_grad_enabled()))
        return grad, None, None, grad

    y = function(m, forward, backward).apply(x, 3, constant, other)
    m.autograd.grad(y.sum(), x)
    return seen


@scenario
def nothing_requires_a_gradient(m, x):
    f = function(m, square, square_backward)
    with m.no_grad():
        unrecorded = f.apply(x)
    return [(y.requires_grad, y.grad_fn) for y in (unrecorded, f.apply(m.ones(2)))]


@scenario
def hooks(m, x):
    seen = []
    z = x * 1
    y = function(m, square, square_backward).apply(z)
    z.register_hook(lambda g: seen.append(("operand", plain(g))))
    y.register_hook(lambda g: (seen.append(("result", plain(g))), g * 2)[1])
    y.grad_fn.register_prehook(lambda gs: seen.append(("before", plain(gs))))
    y.grad_fn.register_hook(lambda into, out: (seen.append(("after", plain(into), plain(out))), (into[0] + 1,))[1])
    y.retain_grad()
    y.sum().backward()
    return seen, x.grad, y.grad


@scenario
def no_gradient_goes_on(m, x):
    """What is behind a ``backward`` that returns None is walked without gradients."""
    seen = []
    z = x * 2
    z.register_hook(seen.append)
    z.grad_fn.register_hook(lambda into, out: seen.append((into[0], out)))
    x.register_hook(seen.append)
    x.register_post_accumulate_grad_hook(lambda x: seen.append(x.grad))
    function(m, square, lambda ctx, g: None).apply(z).sum().backward()
    return seen, x.grad


@scenario
def packed(m, x):
    seen = []
    with m.autograd.graph.saved_tensors_hooks(
        lambda t: (seen.append("pack"), t.detach() * 10)[1], lambda t: (seen.append("unpack"), t)[1]
    ):
        y = function(m, square, square_backward).apply(x)
    y.sum().backward()
    return seen, x.grad


@scenario
def a_closed_over_parameter_keeps_its_history(m, x):
    weight = m.tensor([5.0, 7.0], requires_grad=True)
    y = function(m, lambda ctx, x: x * weight, lambda ctx, g: g * weight).apply(x)
    (y + weight).sum().backward()
    return x.grad, weight.grad


@scenario
def in_the_middle_of_a_graph(m, x):
    f = function(m, square, square_backward)
    y = x
    for _ in range(3):
        y = (f.apply(y.sin()) * 0.5).exp()
    y.sum().backward()
    return x.grad


@pytest.mark.parametrize("run", SCENARIOS, ids=lambda run: run.__name__)
def test_as_pytorch(run):
    torch = pytest.importorskip("torch")
    assert outcome(run, tape) == outcome(run, torch)


def test_the_programs_say_something():
    """The scenarios are not all errors, and the errors are not those of a broken scenario."""
    errors = [o for o in (outcome(run, tape) for run in SCENARIOS) if isinstance(o, tuple) and "Error" in str(o[0])]
    assert 10 < len(errors) < len(SCENARIOS) / 2
    assert not any("attribute" in text for _, text in errors)


def test_instances_are_of_no_use():
    with pytest.warns(DeprecationWarning, match="should not be instantiated"):
        function(tape, square)()


def test_a_saved_result_makes_no_cycle():
    y = function(tape, exponential, lambda ctx, g: g).apply(tape.ones(2, requires_grad=True))
    node = weakref.ref(y.grad_fn)
    gc.disable()
    try:
        del y
        assert node() is None
    finally:
        gc.enable()


def test_complex_gradient_of_a_real_operand():
    f = function(tape, square, lambda ctx, g: g * 1j)
    with pytest.raises(RuntimeError, match="invalid gradient at index 0 - expected dtype float32 but got complex64"):
        f.apply(tape.ones(2, requires_grad=True)).sum().backward()


@pytest.mark.parametrize("level", ["op", "primitive"])
def test_third_derivative_against_the_plain_program(level):
    """The function's own rule, x**3 as x * x * x: all derivatives agree with those of the operations."""

    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    cube = function(tape, forward, lambda ctx, g: 3 * ctx.saved_tensors[0] ** 2 * g).apply

    def derivatives(f):
        x = tape.tensor([0.5, -1.5], requires_grad=True)
        y = f(x.sin()).exp()
        found = []
        for _ in range(3):
            (y,) = tape.autograd.grad(y.sum(), x, create_graph=True)
            found.append(y.array)
        return found

    with tape.granularity(level):
        for own, plain_one in zip(derivatives(cube), derivatives(lambda x: x * x * x), strict=True):
            np.testing.assert_allclose(own, plain_one, rtol=1e-4)
