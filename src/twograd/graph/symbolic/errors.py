"""What goes wrong with a symbolic graph, in the words of TensorFlow 1 and Theano, which people search for."""

from twograd.errors import TwogradError

NOT_A_BOOL = (
    "Using a `tf.Tensor` as a Python `bool` is not allowed. Variables do not support boolean operations. {symbol} has "
    "no value while the graph is built: use `if t is not None:` to ask whether it is defined, twograd.numpy.where to "
    "choose between values, graph.symbolic.cond to run one of two subgraphs."
)
NOT_ITERABLE = (
    "Tensor objects are not iterable: {symbol} has no elements while the graph is built. Index it (`x[i]`), or use "
    "graph.symbolic.scan to run a subgraph per element."
)
NO_LEN = "object of type 'Symbol' has no len(): {symbol}. Use .shape, or twograd.numpy.shape for a size known at run."
NOT_A_NUMBER = (
    "{symbol} is no {kind}: it has no value while the graph is built. Evaluate it with Session.run, or stay in the "
    "graph with twograd.numpy."
)
OTHER_GRAPH = "{other} must be from the same graph as {symbol}."
FINALIZED = "Graph is finalized and cannot be modified. ({name!r} would have been added. {hint})"
GROWING = "A graph that grows inside a training loop makes every step slower: build all operations before the loop."
LEAKED = "A Symbol made in a body of cond, while_loop or scan has a value only there: return it from the body."
NOT_AN_ELEMENT = "Tensor {symbol} is not an element of this graph."
OTHER_SESSION = (
    "Cannot use the given session to evaluate tensor: the tensor's graph is different from the session's graph."
)
NO_SESSION = (
    "Cannot evaluate tensor using `eval()`: No default session is registered. Use `with sess.as_default()` or pass an "
    "explicit session to `eval(session=sess)`"
)
FED_SYMBOL = (
    "The value of a feed cannot be a tf.Tensor object. Acceptable feed values include Python scalars, lists and "
    "arrays. (The feed of {symbol} is {value}; to replace one Symbol by another use the givens of "
    "graph.symbolic.function.)"
)


class MissingFeed(TwogradError, ValueError):
    """A placeholder is needed that was not fed."""


class MissingInput(TwogradError, ValueError):
    """``function`` was asked for outputs that depend on a placeholder which is not among its inputs."""


class UnusedInput(TwogradError, ValueError):
    """``function`` was given an input on which no output depends."""


class UninitializedVariable(TwogradError, RuntimeError):
    """A variable was read before anything was assigned to it."""


class NoGradient(TwogradError, LookupError):
    """A gradient was asked for through an operation that has none."""
