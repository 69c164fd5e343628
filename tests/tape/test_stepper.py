"""Stepping through the walk back: what is recorded, in PyTorch's order, and shown as text, in a terminal, as a page."""

import io
import re
from html.parser import HTMLParser

import jax
import numpy as np
import pytest

import twograd.numpy as tnp
from twograd import graph, tape
from twograd.tape.stepper import page
from twograd.tape.stepper.account import account

from .both import both

X = np.linspace(0.2, 1.3, 6, dtype=np.float32).reshape(2, 3)
W = np.linspace(-0.7, 0.9, 12, dtype=np.float32).reshape(3, 4)


def leaves(*arrays):
    return [tape.tensor(array, requires_grad=True) for array in arrays]


def layer(x, w):
    hidden = (x @ w).tanh()
    return (hidden * hidden).sum()


def pair(x):
    return x, x


def product(x, w):
    return tnp.sum(tnp.tanh(x @ w) ** 2)


# --- the record -------------------------------------------------------------------------------------------------------


def test_grads_are_those_of_backward_and_the_graph_is_freed():
    x, w = leaves(X, W)
    walk = tape.step(layer(x, w))
    expected = jax.grad(lambda x, w: jax.numpy.sum(jax.numpy.tanh(x @ w) ** 2), (0, 1))(X, W)
    np.testing.assert_allclose(x.grad.numpy(), expected[0], rtol=1e-5)
    np.testing.assert_allclose(w.grad.numpy(), expected[1], rtol=1e-5)
    assert walk.grads["x"] is x.grad.array
    assert walk.error is None
    loss = layer(x, w)
    tape.step(loss)
    np.testing.assert_allclose(x.grad.numpy(), 2 * expected[0], rtol=1e-5)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()
    loss = layer(x, w)
    tape.step(loss, retain_graph=True)
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), 4 * expected[0], rtol=1e-5)


def test_what_a_step_knows():
    x, w = leaves(X, W)
    loss = layer(x, w)
    hidden = loss.grad_fn.next_functions[0][0].next_functions[0][0]
    output = hidden.saved[0]
    first_bytes = tape.stats(loss).saved_bytes
    walk = tape.step(loss)
    assert [step.name for step in walk] == [
        "SumBackward0", "MulBackward0", "TanhBackward0", "MmBackward0", "AccumulateGrad", "AccumulateGrad",
    ]  # fmt: skip
    total, mul, tanh, mm, *_ = walk
    assert walk.bytes_at_first == first_bytes == output.nbytes + X.nbytes + W.nbytes
    assert (total.op, total.saved, total.freed) == ("sum", (), ())
    assert [saved.name for saved in mul.saved] == ["x", "y"]
    assert mul.saved[0].value is mul.saved[1].value is output
    assert mul.freed == ()  # tanh keeps it too
    assert [saved.name for saved in tanh.saved] == [saved.name for saved in tanh.freed] == ["out"]
    assert tanh.node is hidden
    assert [(rule.primitive, rule.operand, rule.source) for rule in mul.rules] == [
        ("mul", "x", "lambda ct, y: mul(ct, y)"),
        ("mul", "y", "lambda ct, x: mul(ct, x)"),
    ]
    assert [out.added for out in mul.outgoing] == [False, True]  # both to tanh, where they are added
    np.testing.assert_allclose(tanh.incoming[0], 2 * output, rtol=1e-6)
    np.testing.assert_array_equal(mul.outgoing[0].ct, output)
    assert [out.label for out in mm.outgoing] == ["AccumulateGrad of x", "AccumulateGrad of w"]
    assert mm.live_bytes == 0
    assert [step.live_bytes for step in walk][:3] == [first_bytes, first_bytes, first_bytes - output.nbytes]


def test_queue_and_counts_of_cotangents():
    (x,) = leaves(X)
    a = x.sin()
    b = a.exp()
    walk = tape.step((a * b).sum())
    queues = {step.name: [(w.label, w.arrived, w.expected, w.ready) for w in step.queue] for step in walk}
    assert queues["SumBackward0"] == [("SumBackward0 #3", 1, 1, True)]
    assert queues["ExpBackward0"] == [("ExpBackward0 #1", 1, 1, True), ("SinBackward0 #0", 1, 2, False)]
    assert queues["SinBackward0"] == [("SinBackward0 #0", 2, 2, True)]
    assert queues["AccumulateGrad"] == [("AccumulateGrad of x", 1, 1, True)]


def test_grad_after_each_step():
    x, w = leaves(X, W)
    walk = tape.step(layer(x, w))
    seen = [[name for name, grad in step.grads.items() if grad is not None] for step in walk]
    assert seen[:4] == [[]] * 4
    assert len(seen[4]) == 1
    assert sorted(seen[5]) == ["w", "x"]


def chained(m):
    x = m.tensor([[0.2, 0.5], [0.7, 1.1]], requires_grad=True)
    return x.sin().exp().tanh().sum()


def branched(m):
    x = m.tensor([[0.2, 0.5], [0.7, 1.1]], requires_grad=True)
    w = m.tensor([[0.3, 0.1], [0.9, 0.4]], requires_grad=True)
    a = (x @ w).tanh()
    b = a.exp() * x.cos()
    c = a.sigmoid() + b
    return (c * a - b.sin()).sum()


def shared(m):
    x = m.tensor([0.2, 0.5], requires_grad=True)
    y = x * x
    return (y * y + y.exp()).sum() * y.sum()


def partial(m):
    x = m.tensor([0.2, 0.5], requires_grad=True)
    y = x.sin()
    z = y.detach().exp() * y
    y.cos()  # leads nowhere
    return z.sum()


@both
@pytest.mark.parametrize("program", [chained, branched, shared, partial])
def test_the_order_is_pytorchs(m, program):
    loss = program(m)
    nodes, stack = [], [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in nodes:
            nodes.append(node)
            stack.extend(following for following, _ in node.next_functions)
    if m is tape:
        walked = [step.name for step in tape.step(loss)]
    else:
        walked = []
        for node in nodes:
            node.register_prehook(lambda _, node=node: walked.append(node.name().removeprefix("torch::autograd::")))
        loss.backward()
    expected = {
        "chained": "Sum Tanh Exp Sin AccumulateGrad",
        "branched": "Sum Sub Sin Mul Add Sigmoid Mul Cos Exp Tanh Mm AccumulateGrad AccumulateGrad",
        "shared": "Mul Sum Sum Add Exp Mul Mul AccumulateGrad",
        "partial": "Sum Mul Sin AccumulateGrad",
    }[program.__name__]
    assert [name.removesuffix("0").removesuffix("Backward") for name in walked] == expected.split()


@pytest.mark.parametrize("level", ["op", "primitive"])
def test_bytes_are_those_of_stats_at_the_turn(level):
    x, w = leaves(X, W)
    with tape.granularity(level):
        loss = tnp.sum(tnp.exp(tnp.tanh(x @ w)) / 3.0)
    stats = tape.stats(loss)
    walk = tape.step(loss)
    assert walk.bytes_at_first == stats.saved_bytes
    assert sum(saved.value.nbytes for step in walk for saved in step.freed) == stats.saved_bytes
    assert walk[-1].live_bytes == 0


def test_some_inputs_only_and_a_cotangent():
    x, w = leaves(X, W)
    y = (x @ w).tanh()
    walk = tape.step(y, gradient=tape.ones(2, 4), inputs=[w])
    assert x.grad is None
    assert w.grad is not None
    assert [step.name for step in walk][:2] == ["TanhBackward0", "MmBackward0"]
    assert walk[1].outgoing[0].ct is None


def test_an_error_ends_the_walk_and_is_shown():
    (x,) = leaves(X)
    y = x * 2.0
    z = y.sin().sum()
    y.mul_(3.0)
    walk = tape.step(z)
    assert [step.name for step in walk] == ["SumBackward0", "SinBackward0"]
    assert "modified by an inplace operation" in walk.error
    assert walk[-1].saved[0].changed == (0, 1)
    assert "saved at version 0, now at 1" in repr(walk.goto(-1))
    assert "The walk ended with an error at its last step." in walk.html
    assert x.grad is None
    freed = (x * x).sum()
    freed.backward()
    assert "backward through the graph a second time" in tape.step(freed).error


def test_what_backward_refuses_is_refused():
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        tape.step(tape.ones(2, requires_grad=True) * 2)
    with pytest.raises(RuntimeError, match="does not require grad and does not have a grad_fn"):
        tape.step(tape.ones(()))
    with pytest.raises(TypeError, match="step takes a Tensor, or a function and its arguments; got int"):
        tape.step(3)
    with pytest.raises(TypeError, match=r"step\(loss\) takes no other positional arguments"):
        tape.step(tape.ones((), requires_grad=True), 1)
    with pytest.raises(TypeError, match="pair must return one Tensor to be stepped through, not tuple"):
        tape.step(pair, X)


class Doubled(tape.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx, ct):
        (x,) = ctx.saved_tensors
        return ct * x.exp() * 2


def test_functions_hooks_and_packed_values():
    (x,) = leaves(X)
    y = Doubled.apply(x)
    y.register_hook(lambda ct: ct * 3.0)
    walk = tape.step(y.sum()).run_to("Doubled")
    assert walk.current.op == "Doubled"
    assert "return ct * x.exp() * 2" in walk.current.rules[0].source
    np.testing.assert_array_equal(walk.current.incoming[0], np.full_like(X, 3.0))  # after the hook
    np.testing.assert_allclose(x.grad.numpy(), 6 * np.exp(X), rtol=1e-6)
    with tape.autograd.graph.save_on_cpu():
        loss = (x * x).sum()
    walk = tape.step(loss).run_to("Mul")
    assert "packed by a hook" in repr(walk)
    assert walk.bytes_at_first == X.nbytes
    assert walk.current.live_bytes == 0
    assert "MulBackward0" in tape.draw((x * x).sum()).svg


def test_with_create_graph_the_gradients_have_a_history():
    (x,) = leaves(X)
    loss = x.sin().sum()
    with pytest.warns(UserWarning, match="reference cycle"):
        walk = tape.step(loss, create_graph=True)
    np.testing.assert_allclose(walk.grads["x"], np.cos(X), rtol=1e-6)
    (second,) = tape.autograd.grad(x.grad.sum(), x)
    np.testing.assert_allclose(second.numpy(), -np.sin(X), rtol=1e-6)
    x.grad = None


def test_no_hook_is_left_behind():
    (x,) = leaves(X)
    loss = x.sin().sum()
    walk = tape.step(loss, retain_graph=True)
    before = len(walk)
    loss.backward(retain_graph=True)
    assert len(walk) == before
    assert not loss.grad_fn.rare.prehooks
    assert not loss.grad_fn.rare.posthooks


# --- the cursor -------------------------------------------------------------------------------------------------------


def test_back_then_forward_is_the_same():
    x, w = leaves(X, W)
    loss = layer(x, w)
    walk = tape.step(loss)
    forwards = [repr(walk)] + [repr(walk.next()) for _ in range(len(walk) - 1)]
    backwards = [repr(walk)] + [repr(walk.back()) for _ in range(len(walk) - 1)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == len(walk)
    assert walk.back().position == 0
    assert walk.goto(-1).next().position == len(walk) - 1
    assert walk.goto(loss).position == 0
    assert walk.goto(x).current.leaf == "x"
    assert walk.goto(walk[2].node).position == 2
    assert walk.goto(0).run_to("mm").current.name == "MmBackward0"
    with pytest.raises(IndexError, match="there is no step 6: the walk has 6, from 0"):
        walk.goto(6)
    with pytest.raises(ValueError, match="was not met on this walk"):
        walk.goto(tape.ones(2, requires_grad=True))
    with pytest.raises(ValueError, match="no step after 3 is called 'Exp'; those that follow: AccumulateGrad"):
        walk.run_to("Exp")
    assert walk.position == 3


def test_text_of_a_step():
    x, w = leaves(X, W)
    text = repr(tape.step(layer(x, w), params={"net": {"w": w}}).run_to("Mul"))
    assert text.startswith("a loss: step 2 of 6: MulBackward0 #2, of mul at test_stepper.py:")
    for said in (
        "▸ MulBackward0 #2  1 of 1 arrived  taken now",
        "mul with respect to x  elementwise.py:",
        "lambda ct, y: mul(ct, y)",
        "added to what was there",
        "net.w.grad    None",
        "tape.step(f, *args) records f and traces it too",
    ):
        assert said in text


# --- beside the jaxpr -------------------------------------------------------------------------------------------------


def test_each_step_is_linked_to_the_equations_that_say_the_same():
    walk = tape.step(product, X, W)
    assert walk.linked.unlinked == 0
    derivative = graph.trace(lambda x, w: jax.numpy.sum(jax.numpy.tanh(x @ w) ** 2), X, W).gradients()
    assert [e.text.split(" = ")[1].split("[")[0].split()[0] for e in walk.linked.equations] == [
        eqn.primitive.name for eqn in derivative.jaxpr.eqns
    ]
    by_name = {step.op: step for step in walk if step.op}
    assert list(by_name) == ["reduce_sum", "integer_pow", "tanh", "dot_general"]
    for op, step in by_name.items():
        forward = walk.linked.equations[walk.linked.forward[step.index]]
        assert f"= {op}" in forward.text
        emitted = [walk.linked.equations[i] for i in walk.linked.backward[step.index]]
        assert emitted
        assert {equation.source for equation in emitted} == {f"{op}.{forward.index}"}
        assert all(equation.step == step.index for equation in emitted)
    line = product.__code__.co_firstlineno + 1
    assert f"of tanh at test_stepper.py:{line} (product)" in repr(walk.run_to("Tanh"))
    assert [names.split()[-1] for names in walk.linked.inputs] == ["x", "w"]
    gradient = graph.grad(lambda x, w: jax.numpy.sum(jax.numpy.tanh(x @ w) ** 2), (0, 1))(X, W)
    np.testing.assert_allclose(walk.grads["x"], gradient[0], rtol=1e-5)


def test_arguments_in_structures_tensors_and_constants():
    def f(params, data, power, scale=2.0):
        return tnp.sum((data @ params["w"]) ** power) * scale

    (w,) = leaves(W)
    walk = tape.step(f, {"w": w}, X, 3, argnums=0)
    assert list(walk.grads) == ["params['w']"]
    assert walk.grads["params['w']"] is w.grad.array
    assert walk.linked.unlinked == 0
    assert len(tape.step(f, {"w": W}, X, 3).grads) == 2


def test_a_function_of_tensors_methods_is_traced_on_tensors():
    def f(x, w):
        return ((x @ w).tanh() * 2.0).sigmoid().sum()

    walk = tape.step(f, X, W)
    assert walk.linked is not None
    assert walk.linked.unlinked == 0
    line = f.__code__.co_firstlineno + 1
    assert f"of tanh at test_stepper.py:{line} (f)" in repr(walk.run_to("Tanh"))
    assert tape.is_grad_enabled()


def test_loops_and_branches_within_are_linked_too():
    def f(x):
        y = jax.lax.fori_loop(0, 3, lambda i, x: tnp.sin(x), x) if not isinstance(x, tape.Tensor) else None
        return tnp.sum(tape.apply(looped, x) if y is None else looped(x))

    def looped(x):
        return jax.lax.scan(lambda c, _: (jax.numpy.sin(c), None), x, length=3)[0]

    walk = tape.step(f, X[0])
    assert walk.linked is not None
    names = [step.name for step in walk]
    assert any(name.startswith("Scan") for name in names)
    scan = names.index(next(name for name in names if name.startswith("Scan")))
    assert walk.linked.backward[scan]


def test_where_it_cannot_be_traced_the_page_says_why():
    def f(x):
        return tnp.sum(x) if float(x[0, 0]) > 0 else tnp.sum(x * x)

    walk = tape.step(f, X)
    assert walk.linked is None
    assert walk.no_jaxpr.startswith("The function cannot be traced: ")
    assert "The function cannot be traced" in walk.html
    assert walk.grads["x"] is not None


# --- terminal and page ------------------------------------------------------------------------------------------------


def typed(walk, *lines):
    output = io.StringIO()
    walk.terminal(io.StringIO("\n".join(lines)), output)
    return output.getvalue()


def test_the_terminal_obeys():
    walk = tape.step(product, X, W)
    screen = typed(walk, "n", "", "b", "g 4", "g 99", "g Exp", "g", "x", "?", "j", "b", "g w", "q", "n")
    shown = re.findall(r"step (\d+) of 6: ", screen)
    assert shown == ["1", "2", "3", "2", "4", "3", next(str(step.index + 1) for step in walk if step.leaf == "w")]
    for said in (
        "there is no step 99: they are 1 to 6",
        "no step after 3 is called 'Exp'",
        "g needs a number or a name",
        "no command 'x'; ? lists them",
        "the step of this number",
        "▸   ",
        "lambda ct, out:",
    ):
        assert said in screen
    assert "This is the last step." in typed(walk.goto(-1), "n")
    assert "This is the first step." in typed(walk.goto(0), "b")


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.ids, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        attributes = dict(attrs)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]


def test_the_page_stands_alone(tmp_path):
    walk = tape.step(product, X, W)
    path = walk.save(tmp_path / "walk.html")
    text = path.read_text(encoding="utf-8")
    assert text == walk.html
    page = Tags(text)
    assert page.found.count("article") == len(walk)
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    boxes = set(re.findall(r'data-key="([^"]*)"', text))
    assert boxes == {box.key for box in walk.picture.nodes}
    for step, (op, node) in zip(walk, walk.boxes, strict=True):
        assert {op, node} <= boxes
        assert f'id="step-{step.index + 1}" data-boxes="{op} {node}"' in text
    assert page.found.count("script") == 1
    for step in walk:
        assert f'<h2 class="name" id="heading-{step.index + 1}">{step.label}' in text
    for equation in walk.linked.equations:
        assert f'data-step="{equation.step + 1}"' in text
    with pytest.raises(ValueError, match=r"a walk is saved as .html, not as .pdf"):
        walk.save(tmp_path / "walk.pdf")
    assert [found.name for found in tmp_path.iterdir()] == ["walk.html"]


def test_hostile_names():
    evil = "</script><script>alert(1)</script><b>&\"'"

    def f(params):
        return tnp.sum(params[evil] * 2.0)

    f.__name__ = evil
    clean = Tags(tape.step(product, X, W).html).found
    walk = tape.step(f, {evil: X})
    page = Tags(walk.html)
    assert page.found.count("script") == clean.count("script") == 1
    assert "b" not in page.found
    assert "&lt;/script&gt;" in walk.html
    loss = tnp.sum(walk[0].node and tape.tensor(X, requires_grad=True) * 1.0)
    assert "alert(1)" not in repr(tape.step(loss))


def test_extreme_values_are_shown():
    (x,) = leaves(np.array([1.0, 0.0, -1.0, 2.0, 3.0, 4.0, 5.0, 6.0], np.float32))
    text = repr(tape.step(tnp.sum(tnp.log(x))).run_to("Log"))
    assert "1 of 8 not finite" in text
    empty = tape.zeros(0, 3, requires_grad=True)
    assert "empty" in repr(tape.step((empty * 2.0).sum()).run_to("Mul"))
    z = tape.tensor(np.ones(2, np.complex64), requires_grad=True)
    assert "1+0j" in repr(tape.step(tnp.sum(tnp.abs(z * 1.0))).run_to("Mul"))


# --- the account ------------------------------------------------------------------------------------------------------


def test_an_account_is_text_alone_and_as_long_as_is_asked_for():
    walk = tape.step(product, X, W)
    whole = account(walk)
    assert [step.label for step in whole.steps] == [step.label for step in walk]
    assert [step.kind for step in whole.steps] == ["node"] * 4 + ["leaf"] * 2
    assert [equation.text for equation in whole.equations] == [equation.text for equation in walk.linked.equations]
    assert all(equation.line is None for equation in whole.equations)  # no path of the machine that it was made on
    short = account(walk, most_steps=2, most_rows=1, longest=20)
    assert (len(short.steps), short.total, short.all_equations) == (2, len(walk), len(whole.equations))
    assert {equation.step for equation in short.equations} == {0, 1}
    sections = [section for step in short.steps for section in step.sections]
    assert max(len(section.rows) for section in sections if section.key != "jaxpr") == 2  # and how many more
    texts = [cell for section in sections for row in section.rows for cell in row]
    texts += [line for section in sections for block in section.blocks for line in block.text.splitlines()]
    assert max(map(len, texts)) == 20
    assert "The first 2 are on this page" in page_of(short)


def page_of(told):
    return page._template().render(account=told, ink={}, picture="", script="")


def test_a_long_rule_is_written_once():
    def f(x):
        return tnp.sum(tnp.max(x, axis=0)) + tnp.sum(tnp.max(x, axis=1))

    told = account(tape.step(f, X))
    blocks = [
        (i, block)
        for i, step in enumerate(told.steps)
        for section in step.sections
        for block in section.blocks
        if block.heading == "reduce_max with respect to x"
    ]
    (first, written), (_, repeated) = blocks
    assert len(written.text) > 80
    assert written.step is None
    assert (repeated.text, repeated.step) == ("", first)
    assert f'as at <a href="#step-{first + 1}">' in page_of(told)
