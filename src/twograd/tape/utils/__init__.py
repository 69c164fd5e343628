"""What is ``torch.utils`` in PyTorch, as far as it concerns derivatives."""

from twograd.tape.utils import checkpoint as checkpoint
