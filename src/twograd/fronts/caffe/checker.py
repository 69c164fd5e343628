"""A layer's backward against differences of its forward."""

from collections.abc import Sequence

import numpy as np

from twograd.errors import TwogradError
from twograd.fronts.caffe.layers import Blob, Layer


class GradientError(TwogradError, AssertionError):
    """A layer's backward is not what differences of its forward give."""


class GradientChecker:
    """Holds a layer's backward against differences of its forward of step ``stepsize``, element by element.

    An element whose absolute value lies within ``kink_range`` of ``kink`` is left out; none, if the range is negative.
    """

    def __init__(
        self, stepsize: float, threshold: float, seed: int = 1701, kink: float = 0.0, kink_range: float = -1.0
    ):
        self.stepsize, self.threshold, self.seed = stepsize, threshold, seed
        self.kink, self.kink_range = kink, kink_range

    def check_gradient_exhaustive(self, layer: Layer, bottoms: Sequence[Blob], tops: Sequence[Blob]) -> float:
        """Checks the derivative of each element of each top in each of each bottom, but labels, and each parameter.

        Returns the largest difference found, relative to max(abs(computed), abs(estimated), 1). Raises GradientError,
        naming the elements, where it is more than the threshold.
        """
        layer.setup(bottoms, tops)
        down = [i not in layer.labels for i in range(len(bottoms))]
        checked = [*(blob for blob, wanted in zip(bottoms, down, strict=True) if wanted), *layer.blobs]
        worst = 0.0
        for t, top in enumerate(tops):
            for at in range(top.count):
                worst = max(worst, self._check_one(layer, bottoms, tops, down, checked, (t, at)))
        return worst

    def _check_one(
        self,
        layer: Layer,
        bottoms: Sequence[Blob],
        tops: Sequence[Blob],
        down: Sequence[bool],
        checked: Sequence[Blob],
        which: tuple[int, int],
    ) -> float:
        """Of one element of one top."""

        def value() -> float:
            layer.rng = np.random.default_rng(self.seed)
            layer.forward(bottoms, tops)
            return float(tops[which[0]].data.reshape(-1)[which[1]])

        value()
        for blob in (*tops, *checked):
            blob.diff[...] = 0
        tops[which[0]].diff.reshape(-1)[which[1]] = 1
        layer.backward(tops, down, bottoms)
        gradients, worst = [blob.diff.copy() for blob in checked], 0.0
        for b, (blob, gradient) in enumerate(zip(checked, gradients, strict=True)):
            for at in np.ndindex(blob.shape):
                kept = blob.data[at]
                if abs(abs(kept) - self.kink) <= self.kink_range:
                    continue
                ends = []
                for moved in (kept + self.stepsize, kept - self.stepsize):
                    blob.data[at] = moved
                    ends.append(value())
                blob.data[at] = kept
                estimated, computed = (ends[0] - ends[1]) / (2 * self.stepsize), float(gradient[at])
                error = abs(computed - estimated) / max(abs(computed), abs(estimated), 1.0)
                if error > self.threshold:
                    raise GradientError(
                        f"debug: (top_id, top_data_id, blob_id, feat_id)={which[0]},{which[1]},{b},{at}; feat = "
                        f"{kept:g}; the gradient is {computed:g}, differences give {estimated:g}"
                    )
                worst = max(worst, error)
        return worst
