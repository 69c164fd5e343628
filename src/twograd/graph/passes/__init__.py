"""Optimisations: each file has one function, from a ClosedJaxpr to a ClosedJaxpr and a report of what it did.

Read ``rewriting.py`` for the loop that most of them share, ``simplify.py`` for a table of rewrites, ``pipeline.py`` for
how they are run.
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
from twograd.graph.passes.simplify import simplify as simplify
