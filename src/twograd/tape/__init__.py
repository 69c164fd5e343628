from twograd.tape import methods as methods
from twograd.tape.apply import apply as apply
from twograd.tape.modes import *
from twograd.tape.tensor import Tensor as Tensor
from twograd.tape.factories import *
