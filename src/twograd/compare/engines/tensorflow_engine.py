"""TensorFlow three ways: the eager tape, ``tf.function``, and the graph of version 1.

Programs are written in ``tf.experimental.numpy``. Read :class:`TensorFlow`.
"""

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from twograd.compare import environment
from twograd.compare.engines.protocol import Built, Engine, Ops, Program, Stage, expressing
from twograd.compare.engines.xla import sgd


@contextlib.contextmanager
def _as_raised() -> Iterator[None]:
    """An error within a ``tf.function``, without AutoGraph's pages about it."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "ag_error_metadata") and error.__context__ is not None:
            raise error.__context__ from None
        raise


class TensorFlow(Engine):
    name = "tensorflow"
    title = "TensorFlow, eager"
    about = "Each op runs at once; a GradientTape around them records what is needed to walk back."
    kind = "dynamic"
    family = "tensorflow"
    distribution = "tensorflow"
    install = "twograd[tensorflow]"
    ops = Ops("twograd.compare.engines.tensorflow_numpy", "twograd.compare.engines.tensorflow_numpy", "TensorFlow")

    def unavailable(self) -> str:
        reason = super().unavailable()
        if not reason and self.device == "gpu":
            from twograd.compare.engines.tensorflow_numpy import tf

            if not tf.config.list_physical_devices("GPU"):
                return "the installed TensorFlow cannot use this GPU"
        return reason

    def version(self) -> str:
        """Of whichever distribution brings the module: ``tensorflow-cpu`` is another."""
        return importlib.metadata.version(importlib.metadata.packages_distributions()[self.distribution][0])

    def arrays(self, tree: Any) -> Any:
        from twograd.compare.engines.tensorflow_numpy import tf

        with tf.device(f"/{self.device}:0"):
            return jax.tree.map(tf.convert_to_tensor, tree)

    def numpy(self, tree: Any) -> Any:
        return jax.tree.map(np.asarray, tree)

    def value_and_grad(self, f: Program) -> Program:
        from twograd.compare.engines.tensorflow_numpy import tf

        def value_and_grad(params, *batch):
            leaves, tree = jax.tree.flatten(params)
            with tf.GradientTape() as tape, expressing("TensorFlow"), _as_raised():
                tape.watch(leaves)
                loss = f(params, *batch)
            grads = tape.gradient(loss, leaves, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            return loss, tree.unflatten(grads)

        return value_and_grad

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        value_and_grad, params = self.value_and_grad(f), inputs[0]

        def step():
            return sgd(params, value_and_grad(*inputs)[1])

        return self._stages(lambda: value_and_grad(*inputs), step, lambda: f(*inputs))

    def _stages(self, value_and_grad: Callable[[], Any], step: Callable[[], Any], forward: Callable[[], Any]) -> Built:
        from twograd.compare.engines.tensorflow_numpy import tf

        synchronize = tf.test.experimental.sync_devices if self.device == "gpu" else lambda: None

        def finished(result):
            synchronize()
            return result

        return Built(
            stages={
                "forward+backward": lambda: finished(value_and_grad()),
                "step": lambda: finished(step()),
                "forward": lambda: finished(forward()),
            }
        )


class TensorFlowFunction(TensorFlow):
    name = "tensorflow-function"
    title = "tf.function"
    about = "The eager program is traced once into a graph, tape and all, which runs from then on."
    kind = "static"

    def value_and_grad(self, f: Program) -> Program:
        from twograd.compare.engines.tensorflow_numpy import tf

        return tf.function(super().value_and_grad(tf.function(f)), autograph=False)  # f's loops alone are AutoGraph's

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        from twograd.compare.engines.tensorflow_numpy import tf

        with stage("trace"):
            value_and_grad = self.value_and_grad(f).get_concrete_function(*inputs)
        step = tf.function(lambda params, *batch: sgd(params, value_and_grad(params, *batch)[1]), autograph=False)
        forward = tf.function(f)
        return self._stages(lambda: value_and_grad(*inputs), lambda: step(*inputs), lambda: forward(*inputs))


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
            return session.run((loss, grads), _fed(symbols, inputs))

        return value_and_grad

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        with stage("trace"):
            session, symbols, loss, grads = self._graph(f, inputs)
        with session.graph.as_default():
            stepped = sgd(symbols[0], grads)
        run, fed = session.run, _fed(symbols, inputs)
        return self._stages(lambda: run((loss, grads), fed), lambda: run(stepped, fed), lambda: run(loss, fed))

    def _graph(self, f: Program, inputs: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...], Any, Any]:
        """A session, ``inputs`` with placeholders as leaves, the loss, and the gradients as the parameters."""
        from twograd.compare.engines.tensorflow_numpy import tf

        v1, threads = tf.compat.v1, environment.usable_cores()
        with tf.Graph().as_default() as graph, tf.device(f"/{self.device}:0"), expressing("TensorFlow"):
            symbols = jax.tree.map(lambda array: v1.placeholder(array.dtype, array.shape), inputs)
            leaves, tree = jax.tree.flatten(symbols[0])
            loss = f(*symbols)
            grads = tf.gradients(loss, leaves, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        config = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
        return v1.Session(graph=graph, config=config), symbols, loss, tree.unflatten(grads)


def _fed(symbols: tuple[Any, ...], inputs: tuple[Any, ...]) -> dict[Any, Any]:
    """What a Session is fed: the array of each placeholder."""
    return dict(zip(jax.tree.leaves(symbols), jax.tree.leaves(inputs), strict=True))
