"""Networks that the comparisons train, each a Module that runs on both engines; first values are PyTorch's layers' own.

Read ``cifar.py``, the network of PyTorch's first tutorial, then ``gpt.py``.
"""

from twograd.models.cifar import Net as Net
from twograd.models.cifar import lenet5 as lenet5
from twograd.models.cifar import mlp as mlp
from twograd.models.gpt import GPT as GPT
from twograd.models.resnet import BasicBlock as BasicBlock
from twograd.models.resnet import ResNet as ResNet
from twograd.models.resnet import resnet18 as resnet18
from twograd.models.sequences import CharLSTM as CharLSTM
from twograd.models.tree import Tree as Tree
from twograd.models.tree import TreeLSTM as TreeLSTM
