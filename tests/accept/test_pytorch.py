"""What users of PyTorch expect of a tape: the same statements with both, and the texts of its errors, verbatim."""

import copy
import gc
import re
import warnings
import weakref

import pytest
from tape.both import both

from twograd import tape

FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been "
    "freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). Specify "
    "retain_graph=True if you need to backward through the graph a second time or if you need to access saved tensors "
    "after calling backward."
)
SEVERAL = (
    "This view is the output of a function that returns multiple views. Such functions do not allow the output views "
    "to be modified inplace. You should replace the inplace operation by an out-of-place one."
)


def says(text, error=RuntimeError):
    return pytest.raises(error, match=re.escape(text))


def leaf(m, *values):
    return m.tensor(values, requires_grad=True)


# 1. requires_grad


@both
def test_what_requires_grad(m):
    x, y = m.randn(5, 5), m.randn(5, 5)
    z = m.randn(5, 5, requires_grad=True)
    a = x + y
    assert a.requires_grad is False
    b = a + z
    assert b.requires_grad is True
    assert (a.grad_fn, (x * y).exp().grad_fn) == (None, None)


# 2. the head of a frozen network


@both
def test_only_the_new_head_learns(m):
    trunk = m.nn.Sequential(m.nn.Linear(4, 5), m.nn.Tanh(), m.nn.Linear(5, 3))
    for parameter in trunk.parameters():
        parameter.requires_grad = False
    head = m.nn.Linear(3, 2)
    before = [p.tolist() for p in trunk.parameters()]
    kept = []
    optimizer = m.optim.SGD(head.parameters(), lr=1e-2, momentum=0.9)
    for _ in range(3):
        with m.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
            features = trunk(m.ones(6, 4))
        assert (features.requires_grad, kept) == (False, [])
        optimizer.zero_grad()
        head(features).square().sum().backward()
        optimizer.step()
    assert all(p.grad is None for p in trunk.parameters())
    assert all(p.grad is not None for p in head.parameters())
    assert [p.tolist() for p in trunk.parameters()] == before


# 3. the graph


@both
def test_the_graph_can_be_walked_and_is_new_each_time(m):
    x, w = leaf(m, 1.0, 2.0), leaf(m, 3.0, 4.0)

    def graph():
        return ((x * w).exp() + 1).grad_fn

    node = graph()
    names = []
    while node.next_functions:
        names.append(node.name())
        node, output = node.next_functions[0]
        assert output == 0
    assert names == ["AddBackward0", "ExpBackward0", "MulBackward0"]
    assert (type(node).__name__, node.variable is x) == ("AccumulateGrad", True)
    assert graph() is not graph()


# 4. deep graphs, and fan-out


@both
def test_a_chain_is_walked_without_recursion_and_what_is_used_twice_is_summed(m):
    x = leaf(m, 1.0)
    y = x
    for _ in range(3000):
        y = y + 1
    y.sum().backward()
    assert x.grad.tolist() == [1.0]
    y = x * 2
    calls = []
    y.register_hook(lambda grad: calls.append(grad.tolist()))
    (y * 3 + y * 4).sum().backward()
    assert (calls, x.grad.tolist()) == ([[7.0]], [15.0])


# 5. twice


@both
def test_backward_twice(m):
    x = leaf(m, 1.0, 2.0)
    nothing_saved = (x + 1).sum()
    nothing_saved.backward()
    nothing_saved.backward()
    y = x.exp().sum()
    y.backward(retain_graph=True)
    y.backward()
    with says(FREED):
        y.backward()
    with says(FREED):
        y.grad_fn.next_functions[0][0]._saved_result  # noqa: B018


# 6. to 8. in place: more in tests/tape/test_inplace.py


@both
def test_leaves_and_their_views_are_not_changed(m):
    x = leaf(m, 1.0, 2.0)
    with says("a leaf Variable that requires grad is being used in an in-place operation."):
        x += 1
    with says("a view of a leaf Variable that requires grad is being used in an in-place operation."):
        x[0] += 1
    x[:1].detach().add_(1)
    assert x._version == 1


@both
def test_what_was_saved_must_be_as_it_was(m):
    """The four lines of discuss.pytorch.org/t/169583/3."""
    for op, changed_output, changed_input in (
        (lambda x: x.exp(), False, True), (lambda x: x**2, True, False), (lambda x: 10 * x, True, True),
    ):  # fmt: skip
        for which, allowed in (("output", changed_output), ("input", changed_input)):
            x = leaf(m, 1.0, 2.0) * 1
            y = op(x)
            (y if which == "output" else x).add_(1)
            if allowed:
                y.sum().backward()
                continue
            with says(
                "one of the variables needed for gradient computation has been modified by an inplace operation: "
                f"[torch.FloatTensor [2]], which is output 0 of {'Exp' if which == 'output' else 'Add'}, is at version "
                "1; expected version 0 instead. Hint: enable anomaly detection to find the operation that failed to "
                "compute its gradient, with torch.autograd.set_detect_anomaly(True, check_nan=False)."
            ):
                y.sum().backward()


@both
def test_views(m):
    x, w = leaf(m, 1.0, 2.0), leaf(m, 3.0)
    base = x * 1
    base[0].mul_(w[0])
    (base * base).sum().backward()
    assert (x.grad.tolist(), w.grad.tolist()) == ([18.0, 4.0], [6.0])
    first, _ = (x * 1).unbind()
    with says(f"Output 0 of Unbind is a view and is being modified inplace. {SEVERAL}"):
        first.mul_(2)
    with m.no_grad():
        view = base[:1]
    with says("A view was created in no_grad mode and is being modified inplace with grad mode enabled."):
        view.mul_(2)


# 9. and 10. roots and targets


@both
def test_roots(m):
    x = leaf(m, 1.0, 2.0)
    with says("grad can be implicitly created only for scalar outputs"):
        (x * 2).backward()
    with says("element 0 of tensors does not require grad and does not have a grad_fn"):
        m.ones(1).backward()
    with says(
        "Mismatch in shape: grad_output[0] has a shape of torch.Size([3]) and output[0] has a shape of torch.Size([2])."
    ):
        (x * 2).backward(m.ones(3))


@both
def test_targets(m):
    x, unused = leaf(m, 1.0, 2.0), leaf(m, 1.0)
    y = (x * x).sum()
    with says("appears to not have been used in the graph. Set allow_unused=True if this is the desired behavior."):
        m.autograd.grad(y, [x, unused], retain_graph=True)
    assert m.autograd.grad(y, [x, unused], retain_graph=True, allow_unused=True)[1] is None
    assert m.autograd.grad(y, [x, unused], materialize_grads=True)[1].tolist() == [0.0]
    assert x.grad is None


# 11. flags


@both
def test_flags(m):
    x = leaf(m, 1.0, 2.0)
    y = x * 2
    with says(
        "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a "
        "subgraph that doesn't require differentiation use var_no_grad = var.detach()."
    ):
        y.requires_grad = False
    with says("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."):
        y.numpy()
    with says(
        "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the moment."
    ):
        copy.deepcopy(y)
    with pytest.warns(
        UserWarning, match="The .grad attribute of a Tensor that is not a leaf Tensor is being accessed."
    ):
        assert y.grad is None
    with says("cannot register a hook on a tensor that doesn't require gradient"):
        m.ones(1).register_hook(print)


# 12. and 13. accumulation, and derivatives of derivatives


@both
def test_gradients_accumulate_until_they_are_zeroed(m):
    x = leaf(m, 1.0, 2.0)
    for _ in range(2):
        (x * x).sum().backward()
    assert x.grad.tolist() == [4.0, 8.0]
    optimizer = m.optim.SGD([x], lr=0.1)
    optimizer.zero_grad(set_to_none=False)
    assert x.grad.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert x.grad is None
    for part in (x[:1], x[1:]):
        ((part * part).mean() / 2).backward()
    assert x.grad.tolist() == m.autograd.grad((x * x).mean(), x)[0].tolist()


@both
def test_derivatives_of_derivatives(m):
    x = leaf(m, 2.0)
    y = x**4
    for expected in (32.0, 48.0, 48.0):
        (y,) = m.autograd.grad(y.sum(), x, create_graph=True)
        assert y.item() == pytest.approx(expected)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        (x * x).sum().backward(create_graph=True)
    start = (
        "Using backward() with create_graph=True will create a reference cycle between the parameter and its gradient"
    )
    assert [str(w.message)[: len(start)] for w in told] in ([start], [] if m is not tape else [start])  # PyTorch: once
    assert x.grad.requires_grad
    x.grad = None


# 14. and 15. what goes wrong on the way


@both
def test_anomalies_and_wrong_gradients(m):
    class Wrong(m.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return m.ones(3)

    x = leaf(m, 0.0, 2.0)
    with m.autograd.set_detect_anomaly(True):
        y = x.sqrt() * 0
        with (
            pytest.warns(UserWarning, match=re.escape("y = x.sqrt() * 0")),
            says("Function 'SqrtBackward0' returned nan values in its 0th output."),
        ):
            y.sum().backward()
    with says(
        "Function WrongBackward returned an invalid gradient at index 0 - got [3] but expected shape compatible with "
        "[2]"
    ):
        Wrong.apply(x).sum().backward()


# 16. and 17. inference, leaks


@both
def test_inference_tensors_are_not_saved(m):
    with m.inference_mode():
        w = m.ones(2)
    with says("Inference tensors cannot be saved for backward."):
        leaf(m, 1.0, 2.0) * w


@both
def test_a_total_of_losses_keeps_every_graph(m):
    x = leaf(m, 1.0, 2.0)

    class Mark:
        """Lives as long as the node that it is put on."""

    def graphs_alive(add):
        total, marks = 0.0, []
        for _ in range(4):
            loss = (x * x).sum()
            mark = loss.grad_fn.metadata["mark"] = Mark()
            marks.append(weakref.ref(mark))
            total = total + add(loss)
            del loss, mark
        return sum(mark() is not None for mark in marks)

    gc.disable()  # reference counts must do
    try:
        counts = [
            graphs_alive(add) for add in (lambda loss: loss, lambda loss: loss.item(), lambda loss: loss.detach())
        ]
    finally:
        gc.enable()
    assert counts == [4, 0, 0]
