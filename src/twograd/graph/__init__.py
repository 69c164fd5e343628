"""The static engine: traces a function to a jaxpr and rewrites it into a bigger jaxpr that holds the derivative.

Read ``transform.py`` first: it is the engine. ``graph.py`` is what one holds in the hand, ``functional.py`` what one
calls, ``calls.py`` the rules for primitives that carry jaxprs, ``passes/`` the optimisations, ``symbolic/`` the way to
build a graph before running it, which is imported when it is first used.
"""

import importlib
from typing import Any

from twograd.deploy import LoadError as LoadError
from twograd.deploy import Program as Program
from twograd.deploy import load as load
from twograd.graph import calls as calls
from twograd.graph import checkpoint as checkpoint
from twograd.graph import control as control
from twograd.graph import references as references
from twograd.graph import sharding as sharding
from twograd.graph.bounded import bounded_while_loop as bounded_while_loop
from twograd.graph.diff import GraphDiff as GraphDiff
from twograd.graph.diff import diff as diff
from twograd.graph.diff import diff_passes as diff_passes
from twograd.graph.forward import jvp as jvp
from twograd.graph.functional import grad as grad
from twograd.graph.functional import hessian as hessian
from twograd.graph.functional import hvp as hvp
from twograd.graph.functional import jacobian as jacobian
from twograd.graph.functional import value_and_grad as value_and_grad
from twograd.graph.functional import vjp as vjp
from twograd.graph.graph import Graph as Graph
from twograd.graph.graph import GraphStats as GraphStats
from twograd.graph.graph import backprop as backprop
from twograd.graph.graph import gradients as gradients
from twograd.graph.graph import parse as parse
from twograd.graph.graph import trace as trace
from twograd.graph.ladder import Ladder as Ladder
from twograd.graph.ladder import ladder as ladder
from twograd.graph.passes import PassReport as PassReport
from twograd.graph.passes import optimize as optimize
from twograd.graph.split import Split as Split
from twograd.graph.split import split_vjp as split_vjp
from twograd.graph.strip import Removed as Removed
from twograd.graph.strip import StripReport as StripReport


def __getattr__(name: str) -> Any:
    if name == "symbolic":
        return importlib.import_module("twograd.graph.symbolic")
    raise AttributeError(f"module 'twograd.graph' has no attribute {name!r}")
