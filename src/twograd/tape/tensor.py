"""Tensor: a JAX array that knows how it was computed.

Read :class:`Tensor`, then ``node.py``. The operators and methods are attached in ``methods.py``, which stands on
``apply.py``, which makes Tensors.
"""

import math
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from twograd import rules
from twograd.tape.modes import mode
from twograd.tape.node import AccumulateGrad, Edge, Node, Nowhere, Rare, rarely, shown
from twograd.tape.storage import Alias, Counter, alias_of, share, type_name

NON_LEAF_GRAD = (
    "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its .grad attribute won't be "
    "populated during autograd.backward(). If you indeed want the .grad field to be populated for a non-leaf Tensor, "
    "use .retain_grad() on the non-leaf Tensor. If you access the non-leaf Tensor by mistake, make sure you access the "
    "leaf Tensor instead."
)


class Size(tuple[int, ...]):
    """A shape: a tuple that counts its elements, and is printed as PyTorch's."""

    __slots__ = ()

    def numel(self) -> int:
        """How many elements there are."""
        return math.prod(self)

    def __repr__(self) -> str:
        return f"torch.Size({list(self)})"

    def __getitem__(self, index: Any) -> Any:
        found = tuple.__getitem__(self, index)
        return Size(found) if isinstance(index, slice) else found

    def __add__(self, other: tuple[int, ...]) -> "Size":
        return Size(tuple.__add__(self, other))


class Tensor:
    """A JAX array and an edge into the graph of what was recorded.

    ``_edge`` is None for a Tensor that requires no gradient. Otherwise it is ``(node, output_nr)``: the node whose
    output this is, or, for a leaf, the AccumulateGrad node that holds its ``.grad``. A Tensor keeps its graph alive and
    no graph keeps a Tensor, so both die by reference count. ``_alias`` is None but for a Tensor that was changed in
    place or shares its elements with another; see ``storage.py``.
    """

    __slots__ = ("__weakref__", "_alias", "_data", "_edge")
    __array_ufunc__ = None  # NumPy arrays leave mixed arithmetic to Tensor's reflected operators

    _alias: Alias | None
    _data: jax.Array
    _elements: Any  # the same slot, not looked at: an array, or a Value
    _edge: Edge | None
    _inference = False
    _in_inference: "type[Tensor]"  # the class of those made in inference mode; see inference.py
    _stale: "type[Tensor]"  # and of those whose storage was changed through another; see views.py

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:  # the methods that methods.py and inplace.py attach
            ...

    def __init__(self, data: Any, requires_grad: bool = False):
        self._data = data if isinstance(data, jax.Array) else jnp.asarray(data)
        self._edge = None
        self._alias = None
        if mode.inference:
            self.__class__ = self._in_inference  # pyright: ignore[reportAttributeAccessIssue]
        if requires_grad:
            self.requires_grad = True

    # --- what autograd adds to an array -------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to, or through, this Tensor."""
        return self._edge is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not self.is_leaf:
            if value:
                return
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in "
                "a subgraph that doesn't require differentiation use var_no_grad = var.detach()."
            )
        node = None if self._edge is None else self._edge[0]
        if not value:
            set_aside(self)
        elif node is None or type(node) is Nowhere:
            if not rules.carries_gradient(self._data.aval):
                raise RuntimeError(
                    "Only Tensors of floating point and complex dtype can require gradients; this one has dtype "
                    f"{self._data.dtype}. Convert it first: x.float()."
                )
            node = _aside(self) or AccumulateGrad(self)
            if node.rare is not None:
                node.rare.frozen = False
            _set_aside.pop(id(self), None)
            self._edge = (node, 0)  # pyright: ignore[reportAttributeAccessIssue] # the last of all nodes

    def is_inference(self) -> bool:
        """Whether this Tensor was made in inference mode."""
        return self._inference

    @property
    def is_leaf(self) -> bool:
        """Whether this Tensor was made by the user, not computed from Tensors that require gradients."""
        return self._edge is None or isinstance(self._edge[0], AccumulateGrad)

    @property
    def grad_fn(self) -> Node | None:
        """The node that computed this Tensor; None for a leaf."""
        return None if self.is_leaf else shown(self._edge[0])  # pyright: ignore[reportOptionalSubscript]

    @property
    def output_nr(self) -> int:
        """Which output of ``grad_fn`` this is."""
        return 0 if self._edge is None else self._edge[1]

    @property
    def grad(self) -> "Tensor | None":
        """The gradient that ``backward`` has accumulated, for a leaf, or for a Tensor told to ``retain_grad()``."""
        node, output_nr = self._edge or (_aside(self), 0)
        if isinstance(node, AccumulateGrad):
            return node.grad
        if node is None:
            return None
        retained = None if node.rare is None else node.rare.retained
        if retained is not None and output_nr in retained:
            return retained[output_nr]
        given = _aside(self)
        if given is None or given.grad is None:
            warnings.warn(NON_LEAF_GRAD, UserWarning, stacklevel=2)
            return None
        return given.grad

    @grad.setter
    def grad(self, value: "Tensor | None") -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"assigned grad expected to be a Tensor or None but got grad of type {type(value).__name__}"
                )
            if value is self:
                raise RuntimeError("can't assign Variable as its own grad")
            if value.shape != self.shape:
                raise RuntimeError(
                    f"attempting to assign a gradient of size '{list(value.shape)}' to a tensor of size "
                    f"'{list(self.shape)}'. Please ensure that the gradient and the tensor are the same size"
                )
            if value.dtype != self.dtype:
                raise RuntimeError(
                    f"attempting to assign a gradient with dtype '{value.dtype}' to a tensor with grad_dtype "
                    f"'{type_name(self.dtype)}'. The gradient must match the tensor's dtype."
                )
        if self._edge is not None and isinstance(self._edge[0], AccumulateGrad):
            self._edge[0].grad = value
        elif self.retains_grad:
            self._edge[0].rare.retained[self.output_nr] = value  # pyright: ignore
        elif value is not None or id(self) in _set_aside:
            keep_aside(self, _aside(self) or AccumulateGrad(self)).grad = value

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

    def requires_grad_(self, requires_grad: bool = True) -> "Tensor":
        """Sets ``requires_grad`` in place, and returns this Tensor."""
        self.requires_grad = requires_grad
        return self

    def retain_grad(self) -> None:
        """Asks ``backward`` to keep this Tensor's gradient in ``.grad`` though it is no leaf."""
        if self._edge is None:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        node, output_nr = self._edge
        if not isinstance(node, AccumulateGrad):
            rare = rarely(node)
            if rare.retained is None:
                rare.retained = {}
            rare.retained.setdefault(output_nr, None)

    @property
    def retains_grad(self) -> bool:
        """Whether this is a non-leaf Tensor whose ``.grad`` will be kept."""
        node = self.grad_fn
        return node is not None and node.rare is not None and self.output_nr in (node.rare.retained or ())

    def detach(self) -> "Tensor":
        """The same elements, cut off from the graph: a change in place of either is seen, and counted, by both."""
        return share(make_tensor(self._data, None), self)

    @property
    def _version(self) -> int:
        """How often the elements were changed in place, by this Tensor or one that shares them."""
        return 0 if self._alias is None else self._alias.counter.version

    @property
    def _base(self) -> "Tensor | None":
        """The Tensor that this is a differentiable view of; None if it is no view."""
        return None if self._alias is None else self._alias.base

    def _is_view(self) -> bool:
        return self._base is not None

    # --- what an array has --------------------------------------------------------------------------------------------

    @property
    def data(self) -> "Tensor":
        """The same elements, cut off from the graph; unlike ``detach()`` it counts its changes apart. Assignable."""
        return share(make_tensor(self._data, None), self, Counter())

    @data.setter
    def data(self, value: "Tensor") -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {type(value).__name__}")
        alias, given = alias_of(self), alias_of(value)
        if alias.storage is not given.storage or alias.path is not given.path:
            self._data = value._data
            self._alias = Alias(given.storage, alias.counter, given.path, given.in_row)
            given.storage.add(self, alias.counter)

    @property
    def array(self) -> jax.Array:
        """The JAX array inside."""
        return self._data

    @property
    def shape(self) -> Size:
        return Size(self._data.shape)

    @property
    def dtype(self) -> Any:
        return self._data.dtype

    @property
    def ndim(self) -> int:
        return self._data.ndim

    def item(self) -> Any:
        """The one element as a Python number; waits for it to be computed."""
        if self._data.size != 1:
            raise RuntimeError(f"a Tensor with {self._data.size} elements cannot be converted to Scalar")
        return self._data.item()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The data as a NumPy array. Raises RuntimeError for a Tensor that requires grad, unless forced."""
        if not force and self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        return np.asarray(self._data)

    def tolist(self) -> Any:
        """The data as nested lists of Python numbers."""
        return self._data.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __len__(self) -> int:
        if not self._data.shape:
            raise TypeError("len() of a 0-d tensor")
        return self._data.shape[0]

    def __bool__(self) -> bool:
        if self._data.size != 1:
            values = "more than one value" if self._data.size else "no values"
            raise RuntimeError(f"Boolean value of Tensor with {values} is ambiguous")
        return bool(self._data)

    def __float__(self) -> float:
        return float(self._scalar())

    def __int__(self) -> int:
        return int(self._scalar())

    def __complex__(self) -> complex:
        return complex(self._scalar())

    def _scalar(self) -> Any:
        if self._data.size != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return self._data.item()

    def __index__(self) -> int:
        if self._data.size != 1 or self._data.dtype.kind not in "iub":
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self._data.item())

    def __hash__(self) -> int:
        return id(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tensor":
        if not self.is_leaf:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the "
                "moment."
            )
        copy = memo[id(self)] = Tensor(self._data, self.requires_grad)
        if self.grad is not None:
            copy.grad = Tensor(self.grad._data)
        return copy


Tensor._elements = Tensor.__dict__["_data"]


_set_aside: "dict[int, tuple[weakref.ref[Tensor], AccumulateGrad]]" = {}
"""By id, the nodes of Tensors that require no gradient at present, or are no leaves, but have a ``.grad`` or hooks."""


def _aside(tensor: Tensor) -> AccumulateGrad | None:
    entry = _set_aside.get(id(tensor))
    return None if entry is None else entry[1]


def keep_aside(tensor: Tensor, node: AccumulateGrad) -> AccumulateGrad:
    """Keeps a node, from now on frozen, as long as the Tensor lives."""
    key = id(tensor)
    _set_aside[key] = weakref.ref(tensor, lambda _: _set_aside.pop(key, None)), node
    node.rare = node.rare or Rare()  # not by rarely(), for there is nothing to be called early
    node.rare.frozen = True
    return node


def set_aside(tensor: Tensor) -> None:
    """A leaf requires no gradient any more. It keeps its ``.grad``, and its hooks for when it requires one again."""
    if tensor._edge is not None and type(tensor._edge[0]) is AccumulateGrad:
        keep_aside(tensor, tensor._edge[0])
        tensor._edge = None


def make_tensor(data: jax.Array, edge: Edge | None) -> Tensor:
    """A Tensor without the checks of its constructor: what recording makes, once per op."""
    tensor = object.__new__(Tensor)
    tensor._data = data
    tensor._edge = edge
    tensor._alias = None
    return tensor


def as_array(data: Any) -> jax.Array:
    """``data`` as a JAX array; itself if it is one, for asking JAX costs more than an op."""
    return data if isinstance(data, jax.Array) else jnp.asarray(data)
