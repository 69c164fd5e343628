"""What engines over NumPy's arrays have in common."""

from typing import Any, ClassVar

import jax
import numpy as np

from twograd.compare.engines.protocol import Engine


class NumPyEngine(Engine):
    """An engine that takes NumPy's arrays. ``no_gpu`` says why it then has no GPU."""

    no_gpu: ClassVar[str] = "runs on NumPy, and NumPy not on a GPU"

    def unavailable(self) -> str:
        return super().unavailable() or (self.no_gpu if self.device == "gpu" else "")

    def arrays(self, tree: Any) -> Any:
        return jax.tree.map(np.array, tree)

    def numpy(self, tree: Any) -> Any:
        return jax.tree.map(np.asarray, tree)
