"""TensorFlow three ways: the eager tape, ``tf.function``, and the graph of version 1.

Written from TensorFlow's documentation and not run by this project's tests, which do not install it (a gigabyte): the
report's gradient checks hold here as for every engine, and are the first thing to look at. Programs are written in
``tf.experimental.numpy``. TensorFlow starts thread pools of its own; they are told to have as many threads as the
others may use, which only the first to import TensorFlow can tell them.
"""

from typing import Any

import jax
import numpy as np

from twograd.compare import environment
from twograd.compare.engines.protocol import Built, Engine, Ops, Program, Stage, expressing
from twograd.compare.engines.xla import sgd


def _tensorflow() -> Any:
    import tensorflow as tf

    if not tf.config.threading.get_intra_op_parallelism_threads():
        tf.config.threading.set_intra_op_parallelism_threads(environment.usable_cores())
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.experimental.numpy.experimental_enable_numpy_behavior()
    return tf


class TensorFlow(Engine):
    name = "tensorflow"
    title = "TensorFlow, eager"
    about = "Each op runs at once; a GradientTape around them records what is needed to walk back."
    kind = "dynamic"
    family = "tensorflow"
    distribution = "tensorflow"
    install = "twograd[tensorflow]"
    ops = Ops("tensorflow.experimental.numpy", None, "TensorFlow")

    def unavailable(self) -> str:
        reason = super().unavailable()
        if not reason and self.device == "gpu" and not _tensorflow().config.list_physical_devices("GPU"):
            return "the installed TensorFlow cannot use this GPU"
        return reason

    def arrays(self, tree: Any) -> Any:
        tf = _tensorflow()
        with tf.device(f"/{self.device}:0"):
            return jax.tree.map(tf.convert_to_tensor, tree)

    def numpy(self, tree: Any) -> Any:
        return jax.tree.map(np.asarray, tree)

    def value_and_grad(self, f: Program) -> Program:
        tf = _tensorflow()

        def value_and_grad(params, *batch):
            leaves, tree = jax.tree.flatten(params)
            with tf.GradientTape() as tape, expressing("TensorFlow"):
                for leaf in leaves:
                    tape.watch(leaf)
                loss = f(params, *batch)
            grads = tape.gradient(loss, leaves, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return loss, tree.unflatten(grads)

        return value_and_grad

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        value_and_grad = self.value_and_grad(f)
        return self._stages(lambda: value_and_grad(*inputs), lambda: f(*inputs), inputs)

    def _stages(self, value_and_grad: Any, forward: Any, inputs: tuple[Any, ...]) -> Built:
        params, *_ = inputs

        def finished(result):
            jax.tree.map(np.asarray, result)  # a result is there when its elements can be read
            return result

        return Built(
            stages={
                "forward+backward": lambda: finished(value_and_grad()),
                "step": lambda: finished(sgd(params, value_and_grad()[1])),
                "forward": lambda: finished(forward()),
            }
        )


class TensorFlowFunction(TensorFlow):
    name = "tensorflow-function"
    title = "tf.function"
    about = "The eager program is traced once into a graph, tape and all, which runs from then on."
    kind = "static"

    def value_and_grad(self, f: Program) -> Program:
        return _tensorflow().function(super().value_and_grad(f))

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        with stage("trace"):
            value_and_grad = self.value_and_grad(f).get_concrete_function(*inputs)
        forward = _tensorflow().function(f)
        return self._stages(lambda: value_and_grad(*inputs), lambda: forward(*inputs), inputs)


class TensorFlowV1(TensorFlow):
    name = "tensorflow-v1"
    title = "TensorFlow 1, graph and session"
    about = "Placeholders and ops make a graph, tf.gradients adds the derivative's ops, a Session runs what is asked."
    kind = "static"

    def arrays(self, tree: Any) -> Any:
        return jax.tree.map(np.array, tree)

    def value_and_grad(self, f: Program) -> Program:
        def value_and_grad(*inputs):
            session, symbols, loss, grads = self._graph(f, inputs)
            return session.run((loss, grads), dict(zip(symbols, jax.tree.leaves(inputs), strict=True)))

        return value_and_grad

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        with stage("trace"):
            session, symbols, loss, grads = self._graph(f, inputs)
        run, fed = session.run, dict(zip(symbols, jax.tree.leaves(inputs), strict=True))
        return self._stages(lambda: run((loss, grads), fed), lambda: run(loss, fed), inputs)

    def _graph(self, f: Program, inputs: tuple[Any, ...]) -> tuple[Any, list[Any], Any, Any]:
        """A session, the placeholders of all leaves of ``inputs``, the loss, and the gradients as the parameters."""
        tf = _tensorflow()
        v1 = tf.compat.v1
        with tf.Graph().as_default() as graph, tf.device(f"/{self.device}:0"), expressing("TensorFlow"):
            symbols = jax.tree.map(lambda array: v1.placeholder(array.dtype, array.shape), inputs)
            leaves, tree = jax.tree.flatten(symbols[0])
            loss = f(*symbols)
            grads = tf.gradients(loss, leaves, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return v1.Session(graph=graph), jax.tree.leaves(symbols), loss, tree.unflatten(grads)
