"""The derivative rules: one table, keyed by JAX's primitives, that both engines read.

Read ``registry.py`` for what a rule is, then any section (``elementwise.py`` is the plainest).
"""

from twograd.rules import collectives as collectives
from twograd.rules import cumulative as cumulative
from twograd.rules import effects as effects
from twograd.rules import elementwise as elementwise
from twograd.rules import fourier as fourier
from twograd.rules import indexing as indexing
from twograd.rules import internals as internals
from twograd.rules import linalg as linalg
from twograd.rules import linear as linear
from twograd.rules import random as random
from twograd.rules import reductions as reductions
from twograd.rules import shape as shape
from twograd.rules import special as special
from twograd.rules import windows as windows
from twograd.rules.accumulate import accumulate as accumulate
from twograd.rules.accumulate import unbroadcast as unbroadcast
from twograd.rules.registry import Called as Called
from twograd.rules.registry import Rule as Rule
from twograd.rules.registry import SaveMapRow as SaveMapRow
from twograd.rules.registry import carries_gradient as carries_gradient
from twograd.rules.registry import carries_jaxprs as carries_jaxprs
from twograd.rules.registry import forward as forward
from twograd.rules.registry import nondifferentiable as nondifferentiable
from twograd.rules.registry import pullback as pullback
from twograd.rules.registry import reached_results as reached_results
from twograd.rules.registry import recording as recording
from twograd.rules.registry import refused as refused
from twograd.rules.registry import save_map as save_map
from twograd.rules.registry import saved_positions as saved_positions
from twograd.rules.registry import table as table
from twograd.rules.registry import vjp as vjp
from twograd.rules.registry import vjp_call as vjp_call
from twograd.rules.registry import wanted_operands as wanted_operands
