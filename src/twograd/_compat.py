"""Everything of JAX that is not public API, in one place.

Only this module may import ``jax._src``. Each name states which internals it stands on, so that a new JAX release is
a matter of reading this file. Tested with JAX 0.10.
"""

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax._src import config as _config
from jax._src import core as _core
from jax._src import effects as _effects
from jax._src import literals as _literals
from jax._src import shard_map as _shard_map
from jax._src import source_info_util as _source_info_util
from jax._src.dispatch import ArrayCopySemantics
from jax._src.interpreters import ad as _ad
from jax._src.interpreters import mlir as _mlir
from jax._src.interpreters import partial_eval as _partial_eval
from jax._src.lax.control_flow.solves import _LinearSolveTuple
from jax._src.random import prng as _prng
from jax._src.random.prng import random_unwrap_p, random_wrap_p
from jax._src.state.discharge import discharge_state as _discharge_state
from jax._src.tree_util import FlatTree as _FlatTree
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive, Var, primitives
from jaxlib import _jax  # pyright: ignore[reportAttributeAccessIssue] - a compiled module

__all__ = [
    "DTYPE_PROMOTION",
    "MATMUL_PRECISION",
    "POLICIES",
    "POLICY_MAKERS",
    "RANDOM_IMPLEMENTATIONS",
    "X64",
    "ArrayCopySemantics",
    "LinearSolveTuple",
    "bind_again",
    "bind_shard_map",
    "body_of",
    "call_jaxpr",
    "called_here",
    "check_leaks",
    "consts_as_inputs",
    "custom_jvp_jaxpr",
    "custom_vjp_backward",
    "custom_vjp_forward",
    "differentiable_primitives",
    "discharge",
    "emitting",
    "evaluating",
    "fresh_var",
    "here",
    "is_plain_jit",
    "is_traced",
    "is_user_file",
    "keeping_spec",
    "keeps",
    "lasts",
    "like_varying",
    "line_of",
    "literal",
    "makes_references",
    "new_jaxpr",
    "on_behalf_of",
    "partitionable",
    "plain_jit_params",
    "policy_call",
    "primitives_by_name",
    "random_unwrap_p",
    "random_wrap_p",
    "scope_of",
    "scoped",
    "shaped",
    "stack_of",
    "standing",
    "transforms_of",
    "unmentioned_axes",
    "user_line",
    "user_stacklevel",
    "varies",
    "without_internal_effect",
    "without_unused_results",
]

NOWHERE = "<text>"
"""The file of an equation of which nobody knows where it comes from."""

# --- where an equation comes from -----------------------------------------------------------------------------------


class emitting:
    """A context in which equations are bound on behalf of ``eqn``: they carry its source line, and ``scope``.

    What is traced inside gets the traceback of ``eqn`` (so an error, a profile or a printed derivative names the
    user's own line) and its name stack, extended by ``scope`` where one is given. It is also how a replayed equation
    keeps its ``jax.default_matmul_precision`` and similar settings (``eqn.ctx``). Where these are in force already they
    are not entered again: to JAX that would be another context, for which it compiles everything anew.
    """

    __slots__ = ("_ctx", "_eqn", "_scope", "_user_context")

    def __init__(self, eqn: JaxprEqn, scope: str | None = None):
        self._eqn, self._scope = eqn, scope

    def __enter__(self) -> None:
        info = self._eqn.source_info
        names = _source_info_util.current_name_stack() + info.name_stack
        if self._scope is not None:
            names = names.extend(self._scope)
        self._user_context = _source_info_util.user_context(info.traceback, name_stack=names)
        self._user_context.__enter__()
        self._ctx = None if self._eqn.ctx is _core.JaxprEqnContext() else self._eqn.ctx.manager
        if self._ctx is not None:
            self._ctx.__enter__()

    def __exit__(self, *exc_info: Any) -> None:
        if self._ctx is not None:
            self._ctx.__exit__(*exc_info)
        self._user_context.__exit__(*exc_info)


def bind_again(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Applies the primitive of ``eqn`` to ``operands``, on behalf of ``eqn``; always a list.

    Where a jaxpr is being traced, and the operands have the types that ``eqn`` has already been checked for, the
    equation is repeated as it stands: what ``bind`` would find out (types, effects, bodies of custom rules) is known.
    """
    trace = _core.trace_ctx.trace
    if (
        type(trace) is _partial_eval.DynamicJaxprTrace
        and not eqn.effects
        and not trace.requires_low
        and not _config.eager_constant_folding.value
    ):
        names = _source_info_util.current_name_stack() + eqn.source_info.name_stack
        source = _source_info_util.SourceInfo(eqn.source_info.traceback, names)
        tracers = [trace.to_jaxpr_tracer(operand, source) for operand in operands]
        if all(tracer.aval is atom.aval for tracer, atom in zip(tracers, eqn.invars, strict=True)):
            out_avals = [var.aval for var in eqn.outvars]
            return trace.emit_eqn(tracers, out_avals, eqn.primitive, eqn.params, eqn.effects, source, eqn.ctx)
    with emitting(eqn):
        results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return list(results) if eqn.primitive.multiple_results else [results]


def scope_of(eqn: JaxprEqn) -> tuple[str, ...]:
    """The names of the scopes that ``eqn`` was emitted in, outermost first."""
    return tuple(getattr(scope, "name", "") for scope in eqn.source_info.name_stack.stack)


def transforms_of(eqn: JaxprEqn) -> tuple[str, ...]:
    """The names of the JAX transformations that emitted ``eqn``, outermost first."""
    stack = eqn.source_info.name_stack.stack
    return tuple(item.name for item in stack if isinstance(item, _source_info_util.Transform))


def user_line(eqn: JaxprEqn) -> str | None:
    """``file:line (function)`` of the user's call that made ``eqn``, or None where it is not known."""
    return line_of(eqn.source_info)


def here() -> Any:
    """The source of the running call: what an equation bound now would carry."""
    return _source_info_util.current()


def line_of(source: Any) -> str | None:
    """``file:line (function)`` of the user's frame in ``source``, or None where it is not known."""
    frame = _source_info_util.user_frame(source.traceback)
    if frame is None or frame.file_name == NOWHERE:
        return None
    return f"{frame.file_name}:{frame.start_line} ({frame.function_name})"


def on_behalf_of(source: Any, scope: str) -> Any:
    """A context in which equations carry the line of ``source``, an earlier :func:`here`, and the name ``scope``."""
    names = _source_info_util.current_name_stack().extend(scope)
    return _source_info_util.user_context(source.traceback, name_stack=names)


def body_of(eqn: JaxprEqn) -> Jaxpr:
    """The body of a ``jit`` equation, whose equations know the user's line.

    Tracebacks end at the jitted function, and its body is traced at the first call and cached. So in the body of one of
    JAX's own functions (``jnp.where`` is one) no line is the user's, and the line of the call is put there.
    """
    body = eqn.params["jaxpr"].jaxpr
    file = body.debug_info.func_filename
    if file is not None and _source_info_util.is_user_filename(file):
        return body
    return _at(body, eqn.source_info.traceback)


def called_here(body: Jaxpr) -> Jaxpr:
    """``body`` with the line of the running call in its equations, which know of none."""
    return _at(body, _source_info_util.current().traceback)


def _at(body: Jaxpr, traceback: Any) -> Jaxpr:
    eqns = [inner.replace(source_info=inner.source_info.replace(traceback=traceback)) for inner in body.eqns]
    return body.replace(eqns=eqns)


def scoped(inner: JaxprEqn, outer: JaxprEqn, scope: str) -> Any:
    """The source info of ``inner`` where it stands inside of ``outer``: its scopes follow those of ``outer``."""
    names = outer.source_info.name_stack.extend(scope) + inner.source_info.name_stack
    return inner.source_info.replace(name_stack=names)


def is_user_file(name: str) -> bool:
    """Whether frames of the file ``name`` are the user's, and not JAX's or this package's."""
    return _source_info_util.is_user_filename(name)


def user_stacklevel() -> int:
    """The ``stacklevel`` with which ``warnings.warn``, called by the caller, blames the user's innermost line."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and not is_user_file(frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    return level


def stack_of(eqn: JaxprEqn) -> tuple[tuple[bool, str], ...]:
    """The scopes of ``eqn``, outermost first: whether each is of a JAX transformation, and its name."""
    stack = eqn.source_info.name_stack.stack
    return tuple((isinstance(item, _source_info_util.Transform), item.name) for item in stack)


def standing(stack: Sequence[tuple[bool, str]], where: tuple[str, int, str] | None) -> Any:
    """A context in which equations are bound as if in these scopes, at this file, line and function."""
    kinds = {True: _source_info_util.Transform, False: _source_info_util.Scope}
    names = _source_info_util.NameStack(tuple(kinds[transform](name) for transform, name in stack))
    return _source_info_util.user_context(_traceback_at(*(where or (NOWHERE, 1, ""))), name_stack=names)


@functools.lru_cache(maxsize=4096)
def _traceback_at(file: str, line: int, function: str) -> Any:
    """A traceback whose innermost frame is at this place: that of a function which says that it stands there."""
    code = _take_traceback.__code__.replace(co_filename=file, co_firstlineno=line, co_qualname=function)
    return types.FunctionType(code, globals())()


_take_traceback = lambda: _jax.Traceback.get_traceback()  # noqa: E731, PLW0108 - its first line is the line of its call


def partitionable(eqn: JaxprEqn) -> bool:
    """Whether the random bits of ``eqn`` are those of JAX's default, ``jax_threefry_partitionable``."""
    return eqn.ctx.threefry_partitionable


# Frames of this package are not the user's: what is blamed is the line that called it.
_source_info_util.register_exclusion(str(Path(__file__).parent))
_source_info_util.register_inclusion(str(Path(__file__).parent / "comparisons"))  # programs, which a wheel has there


# --- tracing --------------------------------------------------------------------------------------------------------


def is_traced() -> bool:
    """Whether some JAX transformation is tracing the calling code just now."""
    return not _core.trace_state_clean()


def check_leaks(values: Sequence[Any]) -> None:
    """Raises JAX's UnexpectedTracerError for a tracer among ``values`` where no trace is going on."""
    for value in () if is_traced() else values:
        if isinstance(value, _core.Tracer):
            raise _core.escaped_tracer_error(value)


def evaluating() -> Any:
    """A context in which operations on arrays are executed, whatever transformation is tracing the calling code.

    Unlike ``jax.ensure_compile_time_eval`` it leaves operations without operands (``axis_index``) to what is tracing
    inside of it.
    """
    return _core.eval_context()


# Settings that change what a function is traced to; ``.value`` is this thread's.
MATMUL_PRECISION = _config.default_matmul_precision
DTYPE_PROMOTION = _config.numpy_dtype_promotion
# ``X64.value`` says whether 64-bit types are enabled in this thread; cheaper than ``jax.config.jax_enable_x64``.
X64 = _config.enable_x64


def shaped(aval: Any) -> Any:
    """``aval`` without what does not belong to a signature."""
    return _core.typeof(aval) if not isinstance(aval, _core.AbstractValue) else aval


def fresh_var(aval: Any) -> Var:
    """A new variable of a jaxpr."""
    return Var(aval)


def literal(value: Any, aval: Any) -> Literal:
    """``value``, an array of the type ``aval``, as an atom that stands in an equation itself."""
    return Literal(_literals.TypedNdArray(np.asarray(value, aval.dtype), aval), aval)


def is_plain_jit(eqn: JaxprEqn) -> bool:
    """Whether a ``jit`` equation says no more than that its body may be compiled.

    It does say more where it has shardings, layouts or compiler options, or where its effects name its operands.
    """
    plain = _jit_params()
    uniform = ("in_shardings", "out_shardings", "in_layouts", "out_layouts")
    return (
        all(value == plain[key][0] for key in uniform for value in eqn.params[key])
        and all(eqn.params[key] == plain[key] for key in ("ctx_mesh", "compiler_options_kvs"))
        and not any(hasattr(effect, "input") for effect in eqn.effects)
    )


def without_unused_results(eqn: JaxprEqn, used: Sequence[bool]) -> JaxprEqn:
    """``eqn`` without those results that are not ``used``, and without the operands that only they need.

    The same object where nothing can go: few primitives can do with less, those of loops, branches and calls.
    """
    if all(used) or not any(used) or eqn.primitive not in _partial_eval.dce_rules:
        return eqn
    _, smaller = _partial_eval.dce_rules[eqn.primitive](list(used), eqn)
    if smaller is None or (len(smaller.outvars), len(smaller.invars)) == (len(eqn.outvars), len(eqn.invars)):
        return eqn
    return smaller


def new_jaxpr(like: Jaxpr, **changes: Any) -> Jaxpr:
    """A copy of ``like`` with some fields changed; its effects are recomputed from its equations.

    The names of inputs and outputs stay where their numbers do.
    """
    if all(len(changes.get(ends, ())) in (0, len(getattr(like, ends))) for ends in ("invars", "outvars")):
        changes.setdefault("debug_info", like.debug_info)
    jaxpr = like.replace(**changes)
    effects = _partial_eval.make_jaxpr_effects(jaxpr.constvars, jaxpr.invars, jaxpr.outvars, jaxpr.eqns)
    return jaxpr.replace(effects=effects)


# --- the parameters of JAX's custom derivative calls ------------------------------------------------------------------


def custom_jvp_jaxpr(params: dict[str, Any], zeros: Sequence[bool]) -> tuple[ClosedJaxpr, list[bool]]:
    """The user's JVP rule inside a ``custom_jvp_call`` equation, as a jaxpr.

    ``zeros`` says per operand (after the ``num_consts`` first) whether its tangent is symbolically zero. The jaxpr maps
    ``(*primals, *nonzero_tangents)`` to ``(*primals_out, *nonzero_tangents_out)``; the list says which outputs have a
    zero tangent.
    """
    jaxpr, consts, out_zeros = params["jvp_jaxpr_fun"].call_wrapped(*zeros)
    return ClosedJaxpr(jaxpr, consts), list(out_zeros)


def custom_vjp_forward(params: dict[str, Any], nonzeros: Sequence[bool]) -> tuple[ClosedJaxpr, list[int | None], int]:
    """The user's forward rule inside a ``custom_vjp_call`` equation: primals -> ``(*residuals, *primals_out)``.

    The list says for each residual whether it is one of the operands (its index) or an output of the jaxpr (None); the
    integer is how many of the jaxpr's outputs are residuals.
    """
    jaxpr, consts = params["fwd_jaxpr_thunk"].call_wrapped(*nonzeros)
    _, residual_tree, forwarded = params["out_trees"]()
    num_residuals = residual_tree.num_leaves - sum(index is not None for index in forwarded)
    return ClosedJaxpr(jaxpr, consts), list(forwarded), num_residuals


def custom_vjp_backward(params: dict[str, Any], residuals: Sequence[Any], cts: Sequence[Any]) -> list[Any]:
    """Calls the user's backward rule; a symbolic zero comes back as None."""
    if params["symbolic_zeros"]:
        avals = params["call_jaxpr"].out_avals
        cts = [
            jax.custom_derivatives.SymbolicZero(aval.to_ct_aval()) if ct is None else ct
            for ct, aval in zip(cts, avals, strict=True)
        ]
    with jax.ensure_compile_time_eval():  # a constant, which the user's rule may index by a tracer
        residuals = [jax.numpy.asarray(x) if isinstance(x, np.ndarray) and np.ndim(x) else x for x in residuals]
    results = params["bwd"].call_wrapped(*residuals, *cts)
    return [None if isinstance(ct, (_ad.Zero, jax.custom_derivatives.SymbolicZero)) else ct for ct in results]


def keeps(verdict: Any) -> tuple[bool, tuple[Any, Any] | None]:
    """What the policy of a ``jax.checkpoint`` says of a value: whether to keep it, and where.

    The pair are the memory spaces to move it to and to bring it back to; None where it stays.
    """
    case = _partial_eval.ensure_enum(verdict)
    if isinstance(case, _partial_eval.Offloadable):
        return True, (_core.mem_kind_to_space(case.dst), _core.mem_kind_to_space(case.src))
    return isinstance(case, _partial_eval.SaveableType), None


POLICIES: dict[str, Any] = vars(jax.checkpoint_policies)
POLICY_MAKERS = {name: make for name, make in POLICIES.items() if name.startswith(("save_", "offload_"))}
"""Those that are no policies, but return one."""


def policy_call(policy: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]] | None:
    """A policy as it is made of ``jax.checkpoint_policies``: a name there, and what it is called with, if it is.

    None for any other. JAX's makers return records and closures, which have what they were called with.
    """
    for name, known in POLICIES.items():
        if policy is known or (dataclasses.is_dataclass(known) and policy == known):
            return name, (), {}
    for name in ("save_only_these_names", "save_any_names_but_these"):
        if type(policy) is type(POLICIES[name]("")) and dataclasses.is_dataclass(policy):
            (names,) = vars(policy).values()
            return name, tuple(sorted(names)), {}
    maker, inside, _ = getattr(policy, "__qualname__", "").partition(".<locals>.")
    if not inside or maker not in POLICIES or policy.__module__ != POLICIES[maker].__module__:
        return None
    held = inspect.getclosurevars(policy).nonlocals
    args: list[Any] = []
    options: dict[str, Any] = {}
    for parameter in inspect.signature(POLICIES[maker]).parameters.values():
        if parameter.name not in held:
            return None
        value = held[parameter.name]
        value = tuple(sorted(value)) if isinstance(value, (set, frozenset)) else value
        if parameter.kind is parameter.KEYWORD_ONLY:
            options[parameter.name] = value
        else:
            args += value if parameter.kind is parameter.VAR_POSITIONAL else [value]
    return maker, tuple(args), options


def lasts(effects: Any) -> bool:
    """Whether what has these effects may not be evaluated again: it reads or writes references, or does more than tell.

    JAX's list of what a ``jax.checkpoint`` may hold has references too, which it reads again.
    """
    return any(
        isinstance(effect, _effects.JaxprInputEffect) or not _effects.remat_allowed_effects.contains(effect)
        for effect in effects
    )


# --- shard_map --------------------------------------------------------------------------------------------------------


def bind_shard_map(
    eqn: JaxprEqn,
    body: Callable[..., tuple[Sequence[Any], Sequence[Any]]],
    operands: Sequence[Any],
    in_specs: Sequence[Any],
) -> list[Any]:
    """Maps another body over the same mesh as the ``shard_map`` equation ``eqn`` does.

    ``body(*blocks)`` returns the results and their ``PartitionSpec``s, which may depend on what it has traced.
    """

    def traced(*blocks):
        results, out_specs = body(*blocks)
        return _FlatTree.flatten(list(results)).with_aux(tuple(out_specs))

    results = eqn.primitive.bind(
        *operands,
        subfuns=(traced,),
        mesh=eqn.params["mesh"],
        in_specs=tuple(in_specs),
        check_vma=eqn.params["check_vma"],
        newly_manual_axes=eqn.params["newly_manual_axes"],
        debug_info=eqn.params["jaxpr"].debug_info.with_unknown_names(),
    )
    return list(results)


def unmentioned_axes(eqn: JaxprEqn, spec: Any) -> tuple[Any, ...]:
    """The axes that a ``shard_map`` equation maps over and over which ``spec`` does not split an array."""
    return tuple(_shard_map._unmentioned2(eqn.params["mesh"], spec, eqn.params["newly_manual_axes"]))


def keeping_spec(eqn: JaxprEqn) -> Callable[[Any], Any]:
    """The ``PartitionSpec`` with which a block of the given type leaves a ``shard_map``, whatever differs kept.

    In one ``shard_map`` inside of another a block may differ along axes of the outer one, too, which are not its own.
    """
    mesh, check = eqn.params["mesh"], eqn.params["check_vma"]
    names = _shard_map._all_newly_manual_mesh_names(mesh, eqn.params["newly_manual_axes"])

    def spec_of(aval):
        axes = [axis for part in aval.nospec(mesh, check, names) for axis in _listed(part) if axis in names]
        return jax.sharding.PartitionSpec(tuple(axes)) if axes else jax.sharding.PartitionSpec()

    return spec_of


def _listed(part: Any) -> tuple[Any, ...]:
    """What an entry of a ``PartitionSpec`` names: no axis, one, or several."""
    return () if part is None else part if isinstance(part, tuple) else (part,)


def like_varying(value: Any, aval: Any) -> Any:
    """``value``, the same on all devices of a ``shard_map``, cast to differ along the axes that ``aval`` differs along.

    Nothing moves. Where types are tracked, operands have to differ along the same axes.
    """
    axes = tuple(aval.mat.varying) if isinstance(aval, _core.ShapedArray) else ()
    return jax.lax.pcast(value, axes, to="varying") if axes else value


def varies(aval: Any) -> bool:
    """Whether values of this type are tracked to differ between the devices of a ``shard_map``."""
    return bool(aval.mat.varying)


# --- references -------------------------------------------------------------------------------------------------------


def makes_references(effects: Any) -> bool:
    """Whether a jaxpr or an equation with these effects makes mutable references of its own."""
    return _core.internal_mutable_array_effect in effects


def without_internal_effect(eqn: JaxprEqn) -> JaxprEqn:
    """``eqn``, not telling that it makes references inside."""
    return eqn.replace(effects=eqn.effects - {_core.internal_mutable_array_effect})


def discharge(closed: ClosedJaxpr, operands: bool) -> ClosedJaxpr:
    """``closed`` as a function of values, by JAX's own state discharge: what is written is handed on.

    References that ``closed`` makes become values; with ``operands``, so do those it is given, whose last values are
    then its last results.
    """
    pure = _discharge_state(closed, should_discharge=operands, lower=False)
    return pure.replace(jaxpr=pure.jaxpr.replace(debug_info=closed.jaxpr.debug_info))


# --- primitives and parameters by name --------------------------------------------------------------------------------


def primitives_by_name() -> dict[str, Primitive]:
    """Every primitive that JAX, or a library that is imported, can lower or differentiate."""
    tables = (_mlir._lowerings, *_mlir._platform_specific_lowerings.values(), _ad.primitive_jvps)
    public = [getattr(primitives, name) for name in dir(primitives) if name.endswith("_p")]
    return {primitive.name: primitive for primitive in [*(p for table in tables for p in table), *public]}


RANDOM_IMPLEMENTATIONS: dict[str, Any] = _prng.prngs
LinearSolveTuple = _LinearSolveTuple


# --- what JAX itself can differentiate --------------------------------------------------------------------------------


def differentiable_primitives() -> set[Primitive]:
    """The primitives of ``jax.interpreters.ad``'s tables."""
    return set(_ad.primitive_jvps) | set(_ad.primitive_transposes)


# --- calling a jaxpr without tracing it again -------------------------------------------------------------------------


@functools.cache
def _jit_params() -> dict[str, Any]:
    """The parameters of the plainest ``jit`` equation, whatever this JAX release has there."""
    closed = jax.make_jaxpr(jax.jit(lambda x: (x,)))(0.0)
    return dict(closed.jaxpr.eqns[0].params)


def call_jaxpr(closed: ClosedJaxpr, args: Sequence[Any], name: str) -> list[Any]:
    """Calls ``closed`` as one ``jit`` equation: lowering takes the jaxpr as it is, without tracing it again."""
    if any(isinstance(const, _core.Tracer) for const in closed.consts):
        closed, args = consts_as_inputs(closed), [*closed.consts, *args]
    return primitives.jit_p.bind(*args, **plain_jit_params(closed, name))


def plain_jit_params(closed: ClosedJaxpr, name: str) -> dict[str, Any]:
    """The parameters of a ``jit`` equation that says no more than to call ``closed``."""
    params = dict(_jit_params(), jaxpr=closed, name=name)
    for per_operand in ("in_shardings", "in_layouts", "donated_invars"):
        params[per_operand] = params[per_operand] * len(closed.in_avals)
    for per_result in ("out_shardings", "out_layouts"):
        params[per_result] = params[per_result] * len(closed.out_avals)
    return params


def consts_as_inputs(closed: ClosedJaxpr) -> ClosedJaxpr:
    """``closed`` with its constants as its first arguments: a lowered jaxpr cannot hold somebody's tracer."""
    jaxpr = closed.jaxpr
    info = jaxpr.debug_info._replace(arg_names=None)
    invars = [*jaxpr.constvars, *jaxpr.invars]
    return ClosedJaxpr(new_jaxpr(jaxpr, constvars=[], invars=invars, debug_info=info), ())
