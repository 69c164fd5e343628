"""Torch7's ``nn``: modules that keep their output and their gradients in buffers, each with a way forward and two back.

    from twograd.fronts import torch7 as nn

    net = nn.Sequential().add(nn.Linear(64, 32)).add(nn.Tanh()).add(nn.Linear(32, 10))
    criterion = nn.CrossEntropyCriterion()
    criterion.forward(net.forward(x), labels)
    net.zeroGradParameters()
    net.backward(x, criterion.backward(net.output, labels))
    net.updateParameters(0.01)

What flows in and out are NumPy arrays, and tables (lists) of them. Read ``module.py``: :class:`Module` is the protocol,
and :class:`Layer` fulfils it for a function, so that a layer takes a line or three. Names and their order of arguments
are Torch7's; dimensions, labels and children count from 0, as Python does. Numbers are float32 unless JAX's 64 bits are
switched on (then ``net.type(np.float64)`` is the way).

The structure is fixed before it runs, and gradients are numbers: no module's forward computes them, so there is nothing
whose derivative could be asked for.
"""

from twograd.fronts.torch7.containers import Concat as Concat
from twograd.fronts.torch7.containers import ConcatTable as ConcatTable
from twograd.fronts.torch7.containers import Container as Container
from twograd.fronts.torch7.containers import Parallel as Parallel
from twograd.fronts.torch7.containers import ParallelTable as ParallelTable
from twograd.fronts.torch7.containers import Sequential as Sequential
from twograd.fronts.torch7.layers import CAddTable as CAddTable
from twograd.fronts.torch7.layers import CMulTable as CMulTable
from twograd.fronts.torch7.layers import CSubTable as CSubTable
from twograd.fronts.torch7.layers import Dropout as Dropout
from twograd.fronts.torch7.layers import Identity as Identity
from twograd.fronts.torch7.layers import JoinTable as JoinTable
from twograd.fronts.torch7.layers import Linear as Linear
from twograd.fronts.torch7.layers import LogSoftMax as LogSoftMax
from twograd.fronts.torch7.layers import ReLU as ReLU
from twograd.fronts.torch7.layers import Reshape as Reshape
from twograd.fronts.torch7.layers import SelectTable as SelectTable
from twograd.fronts.torch7.layers import Sigmoid as Sigmoid
from twograd.fronts.torch7.layers import SoftMax as SoftMax
from twograd.fronts.torch7.layers import SoftPlus as SoftPlus
from twograd.fronts.torch7.layers import SpatialAveragePooling as SpatialAveragePooling
from twograd.fronts.torch7.layers import SpatialConvolution as SpatialConvolution
from twograd.fronts.torch7.layers import SpatialMaxPooling as SpatialMaxPooling
from twograd.fronts.torch7.layers import SplitTable as SplitTable
from twograd.fronts.torch7.layers import Square as Square
from twograd.fronts.torch7.layers import Tanh as Tanh
from twograd.fronts.torch7.module import Layer as Layer
from twograd.fronts.torch7.module import Module as Module
from twograd.fronts.torch7.module import OtherInput as OtherInput
from twograd.fronts.torch7.module import manualSeed as manualSeed
from twograd.fronts.torch7.training import AbsCriterion as AbsCriterion
from twograd.fronts.torch7.training import BCECriterion as BCECriterion
from twograd.fronts.torch7.training import ClassNLLCriterion as ClassNLLCriterion
from twograd.fronts.torch7.training import Criterion as Criterion
from twograd.fronts.torch7.training import CrossEntropyCriterion as CrossEntropyCriterion
from twograd.fronts.torch7.training import Jacobian as Jacobian
from twograd.fronts.torch7.training import MSECriterion as MSECriterion
from twograd.fronts.torch7.training import StochasticGradient as StochasticGradient
