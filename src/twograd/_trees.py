"""The structure of arguments and results as plain data: what a manifest or a text can hold in the place of a treedef.

What flows in: a ``PyTreeDef``. What flows out: nested lists and dicts that JSON can hold, and from these one again.
A leaf is ``"*"`` and None is None; else a dict says the kind of the container:

    {"tuple": [child, ...]}   {"list": [...]}   {"dict": [[key, child], ...]}   {"ordered dict": [[key, child], ...]}
    {"namedtuple": "Point", "fields": ["x", "y"], "of": [child, ...]}

A container of any other kind (a module of a library, a dict whose keys are not strings, numbers or booleans) is the
tuple of its children, with its name under ``"was"``: only its own code could build it again. This module needs
JAX's pytrees, and nothing of twograd.
"""

import functools
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from typing import Any

from jax.tree_util import tree_structure

LEAF = "*"
Plain = str | dict[str, Any] | None


def to_plain(tree: Any) -> Plain:
    """The structure ``tree`` as plain data."""
    data = tree.node_data()
    if data is None:
        return LEAF
    kind, keys = data
    if kind is type(None):
        return None
    children = [to_plain(child) for child in tree.children()]
    if kind in (tuple, list):
        return {kind.__name__: children}
    if kind in (dict, OrderedDict, defaultdict):
        keys = keys[1] if kind is defaultdict else keys
        if all(isinstance(key, (str, int, float)) for key in keys):
            pairs = [list(pair) for pair in zip(keys, children, strict=True)]
            return {"ordered dict" if kind is OrderedDict else "dict": pairs}
    elif issubclass(kind, tuple) and (fields := getattr(kind, "_fields", None)) is not None:
        return {"namedtuple": kind.__name__, "fields": list(fields), "of": children}
    return {"tuple": children, "was": f"{kind.__module__}.{kind.__qualname__}"}


def from_plain(plain: Any) -> Any:
    """The structure that ``plain`` describes. Raises ValueError for what :func:`to_plain` cannot have written."""
    return tree_structure(fill(plain, lambda: 0))


def fill(plain: Any, leaf: Callable[[], Any]) -> Any:
    """The containers that ``plain`` describes around what ``leaf()`` returns for one leaf after the other."""
    if plain is None:
        return None
    if plain == LEAF:
        return leaf()
    match plain:
        case {"tuple": list(children)}:
            return tuple(fill(child, leaf) for child in children)
        case {"list": list(children)}:
            return [fill(child, leaf) for child in children]
        case {"dict": list(pairs)}:
            return {key: fill(child, leaf) for key, child in pairs}
        case {"ordered dict": list(pairs)}:
            return OrderedDict((key, fill(child, leaf)) for key, child in pairs)
        case {"namedtuple": str(name), "fields": list(fields), "of": list(children)} if len(fields) == len(children):
            return named(name, tuple(fields))(*(fill(child, leaf) for child in children))
    raise ValueError(f"{plain!r} describes no structure")


@functools.cache
def named(name: str, fields: tuple[str, ...]) -> type:
    """The class of named tuples that stands for all of this name with these fields."""
    return namedtuple(name, fields)


def same(one: Plain, other: Plain) -> bool:
    """Whether two descriptions are of one structure; a container that could not be named equals a tuple."""
    return without_origin(one) == without_origin(other)


def without_origin(plain: Any) -> Any:
    if isinstance(plain, list):
        return [without_origin(item) for item in plain]
    if isinstance(plain, dict):
        return {key: without_origin(item) for key, item in plain.items() if key != "was"}
    return plain


def shown(plain: Plain) -> str:
    """A description as Python would write it, leaves as ``*``."""
    return written(plain, lambda: LEAF)


def written(plain: Any, leaf: Callable[[], str], key: Callable[[Any], str] = repr) -> str:
    """A description as Python would write it, with ``leaf()`` for one leaf after the other and ``key`` for keys."""
    match plain:
        case None:
            return "None"
        case str():
            return leaf()
        case {"tuple": children}:
            items = [written(child, leaf, key) for child in children]
            return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
        case {"list": children}:
            return f"[{', '.join(written(child, leaf, key) for child in children)}]"
        case {"dict": pairs}:
            return f"{{{', '.join(f'{key(name)}: {written(child, leaf, key)}' for name, child in pairs)}}}"
        case {"ordered dict": pairs}:
            return f"OrderedDict({{{', '.join(f'{key(name)}: {written(child, leaf, key)}' for name, child in pairs)}}})"
    pairs = zip(plain["fields"], plain["of"], strict=True)
    return f"{plain['namedtuple']}({', '.join(f'{name}={written(child, leaf, key)}' for name, child in pairs)})"
