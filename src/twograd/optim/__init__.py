"""Optimisers: PyTorch's stateful face over optax's transformations.

    optimizer = optim.SGD(net.parameters(), lr=1e-2, momentum=0.9)     # then zero_grad, backward, step
    transform = optim.SGD.transform(lr=1e-2, momentum=0.9)             # the same, for a graph's step, or any pytree

Needs optax: ``pip install 'twograd[train]'``. Read ``optimizer.py``, then ``algorithms.py``.
"""

from twograd.optim import lr_scheduler as lr_scheduler
from twograd.optim.algorithms import SGD as SGD
from twograd.optim.algorithms import Adam as Adam
from twograd.optim.algorithms import AdamW as AdamW
from twograd.optim.algorithms import RMSprop as RMSprop
from twograd.optim.optimizer import Optimizer as Optimizer
