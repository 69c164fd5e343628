"""Losses as Modules: each is a function of nn.functional, its settings, and weights per class or element."""

from typing import Any

from twograd.nn import functional as F
from twograd.nn.module import Module
from twograd.nn.settled import settled


class Loss(Module):
    """Applies ``function`` to input and target; ``reduction`` is "mean", "sum" or "none"."""

    function: Any

    def __init__(self, reduction: str = "mean", **settings: Any):
        super().__init__()
        if reduction not in ("mean", "sum", "none", "batchmean"):
            raise ValueError(f"{reduction} is not a valid value for reduction")
        self._settings = ("reduction", *settings)
        for name, value in {"reduction": reduction, **settings}.items():
            setattr(self, name, value)

    def forward(self, input: Any, target: Any) -> Any:
        return self._call(input, target)

    def _call(self, *operands: Any) -> Any:
        return settled(type(self).function, **{name: getattr(self, name) for name in self._settings})(*operands)


class _Weighted(Loss):
    """A loss with a ``weight``, a buffer: per class, or per element."""

    def __init__(self, weight: Any = None, **settings: Any):
        super().__init__(**settings)
        self.register_buffer("weight", weight)

    def forward(self, input: Any, target: Any) -> Any:
        weight = self.weight
        return self._call(input, target) if weight is None else self._call(input, target, weight)


class MSELoss(Loss):
    """(input - target)², of two Tensors of one shape."""

    function = F.mse_loss


class L1Loss(Loss):
    """|input - target|, of two Tensors of one shape."""

    function = F.l1_loss


class SmoothL1Loss(Loss):
    """Squared below ``beta``, absolute above."""

    function = F.smooth_l1_loss

    def __init__(self, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction, beta=beta)


class HuberLoss(Loss):
    """Squared below ``delta``, absolute above, times ``delta``."""

    function = F.huber_loss

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction, delta=delta)


class KLDivLoss(Loss):
    """The divergence of log-probabilities from a target; "batchmean" is the mathematical mean."""

    function = F.kl_div

    def __init__(self, reduction: str = "mean", log_target: bool = False):
        super().__init__(reduction, log_target=log_target)


class CrossEntropyLoss(_Weighted):
    """-log softmax(input) at the target: input (N, C, *), target (N, *) of integers, or (N, C, *) of probabilities."""

    function = F.cross_entropy

    def __init__(
        self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ):
        super().__init__(weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing)


class NLLLoss(_Weighted):
    """Minus the log-probability at the target class: input (N, C, *), target (N, *) of integers."""

    function = F.nll_loss

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(weight, ignore_index=ignore_index, reduction=reduction)


class BCELoss(_Weighted):
    """Cross-entropy of probabilities against targets in [0, 1], elementwise."""

    function = F.binary_cross_entropy

    def __init__(self, weight: Any = None, reduction: str = "mean"):
        super().__init__(weight, reduction=reduction)


def _with_pos_weight(input: Any, target: Any, pos_weight: Any, weight: Any = None, *, reduction: Any) -> Any:
    return F.binary_cross_entropy_with_logits(input, target, weight, reduction=reduction, pos_weight=pos_weight)


class BCEWithLogitsLoss(_Weighted):
    """Cross-entropy of sigmoid(input) against targets in [0, 1]; ``pos_weight`` is a factor of positive targets."""

    function = F.binary_cross_entropy_with_logits

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None):
        super().__init__(weight, reduction=reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Any, target: Any) -> Any:
        if self.pos_weight is None:
            return super().forward(input, target)
        weights = [self.pos_weight, *([] if self.weight is None else [self.weight])]
        return settled(_with_pos_weight, reduction=self.reduction)(input, target, *weights)
