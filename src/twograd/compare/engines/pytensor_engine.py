"""PyTensor, Theano's heir: symbols first, their gradient as more symbols, then one function of both.

PyTensor rewrites the graph itself, and hands it on to be compiled: to XLA by way of JAX, or to LLVM by way of Numba.
Neither starts threads of its own: JAX's are those of this process, and Numba's code runs in the calling one. Read
:func:`_trace`, then :meth:`PyTensorJax.build`.
"""

import contextlib
import functools
import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import jax
import numpy as np

from twograd.compare.engines.numpy_engine import NumPyEngine
from twograd.compare.engines.protocol import Built, Ops, Program, Stage, expressing
from twograd.compare.engines.xla import sgd, shortened


class PyTensorJax(NumPyEngine):
    name = "pytensor-jax"
    title = "PyTensor, JAX mode"
    about = "Theano's heir: a graph of symbols and one of their gradient, rewritten, then compiled by XLA through JAX."
    kind = "static"
    family = "pytensor"
    distribution = "pytensor"
    install = "twograd[peers]"
    ops = Ops("pytensor.tensor", None, "PyTensor")
    no_gpu = "its functions take arrays of the host"
    mode: ClassVar[str] = "JAX"

    def value_and_grad(self, f: Program) -> Program:
        def value_and_grad(*inputs):
            symbols, loss = _trace(f, inputs)
            return self._function(symbols, _with_gradients(symbols, loss), inputs)()

        return value_and_grad

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        params, *_ = inputs
        warnings.filterwarnings("ignore", message="Explicitly requested dtype")  # said again when JAX compiles anew
        with stage("trace"):
            symbols, loss = _trace(f, inputs)
        with stage("transform"):
            both = _with_gradients(symbols, loss)
        with stage("compile"):
            value_and_grad = self._function(symbols, both, inputs)
        return Built(
            stages={
                "forward+backward": value_and_grad,
                "step": lambda: jax.block_until_ready(sgd(params, value_and_grad()[1])),
                "forward": self._function(symbols, loss, inputs),
            },
            counts=lambda: {"forward nodes": _count_nodes(loss), "derivative nodes": _count_nodes(both)},
            texts=lambda: {"forward": _text(loss), "derivative": _text(both)},
        )

    def _function(self, symbols: tuple[Any, ...], results: Any, inputs: tuple[Any, ...]) -> Callable[[], Any]:
        """``results``, a pytree of symbols, computed from ``inputs``, which stand for ``symbols``."""
        import pytensor

        if self.mode == "JAX":
            _import_jax_mode()
        outputs, tree = jax.tree.flatten(results)
        with _without_advice():
            compiled = pytensor.function(jax.tree.leaves(symbols), outputs, mode=self.mode, on_unused_input="ignore")
        arrays, ran = jax.tree.leaves(inputs), False

        def run():
            nonlocal ran
            with contextlib.nullcontext() if ran else _without_advice():
                found = jax.block_until_ready(tree.unflatten(compiled(*arrays)))
            ran = True
            return found

        return run


class PyTensorNumba(PyTensorJax):
    name = "pytensor-numba"
    title = "PyTensor, Numba mode"
    about = "The same graphs, compiled op by op by Numba, which is PyTensor's usual way."
    mode = "NUMBA"


@functools.cache
def _import_jax_mode() -> None:
    """As it is imported, PyTensor's JAX mode sets ``jax_enable_x64`` for the whole process: it is set back.

    In a thread of its own, for within ``jax.enable_x64(...)`` one reads that, and not what the process has.
    """

    def imported() -> None:
        before = jax.numpy.result_type(float) == np.float64
        importlib.import_module("pytensor.link.jax.dispatch")
        jax.config.update("jax_enable_x64", before)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(imported).result()


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Around a first call, which compiles: what PyTensor is told of its shapes in float64, and of its dots of views."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Explicitly requested dtype")
        warnings.filterwarnings("ignore", message=r".*np\.dot\(\) is faster on contiguous arrays")
        yield


def _trace(f: Program, inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
    """A symbol for each array of ``inputs``, of its dtype and shape, and the loss that ``f`` makes of them."""
    import pytensor.tensor as pt

    symbols = jax.tree.map(lambda array: pt.tensor(dtype=str(array.dtype), shape=array.shape), inputs)
    with _numbers_like(symbols), expressing("PyTensor"):
        return symbols, f(*symbols)


def _with_gradients(symbols: tuple[Any, ...], loss: Any) -> tuple[Any, Any]:
    import pytensor

    leaves, tree = jax.tree.flatten(symbols[0])
    with _numbers_like(symbols):
        return loss, tree.unflatten(pytensor.grad(loss, leaves, disconnected_inputs="ignore"))


def _numbers_like(symbols: tuple[Any, ...]) -> contextlib.AbstractContextManager[Any]:
    """Python's numbers have the dtype of the parameters, as everywhere else."""
    import pytensor

    return pytensor.config.change_flags(floatX=jax.tree.leaves(symbols[0])[0].dtype)


def _count_nodes(results: Any) -> int:
    """The operations that the results need, before PyTensor rewrites them."""
    from pytensor.graph.traversal import ancestors

    return len({variable.owner for variable in ancestors(jax.tree.leaves(results)) if variable.owner is not None})


def _text(results: Any) -> str:
    import pytensor

    text = io.StringIO()
    pytensor.dprint(jax.tree.leaves(results), file=text)
    return shortened(text.getvalue())
