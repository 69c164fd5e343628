"""Training: forward, backward, and the update of stochastic gradient descent in Caffe's order."""

import math
from collections.abc import Callable

import numpy as np

from twograd.fronts.caffe.layers import NetError
from twograd.fronts.caffe.net import Net
from twograd.fronts.caffe.prototxt import SolverParameter, parse


class Solver:
    """Trains a net by SGD with momentum: ``solver`` is the text of a SolverParameter, ``net`` a Net or its text.

    Each step clears the diffs of the parameters, lets ``iter_size`` forwards and backwards add to them, and divides.
    Raises ParseError, and NetError for a solver or a learning rate policy that there is not.
    """

    def __init__(self, solver: str | SolverParameter, net: str | Net):
        self.param = parse(solver, SolverParameter) if isinstance(solver, str) else solver
        if self.param.type != "SGD":
            raise NetError(f"Unknown solver type: {self.param.type} (known solver types: SGD)")
        self.net = Net(net) if isinstance(net, str) else net
        self.iter = 0
        self.history = [np.zeros_like(blob.data) for blob in self.net.learnable_params]
        self.learning_rate()

    def learning_rate(self) -> float:
        """The rate at this iteration, by ``lr_policy``."""
        p, i = self.param, self.iter
        policies: dict[str, Callable[[], float]] = {
            "fixed": lambda: 1.0,
            "step": lambda: p.gamma ** (i // p.stepsize),
            "exp": lambda: p.gamma**i,
            "inv": lambda: (1 + p.gamma * i) ** -p.power,
            "multistep": lambda: p.gamma ** sum(i >= step for step in p.stepvalue),
            "poly": lambda: (1 - i / p.max_iter) ** p.power,
            "sigmoid": lambda: 1 / (1 + math.exp(-p.gamma * (i - p.stepsize))),
        }
        if p.lr_policy not in policies:
            raise NetError(f"Unknown learning rate policy: {p.lr_policy} (known policies: {', '.join(policies)})")
        return p.base_lr * policies[p.lr_policy]()

    def step(self, iterations: int = 1) -> float:
        """That many steps; returns the loss of the last one, its mean over ``iter_size``."""
        loss = math.nan
        for _ in range(iterations):
            self.net.clear_param_diffs()
            losses = []
            for _ in range(self.param.iter_size):
                self.net.forward()
                self.net.backward()
                losses.append(self.net.loss)
            loss = sum(losses) / len(losses)
            self.apply_update()
            self.iter += 1
        return loss

    def solve(self) -> float:
        """Steps up to ``max_iter``."""
        return self.step(self.param.max_iter - self.iter)

    def apply_update(self) -> None:
        """Clips, normalises by ``iter_size``, decays, adds momentum, and updates the net, in Caffe's order."""
        p, net, rate = self.param, self.net, self.learning_rate()
        norm = math.sqrt(sum(float(np.vdot(blob.diff, blob.diff)) for blob in net.learnable_params))
        scale = (p.clip_gradients / norm if 0 < p.clip_gradients < norm else 1.0) / p.iter_size
        for i, blob in enumerate(net.learnable_params):
            decay = p.weight_decay * net.params_decay[i]
            penalty = blob.data if p.regularization_type == "L2" else np.sign(blob.data)
            blob.diff[...] = scale * blob.diff + decay * penalty
            self.history[i][...] = rate * net.params_lr[i] * blob.diff + p.momentum * self.history[i]
            blob.diff[...] = self.history[i]
        net.update()
