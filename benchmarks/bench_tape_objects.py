"""How many bytes does a recorded op cost, beyond its arrays? A Tensor, and a node with its edges and saved values.

Counted twice: what `sys.getsizeof` says of each object that one op adds, and what `tracemalloc` sees Python allocate
per op in a long chain, less what JAX allocates for an array.
"""

import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from twograd import tape

LENGTH = 2000
OPS: dict[str, Callable[[Any, Any], Any]] = {
    "x * y": lambda x, y: x * y,
    "sin(x)": lambda x, y: x.sin(),
    "x @ y": lambda x, y: x @ y,
    "x.T": lambda x, y: x.T,
}


def sizes(tensor: Any) -> tuple[int, int]:
    """Bytes of a Tensor (with its edge, and its alias where it is a view), and of its node, by the sizes of their
    objects. A garbage-collected object has 16 bytes in front that are counted."""
    alias = tensor._alias
    own = [tensor, tensor._edge, *([] if alias is None else [alias, alias.path, alias.storage.shown[-1]])]
    node = tensor._edge[0]
    return sum(map(sys.getsizeof, own)), sum(map(sys.getsizeof, (node, node.edges, node.saved)))


def allocated(make: Callable[[], Any]) -> float:
    """Bytes that Python allocates, and keeps, for what ``make`` makes."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    made = make()
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    del made
    return used


def main() -> None:
    values = np.eye(8, dtype=np.float32)
    x, y = tape.tensor(values, requires_grad=True), tape.tensor(values)
    for op in OPS.values():
        op(x, y)
    array = allocated(lambda: [x.array + 1 for _ in range(LENGTH)]) / LENGTH
    print(f"JAX's own per array: {array:.0f} bytes\n")
    print(f"{'':12}  Tensor (goal: 400)  node (goal: 600)  allocated by both, beyond the array")

    def chain(op: Callable[[Any, Any], Any]) -> list[Any]:
        made = [x]
        for _ in range(LENGTH):
            made.append(op(made[-1], y))
        return made

    for name, op in OPS.items():
        tensor, node = sizes(op(x, y))
        both = allocated(lambda op=op: chain(op)) / LENGTH - array
        print(f"{name:12} {tensor:12} bytes {node:11} bytes {both:12.0f} bytes")


if __name__ == "__main__":
    main()
