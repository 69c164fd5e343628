"""What users of TensorFlow 1 expect of a graph: its calls, its names, and the texts of its errors, verbatim."""

import itertools
import re
import statistics
import time

import jax
import numpy as np
import pytest

import twograd.numpy as tnp
from twograd.graph import symbolic as tf


@pytest.fixture(autouse=True)
def own_graph():
    with tf.Graph().as_default() as graph:
        yield graph


def says(error, text):
    return pytest.raises(error, match=re.escape(text))


# 1. placeholder, Session.run, feeds, pruning


def test_only_ancestors_run_and_an_intermediate_tensor_can_be_fed():
    ran = []

    def loud(name):
        def f(x):
            jax.debug.callback(lambda: ran.append(name))
            return x + 1

        return f

    x = tf.placeholder(np.float32, shape=(None,), name="x")
    h = tf.apply(loud("h"), x)
    y = tf.apply(loud("y"), h)
    tf.apply(loud("unused"), h)
    with tf.Session() as sess:
        assert sess.run(y, feed_dict={x: [1.0]}).tolist() == [3]
        jax.effects_barrier()
        assert sorted(ran) == ["h", "y"]
        ran.clear()
        assert sess.run(y, feed_dict={h: [10.0]}).tolist() == [11]
        jax.effects_barrier()
        assert ran == ["y"]


# 2. gradients


def test_partial_derivatives_of_the_documentation():
    a = tf.constant(0.0)
    b = 2 * a
    with tf.Session() as sess:
        assert sess.run(tf.gradients(a + b, [a, b], stop_gradients=[a, b])) == [1, 1]
        assert sess.run(tf.gradients(a + b, [a, b])) == [3, 1]


def test_gradients_add_nodes_to_the_same_graph_under_a_scope(own_graph):
    x = tf.placeholder(name="x")
    y = tnp.sin(x)
    before = list(own_graph.operations)
    (dx,) = tf.gradients(y, x)
    assert own_graph.operations[: len(before)] == before
    assert dx.op in own_graph.operations
    assert dx.op.name == "gradients/sin_grad"
    assert all(op.name.startswith("gradients/") for op in own_graph.operations[len(before) :])
    assert tf.gradients(y, x)[0].op.name == "gradients_1/sin_grad"
    assert tf.gradients(y, x, name="slope")[0].op.name == "slope/sin_grad"


def test_sums_over_ys_grad_ys_and_unconnected_gradients():
    x, z = tf.placeholder(name="x"), tf.placeholder(name="z")
    with tf.Session() as sess:
        assert sess.run(tf.gradients([x * 2, x * 3], x), {x: 1.0}) == [5]
        assert sess.run(tf.gradients([x * 2, x * 3], x, grad_ys=[10.0, 1.0]), {x: 1.0}) == [23]
        assert tf.gradients(x * 2, [z]) == [None]
        assert sess.run(tf.gradients(x * 2, [z], unconnected_gradients="zero"), {z: 1.0}) == [0]
    with says(ValueError, "Unknown value for unconnected_gradients: 'some'"):
        tf.gradients(x, x, unconnected_gradients="some")


# 3. higher orders; no rule


def test_gradients_of_gradients_have_more_nodes(own_graph):
    x = tf.placeholder(name="x")
    derivative, nodes = x * tnp.exp(x), []
    with tf.Session() as sess:
        for order in (1, 2, 3):
            before = len(own_graph.operations)
            (derivative,) = tf.gradients(derivative, x)
            nodes.append(len(own_graph.operations) - before)
            assert sess.run(derivative, {x: 0.0}) == order
    assert nodes[0] < nodes[1] < nodes[2]


def test_no_gradient_defined():
    x = tf.placeholder(shape=(3,), name="x")

    def outward(v):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((3,), np.float32), v)

    y = tf.apply(outward, x, name="there")
    with says(LookupError, "No gradient defined for operation 'there' (op type: outward)"):
        tf.gradients(y, x)


# 4. texts


def test_missing_feed():
    x = tf.placeholder(np.float32, shape=(None, 784), name="x")
    y = tnp.sum(x)
    with says(ValueError, "You must feed a value for placeholder tensor 'x' with dtype float and shape [?,784]"):
        tf.Session().run(y)
    with pytest.raises(tf.MissingFeed, match=r"sum, added at .*test_tensorflow\.py:\d+ .* needs it"):
        tf.Session().run(y)
    with says(ValueError, "You must feed a value for placeholder tensor 'i' with dtype int32 and shape []"):
        tf.Session().run(tf.placeholder(np.int32, name="i"))


def test_feed_of_a_tensor_of_a_wrong_shape_or_of_something_else():
    x = tf.placeholder(np.float32, shape=(None, 784), name="x")
    sess = tf.Session()
    with says(TypeError, "The value of a feed cannot be a tf.Tensor object."):
        sess.run(x, {x: tf.constant(np.ones((1, 784)))})
    with says(ValueError, "Cannot feed value of shape (784,) for Tensor 'x:0', which has shape '(?, 784)'"):
        sess.run(x, {x: np.ones(784)})
    with says(TypeError, "Cannot interpret feed_dict key as Tensor: 3"):
        sess.run(x, {3: np.ones(784)})


def test_tensors_of_another_graph():
    x = tf.placeholder(name="x")
    with tf.Graph().as_default():
        y = tf.placeholder(name="y")
        other = tf.Session()
    with says(ValueError, f"Tensor {x} is not an element of this graph."):
        other.run(x)
    with says(TypeError, f"Tensor {x} is not an element of this graph."):
        other.run(y, {x: 1.0})
    with says(
        ValueError,
        "Cannot use the given session to evaluate tensor: the tensor's graph is different from the session's graph.",
    ):
        x.eval({x: 1.0}, session=other)
    with says(ValueError, f"{y} must be from the same graph as {x}."):
        x + y
    with says(ValueError, "must be from the same graph as"):
        tf.gradients(x, y)
    with says(ValueError, "Cannot evaluate tensor using `eval()`: No default session is registered."):
        x.eval({x: 1.0})


def test_a_tensor_is_no_bool_list_or_number():
    x = tf.placeholder(shape=(3,), name="x")
    with says(TypeError, "Using a `tf.Tensor` as a Python `bool` is not allowed."):
        if x > 0:
            pass
    with says(TypeError, "Using a `tf.Tensor` as a Python `bool` is not allowed."):
        x = x or 1
    for use, text in (
        (list, "Tensor objects are not iterable"),
        (lambda x: 1 in x, "Tensor objects are not iterable"),
        (len, "has no len()"),
        (float, "is no float"),
        (int, "is no int"),
        (complex, "is no complex number"),
        (range, "is no integer"),
    ):
        with says(TypeError, text):
            use(x)


def test_uninitialized_value():
    v = tf.variable(np.zeros(3), name="v")
    with tf.Session() as sess, says(RuntimeError, "Attempting to use uninitialized value v"):
        sess.run(v + 1)


def test_names_of_what_is_not_there(own_graph):
    x = tf.placeholder(name="x")
    assert own_graph.get_tensor_by_name("x:0") is x
    assert own_graph.get_operation_by_name("x") is x.op
    assert own_graph.get_operations() == [x.op]
    form = 'Tensor names must be of the form "<op_name>:<output_index>".'
    for name, error, text in (
        ("x", ValueError, f"The name 'x' refers to an Operation, not a Tensor. {form}"),
        ("y", ValueError, f"The name 'y' looks like an (invalid) Operation name, not a Tensor. {form}"),
        ("x:a", ValueError, f"The name 'x:a' looks a like a Tensor name, but is not a valid one. {form}"),
        ("y:0", KeyError, "The name 'y:0' refers to a Tensor which does not exist. The operation, 'y', does not exist"),
        ("x:1", KeyError, "The operation, 'x', exists but only has 1 outputs."),
        (x, TypeError, "Tensor names are strings, not Symbol."),
    ):
        with pytest.raises(error) as caught:
            own_graph.get_tensor_by_name(name)
        assert text in caught.value.args[0]
    with pytest.raises(KeyError, match="refers to an Operation not in the graph"):
        own_graph.get_operation_by_name("y")
    with says(ValueError, "Name 'x:0' appears to refer to a Tensor, not a Operation."):
        own_graph.get_operation_by_name("x:0")
    with says(TypeError, "Operation names are strings, not int."):
        own_graph.get_operation_by_name(1)


# 5. state and order


def test_trainable_variables():
    w = tf.variable(1.0, name="w")
    step = tf.variable(0, name="global_step", trainable=False)
    assert tf.trainable_variables() == [w]
    assert tf.global_variables() == [w, step]
    with tf.Session(config=None) as sess:
        sess.run(tf.global_variables_initializer())
        assert sess.run(step) == 0
    with says(TypeError, "graph must be a symbolic.Graph, but got str"):
        tf.Session("grpc://localhost")


def test_control_dependencies_order_what_runs():
    v = tf.variable(1.0, name="v")
    bump = v.assign_add(1.0)
    with tf.control_dependencies([bump]):
        after = tf.identity(v)
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        assert sess.run(after) == 2
        assert sess.run(v) == 2
        assert sess.run([bump, after]) == [3, 3]


def test_one_train_op_is_fetched_for_a_whole_step():
    x, y = tf.placeholder(shape=(None, 2), name="x"), tf.placeholder(shape=(None,), name="y")
    w, b = tf.variable(np.zeros(2, np.float32), name="w"), tf.variable(0.0, name="b")
    loss = tnp.mean((x @ w + b - y) ** 2)
    train_op = tf.group(*(v.assign_sub(0.5 * g) for v, g in zip([w, b], tf.gradients(loss, [w, b]), strict=True)))
    data = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    target = data @ [2.0, -1.0] + 0.5
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        for _ in range(30):
            assert sess.run(train_op, feed_dict={x: data, y: target}) is None
        np.testing.assert_allclose(sess.run(w), [2, -1], atol=1e-3)
        np.testing.assert_allclose(b.eval(), 0.5, atol=1e-3)


# 6. control flow


def test_cond_and_while_loop():
    x = tf.placeholder(name="x")
    y = tf.cond(x > 0, lambda: x * 2, lambda: x**2)
    (dy,) = tf.gradients(y, x)
    i, total = tf.while_loop(lambda i, t: i < 5, lambda i, t: (i + 1, t + x), (0, 0.0))
    with tf.Session() as sess:
        assert sess.run([y, dy], {x: 3.0}) == [6, 2]
        assert sess.run([y, dy], {x: -3.0}) == [9, -6]
        assert sess.run([i, total], {x: 2.0}) == [5, 10]


def test_loops_of_one_variable_without_back_prop_and_with_names(own_graph):
    x = tf.placeholder(name="x")
    options = {"parallel_iterations": 1, "swap_memory": True, "name": "loop", "maximum_iterations": 9}
    y = tf.while_loop(lambda v: v < 10, lambda v: v * x, [x], **options)  # a Tensor, not a list of one
    (dy,) = tf.gradients(y, x)
    stopped = tf.while_loop(lambda v: v < 10, lambda v: v * x, [x], back_prop=False)
    (same,) = tf.while_loop(lambda v: v < 10, lambda v: v * x, [x], return_same_structure=True)
    assert tf.gradients(stopped, x) == [None]
    assert y.op is own_graph.get_operation_by_name("loop")
    assert tf.cond(x > 0, true_fn=lambda: x, false_fn=lambda: -x, name="chosen").op.name == "chosen"
    with tf.Session() as sess:
        assert sess.run([y, dy, stopped, same], {x: 3.0}) == [27, 27, 27, 27]
    with says(ValueError, "shape_invariants"):
        tf.while_loop(lambda v: v < 10, lambda v: v * x, [x], shape_invariants=[()])


# 8. the growing graph


def test_operations_added_in_the_loop_make_every_step_slower_and_finalize_says_so(own_graph):
    x = tf.placeholder(shape=(3,), name="x")
    w = tf.variable(np.zeros(3, np.float32), name="w")
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())

        def wrong_step():
            loss = tnp.sum((w - x) ** 2)
            start = time.perf_counter()
            sess.run(w.assign_sub(0.1 * tf.gradients(loss, w)[0]), {x: np.ones(3)})
            return time.perf_counter() - start, len(own_graph.operations)

        times, counts = zip(*(wrong_step() for _ in range(4)), strict=True)
        growth = {after - before for before, after in itertools.pairwise(counts)}
        assert len(growth) == 1
        assert growth.pop() > 5  # linear: as many new operations in every step

        loss = tnp.sum((w - x) ** 2)
        train_op = w.assign_sub(0.1 * tf.gradients(loss, w)[0])
        sess.run(train_op, {x: np.ones(3)})
        own_graph.finalize()
        right = []
        for _ in range(4):
            start = time.perf_counter()
            sess.run(train_op, {x: np.ones(3)})
            right.append(time.perf_counter() - start)
        assert statistics.median(times) > 3 * statistics.median(right)  # it is about a hundred times
        with says(RuntimeError, "Graph is finalized and cannot be modified."):
            wrong_step()
        with says(RuntimeError, "Graph is finalized and cannot be modified."):
            tf.gradients(loss, w)
