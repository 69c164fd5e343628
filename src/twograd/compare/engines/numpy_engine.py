"""What engines that compute in NumPy have in common."""

from typing import Any

import jax
import numpy as np

from twograd.compare.engines.protocol import Engine


class NumPyEngine(Engine):
    """An engine that computes in NumPy."""

    def unavailable(self) -> str:
        return super().unavailable() or ("runs on NumPy, and NumPy not on a GPU" if self.device == "gpu" else "")

    def arrays(self, tree: Any) -> Any:
        return jax.tree.map(np.array, tree)

    def numpy(self, tree: Any) -> Any:
        return jax.tree.map(np.asarray, tree)
