"""The programs of ``comparisons/`` as the benchmarks take them: each the largest of its quick cases."""

import numpy as np
from _programs import Program

from twograd.compare import engines
from twograd.compare.program import find
from twograd.compare.runner import Settings, make_inputs


def comparison_programs() -> dict[str, Program]:
    """``(loss, params, batch)`` by the comparison's name, as the graph engine is given it."""
    engine = engines.create("graph")
    programs: dict[str, Program] = {}
    for declaration in find():
        comparison = declaration.load()
        if not comparison.has_cases:
            continue

        def size(axes):
            return float(np.prod([value for value in axes.values() if not isinstance(value, str)]))

        axes = max(comparison.quick or comparison.cases, key=size)
        params, *batch = make_inputs(comparison, declaration.name, axes, Settings())

        program = comparison.program(engine.name, engine.family, axes)

        def loss(params, batch, program=program):
            return program(engine.ops, params, *batch)

        programs[declaration.name] = loss, params, tuple(batch)
    return programs
