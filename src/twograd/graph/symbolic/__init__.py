"""Define-and-run: a graph that is built first, and run later, as in Theano and TensorFlow 1.

    from twograd.graph import symbolic

    x = symbolic.placeholder(shape=(None, 2))
    w = symbolic.variable(np.ones((2, 1)), name="w")
    loss = tnp.mean((x @ w) ** 2)                          # twograd.numpy on Symbols adds operations
    step = w.assign_sub(0.1 * symbolic.gradients(loss, w)[0])
    with symbolic.Session() as session:
        session.run(symbolic.global_variables_initializer())
        session.run([loss, step], {x: data})

Read ``container.py`` (the graph), ``build.py`` (how a call becomes an operation), ``derivatives.py`` (the walk back,
which adds operations) and ``plan.py`` (what runs). ``session.py`` is TensorFlow's way to run a graph, ``function.py``
Theano's, whose other calls are in ``theano.py``. A graph here is not a :class:`twograd.graph.Graph`, which is a traced
program; :func:`trace` makes one of it.
"""

from twograd.errors import DisconnectedInput as DisconnectedInput
from twograd.graph.symbolic import methods as methods
from twograd.graph.symbolic.build import apply as apply
from twograd.graph.symbolic.build import constant as constant
from twograd.graph.symbolic.build import identity as identity
from twograd.graph.symbolic.build import placeholder as placeholder
from twograd.graph.symbolic.build import stop_gradient as stop_gradient
from twograd.graph.symbolic.container import Graph as Graph
from twograd.graph.symbolic.container import Operation as Operation
from twograd.graph.symbolic.container import Symbol as Symbol
from twograd.graph.symbolic.container import control_dependencies as control_dependencies
from twograd.graph.symbolic.container import get_default_graph as get_default_graph
from twograd.graph.symbolic.container import get_default_session as get_default_session
from twograd.graph.symbolic.container import name_scope as name_scope
from twograd.graph.symbolic.container import reset_default_graph as reset_default_graph
from twograd.graph.symbolic.control import cond as cond
from twograd.graph.symbolic.control import while_loop as while_loop
from twograd.graph.symbolic.derivatives import DISCONNECTED as DISCONNECTED
from twograd.graph.symbolic.derivatives import Lop as Lop
from twograd.graph.symbolic.derivatives import Rop as Rop
from twograd.graph.symbolic.derivatives import grad as grad
from twograd.graph.symbolic.derivatives import gradients as gradients
from twograd.graph.symbolic.derivatives import hessian as hessian
from twograd.graph.symbolic.derivatives import jacobian as jacobian
from twograd.graph.symbolic.derivatives import lop as lop
from twograd.graph.symbolic.derivatives import rop as rop
from twograd.graph.symbolic.errors import MissingFeed as MissingFeed
from twograd.graph.symbolic.errors import MissingInput as MissingInput
from twograd.graph.symbolic.errors import NoGradient as NoGradient
from twograd.graph.symbolic.errors import UninitializedVariable as UninitializedVariable
from twograd.graph.symbolic.errors import UnusedInput as UnusedInput
from twograd.graph.symbolic.function import Function as Function
from twograd.graph.symbolic.function import function as function
from twograd.graph.symbolic.plan import Plan as Plan
from twograd.graph.symbolic.session import Session as Session
from twograd.graph.symbolic.session import trace as trace
from twograd.graph.symbolic.text import debugprint as debugprint
from twograd.graph.symbolic.text import pp as pp
from twograd.graph.symbolic.text import text as text
from twograd.graph.symbolic.theano import dmatrix as dmatrix
from twograd.graph.symbolic.theano import dscalar as dscalar
from twograd.graph.symbolic.theano import dvector as dvector
from twograd.graph.symbolic.theano import fmatrix as fmatrix
from twograd.graph.symbolic.theano import fscalar as fscalar
from twograd.graph.symbolic.theano import fvector as fvector
from twograd.graph.symbolic.theano import ifelse as ifelse
from twograd.graph.symbolic.theano import imatrix as imatrix
from twograd.graph.symbolic.theano import iscalar as iscalar
from twograd.graph.symbolic.theano import ivector as ivector
from twograd.graph.symbolic.theano import lmatrix as lmatrix
from twograd.graph.symbolic.theano import lscalar as lscalar
from twograd.graph.symbolic.theano import lvector as lvector
from twograd.graph.symbolic.theano import matrices as matrices
from twograd.graph.symbolic.theano import matrix as matrix
from twograd.graph.symbolic.theano import scalar as scalar
from twograd.graph.symbolic.theano import scalars as scalars
from twograd.graph.symbolic.theano import scan as scan
from twograd.graph.symbolic.theano import switch as switch
from twograd.graph.symbolic.theano import tensor3 as tensor3
from twograd.graph.symbolic.theano import tensor4 as tensor4
from twograd.graph.symbolic.theano import vector as vector
from twograd.graph.symbolic.theano import vectors as vectors
from twograd.graph.symbolic.variables import SharedVariable as SharedVariable
from twograd.graph.symbolic.variables import Variable as Variable
from twograd.graph.symbolic.variables import assign as assign
from twograd.graph.symbolic.variables import assign_add as assign_add
from twograd.graph.symbolic.variables import assign_sub as assign_sub
from twograd.graph.symbolic.variables import global_variables as global_variables
from twograd.graph.symbolic.variables import global_variables_initializer as global_variables_initializer
from twograd.graph.symbolic.variables import group as group
from twograd.graph.symbolic.variables import no_op as no_op
from twograd.graph.symbolic.variables import shared as shared
from twograd.graph.symbolic.variables import trainable_variables as trainable_variables
from twograd.graph.symbolic.variables import variable as variable
from twograd.graph.symbolic.variables import variables_initializer as variables_initializer
