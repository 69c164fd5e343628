"""Memory of a fine-tuning step of ResNet-18 at batch 8 and 64 x 64: the most that a process has resident, each engine.

The note's program: all but a new last layer frozen, SGD with momentum. Beside it the same where everything is trained.
Each case runs in a process of its own and takes three steps; what importing the libraries takes is said first.
"""

import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

STEPS = 3
GOAL = 2 << 30


def setting(frozen: bool) -> tuple[Any, Any, Any]:
    from twograd import models, nn, tape

    tape.manual_seed(0)
    model = models.resnet18()
    if frozen:
        model.eval().requires_grad_(False)
    model.fc = nn.Linear(512, 100)
    rng = np.random.default_rng(0)
    return model, rng.standard_normal((8, 3, 64, 64)).astype(np.float32), rng.integers(100, size=8)


def by_tape(frozen: bool) -> None:
    from twograd import optim, tape
    from twograd.nn import functional as F

    model, x, y = setting(frozen)
    trained = (model.fc if frozen else model).parameters()
    optimizer = optim.SGD(trained, lr=1e-2, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(tape.tensor(x)), tape.tensor(y)).backward()
        optimizer.step()
    model.fc.weight.numpy(force=True)


def by_graph(frozen: bool) -> None:
    import jax
    import optax

    from twograd import graph, nn, optim
    from twograd.nn import functional as F

    model, x, y = setting(frozen)
    transform = optim.SGD.transform(lr=1e-2, momentum=0.9)
    params = {name: p.array for name, p in model.named_parameters() if p.requires_grad}
    others = {name: p.array for name, p in model.named_parameters() if not p.requires_grad}

    def loss(params: Any, others: Any) -> Any:
        scores, buffers = nn.functional_call(model, {**params, **others}, x, mutable=True)
        return F.cross_entropy(scores, y), buffers

    def step(params: Any, state: Any, others: Any) -> Any:
        (_, buffers), gradient = graph.value_and_grad(loss, has_aux=True)(params, others)
        changes, state = transform.update(gradient, state, params)
        return optax.apply_updates(params, changes), state, {**others, **buffers}

    step = jax.jit(step, donate_argnums=(0, 1))
    state = transform.init(params)
    for _ in range(STEPS):
        params, state, others = step(params, state, others)
    jax.block_until_ready(params)


def imports(frozen: bool) -> None:
    from twograd import graph, models, nn, optim, tape  # noqa: F401


CASES: dict[str, Callable[[bool], None]] = {"imports": imports, "tape": by_tape, "graph": by_graph}


def peak(case: str, frozen: bool) -> int:
    """Bytes; of a process that runs the case."""
    done = subprocess.run([sys.executable, __file__, case, str(frozen)], check=True, capture_output=True, text=True)
    return int(done.stdout)


def main() -> None:
    if len(sys.argv) > 1:
        CASES[sys.argv[1]](sys.argv[2] == "True")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    print(f"imports alone: {peak('imports', True) / 2**20:.0f} MiB")
    for frozen in (True, False):
        for case in ("tape", "graph"):
            bytes_ = peak(case, frozen)
            what = "the last layer" if frozen else "everything"
            goal = f" (goal: below {GOAL / 2**20:.0f})" if frozen else ""
            print(f"{case}, training {what}: {bytes_ / 2**20:.0f} MiB{goal}", flush=True)


if __name__ == "__main__":
    main()
