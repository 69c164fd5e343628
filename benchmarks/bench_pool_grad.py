"""Is a pooling's pullback as fast as JAX's? Run: python benchmarks/bench_pool_grad.py

Windows of up to 32 elements are taken apart (see ``twograd/rules/windows.py``); JAX's rule for a maximum is
``select_and_scatter_add``, for a sum ``reduce_window``.
"""

import numpy as np
from jax import lax
from versus_jax import normal, print_ratios

SHAPES = [  # batch, size, features, window, stride, padding
    (64, 28, 6, 2, 2, "VALID"),
    (64, 10, 16, 2, 2, "VALID"),
    (32, 32, 64, 2, 2, "VALID"),
    (32, 32, 64, 3, 2, "SAME"),
    (32, 16, 64, 3, 1, "SAME"),
    (32, 16, 64, 5, 2, "SAME"),
    (32, 16, 64, 8, 8, "VALID"),
]
REDUCTIONS = {"max": (lax.max, -np.inf), "sum": (lax.add, 0.0)}


def cases():
    for kind, (of_two, start) in REDUCTIONS.items():
        for layout in ("NCHW", "NHWC"):
            for batch, size, features, window, stride, padding in SHAPES:
                shape = {"N": batch, "H": size, "W": size, "C": features}
                windows = tuple(window if axis in "HW" else 1 for axis in layout)
                strides = tuple(stride if axis in "HW" else 1 for axis in layout)

                def fn(x, how=(start, of_two, windows, strides, padding)):
                    return lax.reduce_window(x, *how)

                name = f"{kind}, {layout} {batch}x{size}²x{features}, {window}x{window}/{stride} {padding}"
                yield name, (fn, (normal(*(shape[axis] for axis in layout)),), 0)


if __name__ == "__main__":
    print_ratios(dict(cases()))
