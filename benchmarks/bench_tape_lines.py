"""What does it cost that every node knows the user's line that made it? Forward per op on 8x8, with and without.

"Without" replaces the look at the frames by a function that returns None, so the difference is the look itself. The
deeper within this package an op is called, the more frames it passes.
"""

import importlib

import numpy as np
from _bench import against, summary

import twograd.numpy as tnp
from twograd import tape
from twograd.tape.lines import here

LENGTH = 300
OPS = {"x * y": lambda x, y: x * y, "x.exp()": lambda x, y: x.exp(), "tnp.sin(x)": lambda x, y: tnp.sin(x)}
RECORDING = importlib.import_module("twograd.tape.apply")


def nothing() -> None:
    """In the place of the look."""


def main() -> None:
    x = tape.Tensor(np.eye(8, dtype=np.float32), requires_grad=True)
    y = tape.Tensor(np.ones((8, 8), np.float32))

    def forward(op, look):
        def run():
            RECORDING.here = look
            for _ in range(LENGTH):
                op(x, y)

        return run

    ratios = [against(name, forward(op, here), forward(op, nothing), LENGTH) for name, op in OPS.items()]
    summary("with lines over without", ratios, 1.03)


if __name__ == "__main__":
    main()
