"""Variables, which keep a value from run to run, and the operations that write them.

A :func:`variable` has a value per session, as in TensorFlow 1; one made by :func:`shared` has one value, as in Theano.
Reading one in an operation reads the value of the moment at which the operation runs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from twograd.graph.symbolic.build import add, canonical, checked_shape, constant, converts
from twograd.graph.symbolic.container import Graph, Operation, Symbol, Type, get_default_graph


class Cell:
    """Where the value of a variable is kept; None before it is initialised."""

    __slots__ = ("value",)

    def __init__(self, value: jax.Array | None = None):
        self.value = value


class Variable(Symbol):
    """A Symbol that operations can write. Its ``initializer`` is one of them.

    ``trainable`` says whether :func:`trainable_variables` has it, and nothing else.
    """

    __slots__ = ("cell", "initializer", "trainable")

    initializer: Operation
    cell: Cell | None
    trainable: bool

    def __new__(cls, *args: Any, **kwargs: Any) -> "Variable":
        if not args or not isinstance(args[0], Operation):
            raise TypeError(
                "a Variable is made by symbolic.variable(initial_value, name=...), or by symbolic.shared(value)"
            )
        return super().__new__(cls)

    def __init__(self, op: Operation, index: int, type: Type):
        super().__init__(op, index, type)
        self.cell, self.trainable = None, True

    def assign(self, value: Any, name: str = "assign") -> Symbol:
        """An operation that stores ``value``; its result is the new value."""
        return _assignment(self, [value], "assign", name, stored)

    def assign_add(self, value: Any, name: str = "assign_add") -> Symbol:
        """An operation that adds ``value``; its result is the new value."""
        return _assignment(self, [self, value], "assign_add", name, jnp.add)

    def assign_sub(self, value: Any, name: str = "assign_sub") -> Symbol:
        """An operation that subtracts ``value``; its result is the new value."""
        return _assignment(self, [self, value], "assign_sub", name, jnp.subtract)

    def read_value(self, name: str = "read") -> Symbol:
        """The value after the control dependencies of the place where this is called."""
        return add(self.graph, stored, [self], name)

    def _checked_value(self, value: Any) -> jax.Array:
        array = jnp.array(value)
        if not converts(array.dtype, self.dtype) or not self.type.accepts(array.shape):
            raise TypeError(
                f"{self.name} is {self.type}: it cannot hold a value of type {jax.typeof(array).str_short()}"
            )
        return array.astype(self.dtype)


class SharedVariable(Variable):
    """A variable that holds its value itself: every session and function reads and writes this one."""

    __slots__ = ()

    def get_value(self) -> jax.Array:
        """The value."""
        assert self.cell is not None
        assert self.cell.value is not None
        return self.cell.value

    def set_value(self, value: Any) -> None:
        """Replaces the value, by one of the same shape (where it is known) and a dtype that converts to this one."""
        assert self.cell is not None
        self.cell.value = self._checked_value(value)


def stored(value: Any) -> Any:
    return jnp.asarray(value)


def _assignment(
    variable: Variable, operands: Sequence[Any], operation: str, name: str, new_value: Callable[..., Any]
) -> Symbol:
    graph = get_default_graph()
    if graph is not variable.graph and variable.graph.encloses(graph):
        raise ValueError(
            f"{name}: {variable} cannot be written inside a body of cond, while_loop or scan. Return the new value "
            "from there, and assign it outside."
        )
    graph = variable.graph
    with graph.as_default():
        symbols = [operand if isinstance(operand, Symbol) else _of_dtype(operand, variable) for operand in operands]
    dtype, type = variable.dtype, variable.type

    def call(*values):
        new = new_value(*values)
        if not converts(new.dtype, dtype) or not type.accepts(new.shape):
            raise TypeError(
                f"{name}: {variable.name} is {type}, and the new value {jax.typeof(new).str_short()}. Shapes must be "
                "the same, and the dtype must convert without loss of kind: see .astype"
            )
        return new.astype(dtype)

    call.__name__ = operation
    return add(graph, call, symbols, name, writes=variable)


def _of_dtype(value: Any, variable: Variable) -> Symbol:
    """A value as a constant; a Python number has the variable's dtype."""
    return constant(value, variable.dtype if isinstance(value, (int, float)) else None)


def assign(variable: Variable, value: Any, name: str = "assign") -> Symbol:
    """:meth:`Variable.assign`."""
    return variable.assign(value, name)


def assign_add(variable: Variable, value: Any, name: str = "assign_add") -> Symbol:
    """:meth:`Variable.assign_add`."""
    return variable.assign_add(value, name)


def assign_sub(variable: Variable, value: Any, name: str = "assign_sub") -> Symbol:
    """:meth:`Variable.assign_sub`."""
    return variable.assign_sub(value, name)


def variable(initial_value: Any, dtype: Any = None, name: str = "variable", *, trainable: bool = True) -> Variable:
    """A variable of the shape and dtype of ``initial_value``: a number, an array, a Symbol, or a function of none.

    It has no value in a session before its ``initializer`` ran there (see :func:`global_variables_initializer`). One
    that is not ``trainable``, as a step counter, is left out of :func:`trainable_variables`.
    """
    if callable(initial_value):
        initial_value = initial_value()
    start = initial_value if isinstance(initial_value, Symbol) else constant(initial_value, dtype, name=f"{name}_value")
    graph = start.graph
    op = graph.add("variable", None, (), [start.type._replace(weak_type=False)], name, symbol=Variable)
    made = op.outputs[0]
    assert isinstance(made, Variable)
    made.trainable = trainable
    with graph.control_dependencies(None):
        made.initializer = made.assign(start, f"{name}/initializer").op
    return made


def shared(value: Any, name: str = "shared", shape: Sequence[int | None] | None = None) -> SharedVariable:
    """A variable that holds ``value`` now, as in Theano: see ``get_value``, ``set_value``, and :func:`function`.

    ``shape`` may leave sizes open (None), of which ``set_value`` and updates may then give other ones.
    """
    array = jnp.array(value)
    of = Type(array.shape if shape is None else checked_shape(shape), canonical(array.dtype))
    graph = get_default_graph()
    made = graph.add("variable", None, (), [of], name, symbol=SharedVariable).outputs[0]
    assert isinstance(made, SharedVariable)
    made.cell = Cell()
    made.set_value(array)
    made.initializer = no_op(f"{name}/initializer")
    return made


def group(*operations: Operation | Symbol, name: str = "group") -> Operation:
    """An operation without a result that runs after all ``operations``."""
    graph: Graph = operations[0].graph if operations else get_default_graph()
    with graph.control_dependencies(operations):
        return graph.add("group", None, (), (), name)


def no_op(name: str = "no_op") -> Operation:
    """An operation that does nothing, but after its control dependencies."""
    return get_default_graph().add("no_op", None, (), (), name)


def global_variables() -> list[Variable]:
    """All variables of the default graph, in the order in which they were made."""
    return [variable for variable in get_default_graph().variables if isinstance(variable, Variable)]


def trainable_variables() -> list[Variable]:
    """Those variables of the default graph that were not made with ``trainable=False``."""
    return [variable for variable in global_variables() if variable.trainable]


def global_variables_initializer() -> Operation:
    """The initializers of all variables of the default graph, as one operation."""
    return variables_initializer(global_variables())


def variables_initializer(variables: Sequence[Variable], name: str = "init") -> Operation:
    """The initializers of ``variables`` as one operation."""
    return group(*(variable.initializer for variable in variables), name=name)
