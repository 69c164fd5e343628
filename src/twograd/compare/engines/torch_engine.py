"""PyTorch's own autograd, with NumPy's names in front of it: eager, as a function of functions, and compiled.

Read :class:`Torch`. All three use PyTorch's rules and PyTorch's own threads, as many as the process may run on.
"""

import os
import shutil
import warnings
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from twograd.compare.engines.protocol import LEARNING_RATE, Built, Engine, Ops, Program, Stage
from twograd.compare.errors import Unsupported


class Torch(Engine):
    name = "torch"
    title = "PyTorch, eager"
    about = "PyTorch's tape: each op runs at once and is recorded; the walk back over the nodes is C++."
    kind = "dynamic"
    family = "torch"
    distribution = "torch"
    install = "twograd[torch]"
    lingers = 0.02  # OpenMP's threads; told not to, they would make its small ops slower
    ops = Ops("twograd.compare.engines.torch_numpy", "torch.nn.functional", "PyTorch")

    def unavailable(self) -> str:
        reason = super().unavailable()
        if not reason and self.device == "gpu":
            import torch

            if not torch.cuda.is_available():
                return "the installed torch cannot use this GPU"
        return reason

    def arrays(self, tree: Any) -> Any:
        import torch

        def tensor(array):
            array = np.array(array)  # a copy: PyTorch may write to what it is given
            if np.issubdtype(array.dtype, np.integer):
                array = array.astype(np.int64)  # what PyTorch wants of labels and indices
            return torch.from_numpy(array).to("cuda" if self.device == "gpu" else "cpu")

        return jax.tree.map(tensor, tree)

    def numpy(self, tree: Any) -> Any:
        return jax.tree.map(lambda tensor: tensor.detach().cpu().numpy(), tree)

    def value_and_grad(self, f: Program) -> Program:
        import torch

        def value_and_grad(params, *batch):
            leaves, treedef = jax.tree.flatten(params)
            leaves = [leaf.detach().requires_grad_() for leaf in leaves]
            loss = f(jax.tree.unflatten(treedef, leaves), *batch)
            grads = torch.autograd.grad(loss, leaves, allow_unused=True)
            grads = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]
            return loss.detach(), jax.tree.unflatten(treedef, grads)

        return value_and_grad

    def forward(self, f: Program) -> Program:
        """The program as it is run without gradients."""
        return f

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        import torch

        params, *batch = inputs
        value_and_grad = self.value_and_grad(f)
        f = self.forward(f)
        synchronize = torch.cuda.synchronize if self.device == "gpu" else lambda: None

        def finished(result):
            synchronize()
            return result

        def record():
            leaves = jax.tree.map(lambda leaf: leaf.detach().requires_grad_(), params)
            return finished((leaves, f(leaves, *batch)))

        def forward():
            with torch.no_grad():
                return finished(f(params, *batch))

        def step():
            _, grads = value_and_grad(params, *batch)
            with torch.no_grad():
                return finished(jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, grads))

        kept: list[Any] = []  # the tape that the stage "backward" walks again and again

        def backward():
            if not kept:
                kept.extend(record())
            leaves, loss = kept
            return finished(torch.autograd.grad(loss, jax.tree.leaves(leaves), retain_graph=True, allow_unused=True))

        def counts():
            saved = SimpleNamespace(storages={})

            def pack(tensor):
                storage = tensor.untyped_storage()
                saved.storages[storage.data_ptr()] = storage.nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                _, loss = record()
            return {"forward nodes": _count_nodes(loss.grad_fn), "saved bytes": sum(saved.storages.values())}

        return Built(
            stages={
                "forward+backward": lambda: finished(value_and_grad(params, *batch)),
                "step": step,
                "forward": forward,
                "record": record,
                "backward": backward,
            },
            counts=counts,
        )


class TorchFunc(Torch):
    name = "torch-func"
    title = "torch.func.grad_and_value"
    about = "JAX's way of asking, over PyTorch's tape: a function is made into the function of its gradient."

    def value_and_grad(self, f: Program) -> Program:
        import torch

        grad_and_value = torch.func.grad_and_value(f)

        def value_and_grad(*inputs):
            grads, loss = grad_and_value(*inputs)
            return loss, grads

        return value_and_grad

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        return _without_a_tape(super().build(f, inputs, stage))


class TorchCompile(Torch):
    name = "torch-compile"
    title = "torch.compile"
    about = "Dynamo traces the program from its bytecode, AOTAutograd its derivative; Inductor makes C++ of both."
    kind = "static"

    def unavailable(self) -> str:
        reason = super().unavailable()
        if not reason and self.device == "cpu" and _compiler() is None:
            return "needs a C++ compiler (g++ or clang++, or $CXX)"
        return reason

    def value_and_grad(self, f: Program) -> Program:
        return super().value_and_grad(self.forward(f))

    def forward(self, f: Program) -> Program:
        """Compiled as one graph: what Dynamo cannot trace it would otherwise run as it is, and say nothing."""
        import torch
        from torch._dynamo.exc import TorchDynamoException

        _ = self.ops.np, self.ops.F  # Dynamo does not trace what finds them
        compiled = torch.compile(f, dynamic=False, fullgraph=True)

        def run(*inputs):
            try:
                return compiled(*inputs)
            except TorchDynamoException as error:
                raise Unsupported(f"not one graph ({str(error).strip().splitlines()[0]})") from error

        return run

    def build(self, f: Program, inputs: tuple[Any, ...], stage: Stage) -> Built:
        import torch
        import torch._inductor.config as inductor

        torch.compiler.reset()
        # Nothing from an earlier process is at hand, and no pool of processes stays behind that would disturb others.
        with inductor.patch(force_disable_caches=True, compile_threads=1), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="dynamo_pgo force disabled")
            built = _without_a_tape(super().build(f, inputs, stage))
            with stage("compile"):
                built.stages["forward+backward"]()
            built.stages["forward"]()  # compiled too, without gradients; not charged to whoever asks for one
        return built


def _without_a_tape(built: Built) -> Built:
    """Without the stages in which a tape is written and walked: there is none, or none that one can hold."""
    kept = {name: run for name, run in built.stages.items() if name not in ("record", "backward")}
    return Built(kept)


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "")) or shutil.which("g++") or shutil.which("clang++")


def _count_nodes(root: Any) -> int:
    """The functions that can be reached from a result's ``grad_fn``, without those that only accumulate into leaves."""
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen and type(node).__name__ != "AccumulateGrad":
            seen.add(node)
            waiting.extend(function for function, _ in node.next_functions)
    return len(seen)
