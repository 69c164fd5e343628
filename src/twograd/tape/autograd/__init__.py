"""What is ``torch.autograd`` in PyTorch, under the same names.

The work is done in ``tape/gradients.py`` and ``tape/backward.py``; here are the functions that are built upon them.
"""

from twograd.tape.anomaly import detect_anomaly as detect_anomaly
from twograd.tape.anomaly import set_detect_anomaly as set_detect_anomaly
from twograd.tape.autograd import forward_ad as forward_ad
from twograd.tape.autograd import function as function
from twograd.tape.autograd import functional as functional
from twograd.tape.autograd import graph as graph
from twograd.tape.autograd.function import Function as Function
from twograd.tape.autograd.gradcheck import GradcheckError as GradcheckError
from twograd.tape.autograd.gradcheck import gradcheck as gradcheck
from twograd.tape.autograd.gradcheck import gradgradcheck as gradgradcheck
from twograd.tape.gradients import backward as backward
from twograd.tape.gradients import grad as grad
from twograd.tape.inference import inference_mode as inference_mode
from twograd.tape.modes import enable_grad as enable_grad
from twograd.tape.modes import no_grad as no_grad
from twograd.tape.modes import set_grad_enabled as set_grad_enabled
