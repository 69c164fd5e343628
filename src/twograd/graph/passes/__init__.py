"""Optimisations: each file has one function, from a ClosedJaxpr to a ClosedJaxpr and a report of what it did.

Read ``rewriting.py`` for the loop that most of them share, ``simplify.py`` for a table of rewrites, ``pipeline.py`` for
how they are run. ``reroll.py`` and ``remat.py`` are not among the default passes: they trade run time or memory for
something that the user must want.

A pass of one's own is any such function. With :func:`rewrite` it is a visitor, which gets one equation after the other
and answers with None, or with the name of a rewrite and what stands for the results. ``walk.emit`` traces a function
for new equations; ``g.optimize(mine, check=True)`` holds the pass to the values:

    >>> import numpy as np
    >>> from jax import lax
    >>> from twograd import graph
    >>> from twograd.graph.passes import rewrite
    >>> def mine(closed):
    ...     def visitor_of(walk):
    ...         def visit(eqn):
    ...             if eqn.primitive is lax.tan_p:
    ...                 return "tan", walk.emit(eqn, lambda x: lax.div(lax.sin(x), lax.cos(x)), eqn.invars[0])
    ...         return visit
    ...     return rewrite("mine", closed, visitor_of)
    >>> g = graph.trace(lambda x: lax.tan(x) * 2, np.float32(1)).optimize(mine, check=True)
    >>> [eqn.primitive.name for eqn in g.jaxpr.eqns]
    ['sin', 'cos', 'div', 'mul']
    >>> g.reports[0].fired
    Counter({'tan': 1})
"""

from twograd.graph.passes.cse import cse as cse
from twograd.graph.passes.dce import dce as dce
from twograd.graph.passes.fold import fold as fold
from twograd.graph.passes.inline import inline as inline
from twograd.graph.passes.pipeline import PASSES as PASSES
from twograd.graph.passes.pipeline import optimize as optimize
from twograd.graph.passes.remat import remat as remat
from twograd.graph.passes.report import Pass as Pass
from twograd.graph.passes.report import PassReport as PassReport
from twograd.graph.passes.reroll import reroll as reroll
from twograd.graph.passes.rewriting import Walk as Walk
from twograd.graph.passes.rewriting import rewrite as rewrite
from twograd.graph.passes.simplify import simplify as simplify
