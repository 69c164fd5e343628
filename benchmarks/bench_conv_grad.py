"""Is a convolution's pullback as fast as JAX's, for operand and kernel? Run: python benchmarks/bench_conv_grad.py

On the CPU twograd's differ from JAX's where the operand has up to 8 features, and for kernels of few features or in
groups.
"""

from jax import lax
from versus_jax import normal, print_ratios

SHAPES = [  # batch, size, input features, output features, kernel size, stride, padding, groups
    (64, 32, 3, 6, 5, 1, 0, 1),
    (64, 14, 6, 16, 5, 1, 0, 1),
    (32, 28, 1, 6, 5, 1, 2, 1),
    (32, 12, 6, 16, 5, 1, 0, 1),
    (32, 16, 16, 32, 3, 1, 1, 1),
    (32, 16, 64, 64, 3, 1, 1, 1),
    (32, 16, 64, 128, 3, 2, 1, 1),
    (32, 32, 3, 64, 7, 2, 3, 1),
    (32, 16, 64, 64, 3, 1, 1, 8),
    (32, 16, 64, 64, 3, 1, 1, 64),
]


def cases():
    for layout, kernel in [("NCHW", "OIHW"), ("NHWC", "HWIO")]:
        for batch, size, inputs, outputs, taps, stride, padding, groups in SHAPES:
            lhs = {"N": batch, "H": size, "W": size, "C": inputs}
            rhs = {"H": taps, "W": taps, "I": inputs // groups, "O": outputs}

            def fn(x, w, how=(stride, padding, layout, kernel, groups)):
                stride, padding, layout, kernel, groups = how
                return lax.conv_general_dilated(
                    x,
                    w,
                    (stride, stride),
                    [(padding, padding)] * 2,
                    dimension_numbers=(layout, kernel, layout),
                    feature_group_count=groups,
                )

            operands = (normal(*(lhs[axis] for axis in layout)), normal(*(rhs[axis] for axis in kernel)))
            name = f"{layout} {batch}x{size}², {inputs}->{outputs}, {taps}x{taps}/{stride}, groups {groups}"
            yield f"{name}, operand", (fn, operands, 0)
            yield f"{name}, kernel", (fn, operands, 1)


if __name__ == "__main__":
    print_ratios(dict(cases()))
