"""Building blocks of neural networks, for both engines: ``torch.nn``'s names, defaults and shapes.

A Module runs on the tape as in PyTorch; :func:`functional_call` makes of it a function of arrays, for the graph engine
and for JAX. Read ``module.py``, then ``stateless.py``; :mod:`twograd.nn.functional` has the functions of arrays, which
need no Module.

    net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    nn.CrossEntropyLoss()(net(x), y).backward()                                    # tape
    graph.grad(lambda params: loss(nn.functional_call(net, params, x)))(params)    # graph
"""

from twograd.nn import functional as functional
from twograd.nn import init as init
from twograd.nn import utils as utils
from twograd.nn.activations import ELU as ELU
from twograd.nn.activations import GELU as GELU
from twograd.nn.activations import GLU as GLU
from twograd.nn.activations import SELU as SELU
from twograd.nn.activations import Hardtanh as Hardtanh
from twograd.nn.activations import LeakyReLU as LeakyReLU
from twograd.nn.activations import LogSigmoid as LogSigmoid
from twograd.nn.activations import LogSoftmax as LogSoftmax
from twograd.nn.activations import PReLU as PReLU
from twograd.nn.activations import ReLU as ReLU
from twograd.nn.activations import ReLU6 as ReLU6
from twograd.nn.activations import Sigmoid as Sigmoid
from twograd.nn.activations import SiLU as SiLU
from twograd.nn.activations import Softmax as Softmax
from twograd.nn.activations import Softplus as Softplus
from twograd.nn.activations import Tanh as Tanh
from twograd.nn.attention import MultiheadAttention as MultiheadAttention
from twograd.nn.attention import TransformerEncoder as TransformerEncoder
from twograd.nn.attention import TransformerEncoderLayer as TransformerEncoderLayer
from twograd.nn.containers import ModuleDict as ModuleDict
from twograd.nn.containers import ModuleList as ModuleList
from twograd.nn.containers import ParameterDict as ParameterDict
from twograd.nn.containers import ParameterList as ParameterList
from twograd.nn.containers import Sequential as Sequential
from twograd.nn.layers import AdaptiveAvgPool1d as AdaptiveAvgPool1d
from twograd.nn.layers import AdaptiveAvgPool2d as AdaptiveAvgPool2d
from twograd.nn.layers import AdaptiveAvgPool3d as AdaptiveAvgPool3d
from twograd.nn.layers import AdaptiveMaxPool1d as AdaptiveMaxPool1d
from twograd.nn.layers import AdaptiveMaxPool2d as AdaptiveMaxPool2d
from twograd.nn.layers import AdaptiveMaxPool3d as AdaptiveMaxPool3d
from twograd.nn.layers import AvgPool1d as AvgPool1d
from twograd.nn.layers import AvgPool2d as AvgPool2d
from twograd.nn.layers import AvgPool3d as AvgPool3d
from twograd.nn.layers import Conv1d as Conv1d
from twograd.nn.layers import Conv2d as Conv2d
from twograd.nn.layers import Conv3d as Conv3d
from twograd.nn.layers import ConvTranspose1d as ConvTranspose1d
from twograd.nn.layers import ConvTranspose2d as ConvTranspose2d
from twograd.nn.layers import ConvTranspose3d as ConvTranspose3d
from twograd.nn.layers import Dropout as Dropout
from twograd.nn.layers import Dropout1d as Dropout1d
from twograd.nn.layers import Dropout2d as Dropout2d
from twograd.nn.layers import Dropout3d as Dropout3d
from twograd.nn.layers import Embedding as Embedding
from twograd.nn.layers import Flatten as Flatten
from twograd.nn.layers import Identity as Identity
from twograd.nn.layers import Linear as Linear
from twograd.nn.layers import MaxPool1d as MaxPool1d
from twograd.nn.layers import MaxPool2d as MaxPool2d
from twograd.nn.layers import MaxPool3d as MaxPool3d
from twograd.nn.layers import Unflatten as Unflatten
from twograd.nn.layers import Upsample as Upsample
from twograd.nn.losses import BCELoss as BCELoss
from twograd.nn.losses import BCEWithLogitsLoss as BCEWithLogitsLoss
from twograd.nn.losses import CrossEntropyLoss as CrossEntropyLoss
from twograd.nn.losses import HuberLoss as HuberLoss
from twograd.nn.losses import KLDivLoss as KLDivLoss
from twograd.nn.losses import L1Loss as L1Loss
from twograd.nn.losses import MSELoss as MSELoss
from twograd.nn.losses import NLLLoss as NLLLoss
from twograd.nn.losses import SmoothL1Loss as SmoothL1Loss
from twograd.nn.module import Module as Module
from twograd.nn.module import Parameter as Parameter
from twograd.nn.normalisation import BatchNorm1d as BatchNorm1d
from twograd.nn.normalisation import BatchNorm2d as BatchNorm2d
from twograd.nn.normalisation import BatchNorm3d as BatchNorm3d
from twograd.nn.normalisation import GroupNorm as GroupNorm
from twograd.nn.normalisation import InstanceNorm1d as InstanceNorm1d
from twograd.nn.normalisation import InstanceNorm2d as InstanceNorm2d
from twograd.nn.normalisation import InstanceNorm3d as InstanceNorm3d
from twograd.nn.normalisation import LayerNorm as LayerNorm
from twograd.nn.normalisation import RMSNorm as RMSNorm
from twograd.nn.recurrent import GRU as GRU
from twograd.nn.recurrent import LSTM as LSTM
from twograd.nn.recurrent import RNN as RNN
from twograd.nn.recurrent import GRUCell as GRUCell
from twograd.nn.recurrent import LSTMCell as LSTMCell
from twograd.nn.recurrent import RNNCell as RNNCell
from twograd.nn.stateless import functional_call as functional_call
