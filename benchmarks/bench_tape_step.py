"""A whole training step of the tape (forward, backward, the optimiser's update) against PyTorch eager's.

The programs are a user's: a Module, a loss, `torch.optim.SGD` with momentum; the net of PyTorch's CIFAR-10 tutorial at
batch 64 and an MLP at batch 128, from the same weights, after a check that both losses go the same way. Each runs
single-threaded and with the default threads of both libraries, in a process of its own, because XLA reads how many
there are once. Where the goal is missed, or with `--profile`, a profile of each library's step follows, largest first;
in the tape's `numpy.asarray`, by which the loss is looked at, is the wait for what XLA computes.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from _bench import against
from _programs import normal

GOALS = {"CIFAR net, batch 64": 1.5, "MLP 784-256-128-10, batch 128": 1.0}
RATE, MOMENTUM = 1e-3, 0.9
CHECKED = 5


def inputs_of(title: str) -> tuple[np.ndarray, np.ndarray]:
    x = normal(64, 3, 32, 32) if "CIFAR" in title else normal(128, 784)
    return x, np.arange(len(x)) % 10


def mlp(nn: Any) -> Any:
    return nn.Sequential(nn.Linear(784, 256), nn.Tanh(), nn.Linear(256, 128), nn.Tanh(), nn.Linear(128, 10))


def cifar_net(nn: Any) -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


MAKE = {"CIFAR net, batch 64": cifar_net, "MLP 784-256-128-10, batch 128": mlp}


def stepper(torch: Any, title: str, weights: Any = None) -> tuple[Callable[[], float], Any]:
    """A training step as a user of PyTorch writes it, which looks at the loss; and the model."""
    model = MAKE[title](torch.nn)
    if weights is not None:
        model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    x, y = (torch.tensor(a) for a in inputs_of(title))
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)

    def step() -> float:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, model


def compare(threads: str) -> None:
    """Prints the ratios in this process."""
    import torch

    from twograd import tape

    if threads == "1":
        torch.set_num_threads(1)
    for title, goal in GOALS.items():
        ours, model = stepper(tape, title)
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        peer, _ = stepper(torch, title, weights)
        np.testing.assert_allclose([ours() for _ in range(CHECKED)], [peer() for _ in range(CHECKED)], rtol=1e-4)
        ratio = against(title, ours, peer)
        print(f"  {ratio:.2f}, goal: at most {goal}")
        with tape.compiled_backward(forward=True):
            against("  with compiled_backward(forward)", ours, peer)
        if ratio > goal or "--profile" in sys.argv:
            profile(ours, peer)


def profile(ours: Callable[[], float], peer: Callable[[], float]) -> None:
    """Where a step's time goes: by Python function for the tape, by operator for PyTorch."""
    import cProfile
    import pstats

    import torch

    with cProfile.Profile() as seen:
        for _ in range(100):
            ours()
    pstats.Stats(seen).sort_stats("tottime").print_stats(18)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as theirs:
        for _ in range(100):
            peer()
    print(theirs.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))


def main() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        print("PyTorch is not installed: pip install 'twograd[torch]'")
        return
    if len(sys.argv) > 1 and sys.argv[1] in ("1", "default"):
        compare(sys.argv[1])
        return
    for threads, flags in {
        "1": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
        "default": "",
    }.items():
        print(f"threads: {threads}", flush=True)
        environment = {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
        subprocess.run([sys.executable, __file__, threads, *sys.argv[1:]], env=environment, check=True)


if __name__ == "__main__":
    main()
