"""Linear algebra: factorisations, eigenvalues, singular values and solves of the matrices on the last two axes.

Most formulas are published for the gradient Ḡ of a real loss ℓ in a matrix G, dℓ = Re tr(Ḡᴴ dG). A cotangent here is
its conjugate (see ``registry.py``: nothing is conjugated in a pairing), so that the rules for complex matrices begin
and end with :func:`conjugated`, which leaves real ones alone. Nearly all of them need nothing but the results.

What a factorisation leaves open is chosen, and therefore differentiated, as in JAX: the phases of eigenvectors and
singular vectors, and the columns that complete an orthogonal factor. A Hermitian operand is taken as it stands: that
only its Hermitian part counts is the business of ``symmetrize_input``. Where eigenvalues or singular values coincide
there is no derivative of their vectors: it is infinite or NaN, and that of the values is the one along the vectors that
were found.

Read :func:`cholesky_x` first, then :func:`eigh_x`.
"""

import numpy as np
from jax import lax
from jax.lax import (
    GatherDimensionNumbers,
    GatherScatterMode,
    add,
    broadcast,
    broadcast_in_dim,
    broadcasted_iota,
    concatenate,
    conj,
    convert_element_type,
    div,
    eq,
    expand_dims,
    full_like,
    ge,
    gt,
    imag,
    le,
    mul,
    ne,
    neg,
    pad,
    real,
    reduce_sum,
    select,
    slice_in_dim,
    sub,
)
from jax.lax.linalg import (
    cholesky_p,
    cholesky_update_p,
    eig_p,
    eigh_p,
    hessenberg_p,
    householder_product_p,
    lu_p,
    lu_pivots_to_permutation_p,
    ormqr_p,
    qr_p,
    schur_p,
    svd_p,
    symmetric_product_p,
    triangular_solve,
    triangular_solve_p,
    tridiagonal_p,
    tridiagonal_solve_p,
)

from twograd._compat import bind_again
from twograd.errors import NoRule
from twograd.rules.common import constant, is_complex, nonzero, real_if, where
from twograd.rules.indexing import written_as
from twograd.rules.registry import nondifferentiable, refused, vjp, vjp_call

# --- matrices on the last two axes ------------------------------------------------------------------------------------


def conjugated(x):
    """The complex conjugate of x; x itself if it is real."""
    return conj(x) if is_complex(x.dtype) else x


def transposed(x):
    """xᵀ."""
    return lax.transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def adjoint(x):
    """xᴴ."""
    return conjugated(transposed(x))


def dot(x, y):
    """The product of matrices, in full precision."""
    return lax.batch_matmul(x, y, precision=lax.Precision.HIGHEST)


def places(compare, x):
    """Where ``compare(row, column)`` holds in the matrices x."""
    row, column = (broadcasted_iota(np.int32, x.shape[-2:], axis) for axis in (0, 1))
    return broadcast(compare(row, column), x.shape[:-2])


def tril(x):
    """The lower triangle of x."""
    return where(places(ge, x), x)


def triu(x):
    """The upper triangle of x."""
    return where(places(le, x), x)


def half_tril(x):
    """The lower triangle of x with half the diagonal: its sum with its adjoint is Hermitian."""
    return mul(tril(x), select(places(eq, x), full_like(x, 0.5), full_like(x, 1)))


def diagonal(x):
    """The diagonals of x, as vectors."""
    return reduce_sum(where(places(eq, x), x), [x.ndim - 1])


def with_diagonal(x, d):
    """x, with the diagonal of the matrices d."""
    return select(places(eq, x), d, x)


def by_column(d, x):
    """The vectors d, an element for each column of x, in the shape and dtype of x."""
    return broadcast_in_dim(convert_element_type(d, x.dtype), x.shape, [*range(x.ndim - 2), x.ndim - 1])


def by_row(d, x):
    """The vectors d, an element for each row of x, in the shape and dtype of x."""
    return broadcast_in_dim(convert_element_type(d, x.dtype), x.shape, range(x.ndim - 1))


def off_diagonal_reciprocal(x):
    """1 / x off the diagonal, and 0 on it."""
    return where(places(ne, x), div(constant(x, 1), with_diagonal(x, full_like(x, 1))))


def rows_of(rank):
    """The dimension numbers of a gather of whole rows, each matrix having indices of its own."""
    batch = tuple(range(rank - 2))
    return GatherDimensionNumbers(
        offset_dims=(rank - 1,),
        collapsed_slice_dims=(rank - 2,),
        start_index_map=(rank - 2,),
        operand_batching_dims=batch,
        start_indices_batching_dims=batch,
    )


def permuted(x, permutation):
    """Row i is row ``permutation[i]`` of x."""
    return lax.gather(
        x,
        expand_dims(permutation, [permutation.ndim]),
        rows_of(x.ndim),
        slice_sizes=(*[1] * (x.ndim - 1), x.shape[-1]),
        unique_indices=True,
        mode=GatherScatterMode.PROMISE_IN_BOUNDS,
    )


def permuted_back(x, permutation):
    """Row ``permutation[i]`` is row i of x."""
    return lax.scatter(
        full_like(x, 0),
        expand_dims(permutation, [permutation.ndim]),
        x,
        written_as(rows_of(x.ndim)),
        unique_indices=True,
        mode=GatherScatterMode.PROMISE_IN_BOUNDS,
    )


def solve(a, b):
    """a⁻¹ b, by a's LU factorisation."""
    factors, _, permutation = lax.linalg.lu(a)
    b = triangular_solve(factors, permuted(b, permutation), left_side=True, lower=True, unit_diagonal=True)
    return triangular_solve(factors, b, left_side=True)


# --- triangular factors -----------------------------------------------------------------------------------------------


def cholesky_x(ct, out):
    """X̄ = L⁻ᴴ Φ(Lᴴ L̄) L⁻¹ for X = L Lᴴ, where Φ takes the lower triangle and half of the diagonal.

    I. Murray, Differentiation of the Cholesky decomposition, arXiv:1602.07527 (2016), section 3.
    """
    inner = half_tril(dot(transposed(tril(out)), ct))
    inner = triangular_solve(out, inner, left_side=True, lower=True, transpose_a=True)
    return triangular_solve(out, inner, lower=True, conjugate_a=True)


def lu_x(ct, outs):
    """P X̄ = L⁻ᵀ (tril₋₁(Lᵀ ct) + triu(ct Uᵀ)) U⁻ᵀ for P X = L U, both factors padded to squares with the identity.

    The transpose of F. de Hoog, R. Anderssen and M. Lukas, Differentiation of matrix functionals using triangular
    factorization, Mathematics of Computation 80 (2011).
    """
    factors, _, permutation = outs
    if ct.size == 0:
        return None
    lower, upper = unit_lower(factors), full_upper(factors)
    below = add(ct, dot(transposed(where(places(gt, lower), lower)), ct))
    inner = select(places(gt, ct), below, dot(ct, transposed(upper)))
    inner = triangular_solve(upper, inner, transpose_a=True)
    inner = triangular_solve(lower, inner, left_side=True, lower=True, transpose_a=True, unit_diagonal=True)
    return permuted_back(inner, permutation)


def unit_lower(factors):
    """The factors of an LU factorisation as a square whose lower triangle is L; the ones are not written."""
    m, n = factors.shape[-2:]
    return factors if m == n else resized(factors, m, m)


def full_upper(factors):
    """The factor U, as a square with ones on the new diagonal."""
    m, n = factors.shape[-2:]
    upper = triu(resized(factors, n, n) if m != n else factors)
    if m < n:
        upper = select(places(lambda row, column: (row == column) & (row >= m), upper), full_like(upper, 1), upper)
    return upper


def resized(x, *shape):
    """x cut, or padded with zeros, at the end of its last two axes."""
    config = [(0, after - before, 0) for before, after in zip(x.shape[-2:], shape, strict=True)]
    return pad(x, constant(x, 0), [(0, 0, 0)] * (x.ndim - 2) + config)


vjp(cholesky_p, x=cholesky_x)
vjp(lu_p, x=lu_x)

# --- an orthogonal factor and a triangular one ------------------------------------------------------------------------


def qr_x(cts, outs, *, pivoting, full_matrices):
    """X̄ = (Q̄ + Q (Φ(M) + Φ(M)ᴴ)) R⁻ᴴ with M = R R̄ᴴ - Q̄ᴴ Q for X = Q R; see :func:`qr_square`.

    F. and L. Roberts, QR and LQ decomposition matrix backpropagation algorithms for square, wide, and deep matrices,
    arXiv:2009.10071 (2020). A wide X = [X₁ X₂] has R₂ = Qᴴ X₂ beside the QR factorisation of X₁.
    """
    q, r, *permutation = outs
    if q.size == 0 or r.size == 0:
        return None
    q_bar, r_bar = (full_like(x, 0) if ct is None else conjugated(ct) for x, ct in zip((q, r), cts, strict=False))
    m, n = q.shape[-2], r.shape[-1]
    if m < n:
        (r, rest), (r_bar, rest_bar) = (split_columns(x, m) for x in (r, r_bar))
        q_bar = add(q_bar, dot(q, dot(rest, adjoint(rest_bar))))
        x_bar = concatenate([qr_square(q, r, q_bar, r_bar), dot(q, rest_bar)], q.ndim - 1)
    else:
        if full_matrices and m > n:
            q, q_bar = without_completion(q, q_bar, n)
            r, r_bar = resized(r, n, n), resized(r_bar, n, n)
        x_bar = qr_square(q, r, q_bar, r_bar)
    if pivoting:
        x_bar = transposed(permuted_back(transposed(x_bar), permutation[0]))
    return conjugated(x_bar)


def qr_square(q, r, q_bar, r_bar):
    """The formula of :func:`qr_x` for a square R."""
    inner = half_tril(sub(dot(r, adjoint(r_bar)), dot(adjoint(q_bar), q)))
    inner = add(q_bar, dot(q, add(inner, adjoint(inner))))
    return triangular_solve(r, inner, transpose_a=True, conjugate_a=True)


def without_completion(q, q_bar, n):
    """The first n columns of Q, and their gradient, which is also that by way of the columns which complete Q.

    With Q = [Q₁ Q₂] and an index t or b for the top n rows or those below, Householder's completion moves as

        dQ₂ = dQ₁ Zᴴ - (Q₁ + Q₂ Z) (dQ₁b - Z dQ₁t)ᴴ,   Z = Q₁b (Q₁t - I)⁻¹

    (arXiv:2409.13374, equations 32 and 33).
    """
    (first, completion), (first_bar, completion_bar) = split_columns(q, n), split_columns(q_bar, n)
    top, bottom = (slice_in_dim(first, *ends, axis=q.ndim - 2) for ends in ((0, n), (n, None)))
    z_adjoint = solve(adjoint(with_diagonal(top, sub(top, full_like(top, 1)))), adjoint(bottom))
    z = adjoint(z_adjoint)
    below = dot(adjoint(completion_bar), add(first, dot(completion, z)))
    moved = concatenate([dot(z_adjoint, below), neg(below)], q.ndim - 2)
    return first, add(first_bar, add(dot(completion_bar, z), moved))


def split_columns(x, n):
    """The first n columns of x, and the others."""
    return slice_in_dim(x, 0, n, axis=x.ndim - 1), slice_in_dim(x, n, None, axis=x.ndim - 1)


vjp(qr_p, x=qr_x)

# --- eigenvalues ------------------------------------------------------------------------------------------------------


def eigh_x(cts, outs, *, subset_by_index):
    """X̄ = V (diag(w̄) + F ∘ VᴴV̄) Vᴴ with F[i, j] = 1 / (w[j] - w[i]) off the diagonal, for X = V diag(w) Vᴴ.

    M. Giles, Collected matrix derivative results for forward and reverse mode algorithmic differentiation (2008),
    section 3.1. The vectors of some of the eigenvalues move towards those of the others, which are not known.
    """
    (ct_v, ct_w), (v, w) = cts, outs
    if ct_v is None:
        return conjugated(dot(mul(v, by_column(ct_w, v)), adjoint(v)))
    if subset_by_index is not None and v.shape[-1] < v.shape[-2]:
        raise NotImplementedError("eigenvectors have a derivative only where all are asked for, without a subset")
    inner = dot(adjoint(v), conjugated(ct_v))
    gaps = sub(by_column(w, inner), by_row(w, inner))
    inner = mul(off_diagonal_reciprocal(gaps), inner)
    if ct_w is not None:
        inner = with_diagonal(inner, by_column(ct_w, inner))
    return conjugated(dot(dot(v, inner), adjoint(v)))


def eig_forward(eqn, operands, wanted):
    """Computes the right eigenvectors, which the derivative needs, in any case.

    Where only eigenvalues are asked for, their second derivatives are sums over vectors of any phase, and allowed.
    """
    params = dict(eqn.params, compute_right_eigenvectors=True)
    if len(eqn.outvars) == 1:
        params["enable_eigvec_derivs"] = True
    outs = eig_p.bind(*operands, **params)
    return outs[: len(eqn.outvars)], outs


def eig_backward(eqn, outs, cts, wanted):
    """X̄ = V⁻ᴴ (diag(w̄) + F* ∘ VᴴU) Vᴴ; U is the gradient of the vectors as far as their norm and phase let them move.

    C. Boeddeker et al., On the computation of complex-valued gradients with application to statistically optimum
    beamforming, arXiv:1701.00392 (2017), section 4.19; F as in :func:`eigh_x`. Left eigenvectors are the right ones
    of Xᴴ, whose eigenvalues are conjugate.
    """
    w, right = outs[0], outs[-1]
    if right.size == 0:
        return [None]
    ct_w = cts[0]
    ct_left = cts[1] if eqn.params["compute_left_eigenvectors"] else None
    ct_right = cts[-1] if eqn.params["compute_right_eigenvectors"] else None
    if not (eqn.params["enable_eigvec_derivs"] or ct_left is ct_right is None):
        raise NoRule(
            eqn,
            "eigenvectors of a matrix that need not be Hermitian have a derivative only where no eigenvalues coincide; "
            "to say that none do, call jax.lax.linalg.eig(..., enable_eigvec_derivs=True)",
        )
    if ct_w is not None or ct_right is not None:
        total = eig_bar(w, right, ct_w, ct_right)
        if ct_left is not None:
            total = add(total, adjoint(eig_bar(conj(w), outs[1], None, ct_left)))
    else:
        total = adjoint(eig_bar(conj(w), outs[1], None, ct_left))
    aval = eqn.invars[0].aval
    return [convert_element_type(real_if(conj(total), aval), aval.dtype)]


def eig_bar(w, v, ct_w, ct_v):
    """X̄ by way of the eigenvalues w and the right eigenvectors v; see :func:`eig_backward`."""
    if ct_v is None:
        return solve(adjoint(v), mul(by_row(conj(ct_w), v), adjoint(v)))
    inner = dot(adjoint(v), tangential(v, conj(ct_v)))
    gaps = sub(by_column(w, inner), by_row(w, inner))
    inner = mul(conj(off_diagonal_reciprocal(gaps)), inner)
    if ct_w is not None:
        inner = with_diagonal(inner, by_column(conj(ct_w), inner))
    return solve(adjoint(v), dot(inner, adjoint(v)))


def tangential(v, v_bar):
    """The gradient of vectors before they are scaled to norm 1, and turned so that their largest element is real."""
    overlap = reduce_sum(mul(conj(v), v_bar), [v.ndim - 2])
    largest = lax.argmax(lax.abs(v), v.ndim - 2, np.int32)
    largest = eq(broadcasted_iota(np.int32, v.shape, v.ndim - 2), broadcast_like(largest, v))
    size = select(largest, real(v), full_like(real(v), 1))
    turn = lax.complex(full_like(size, 0), where(largest, div(by_column(imag(overlap), size), size)))
    return sub(sub(v_bar, mul(by_column(real(overlap), v), v)), turn)


def broadcast_like(index, x):
    """Integers, one for each column of x, in the shape of x."""
    return broadcast_in_dim(index, x.shape, [*range(x.ndim - 2), x.ndim - 1])


vjp(eigh_p, x=eigh_x)
vjp_call(eig_p, eig_forward, eig_backward)

# --- singular values --------------------------------------------------------------------------------------------------


def svd_forward(eqn, operands, wanted):
    """Computes the singular vectors, which the derivative needs, in any case."""
    if eqn.params["compute_uv"]:
        outs = bind_again(eqn, operands)
    else:
        outs = svd_p.bind(*operands, **dict(eqn.params, compute_uv=True, full_matrices=False))
    return outs[: len(eqn.outvars)], outs


def svd_backward(eqn, outs, cts, wanted):
    """X̄ = U (diag(s̄ + i Im(UᴴŪ) / s) + (F ∘ A) S + S (F ∘ B)) Vᴴ, and more if X = U S Vᴴ is not square; S = diag(s).

    A = UᴴŪ - ŪᴴU, B = VᴴV̄ - V̄ᴴV, and F[i, j] = 1 / (s[j]² - s[i]²) off the diagonal. A tall X has beside it the part
    of Ū that is orthogonal to U, (Ū - U UᴴŪ) S⁻¹ Vᴴ; a wide X likewise U S⁻¹ (V̄ - V VᴴV̄)ᴴ.

    M. Giles, Collected matrix derivative results for forward and reverse mode algorithmic differentiation (2008),
    section 3.2; for complex X: Z. Wan and S. Zhang, Automatic differentiation for complex valued SVD, arXiv:1909.02659
    (2019), where the phase, which is one for each pair of vectors, moves U alone as in JAX.
    """
    s, u, vh = outs
    ct_s, ct_u, ct_vh = cts if len(cts) == 3 else (*cts, None, None)
    m, n, rank = u.shape[-2], vh.shape[-1], s.shape[-1]
    if rank == 0:
        return [None]
    if ct_u is None and ct_vh is None:
        u, vh = resized(u, m, rank), resized(vh, rank, n)
        return [conjugated(dot(mul(u, by_column(ct_s, u)), vh))]
    refuse_svd(eqn, m, n, rank, ct_u, ct_vh)
    u, v = resized(u, m, rank), adjoint(resized(vh, rank, n))
    u_bar = full_like(u, 0) if ct_u is None else resized(conjugated(ct_u), m, rank)
    v_bar = full_like(v, 0) if ct_vh is None else resized(transposed(ct_vh), n, rank)
    of_u, of_v = dot(adjoint(u), u_bar), dot(adjoint(v), v_bar)
    skew_u, skew_v = sub(of_u, adjoint(of_u)), sub(of_v, adjoint(of_v))
    across, down = (by(s, of_u) for by in (by_column, by_row))
    gaps = mul(add(across, down), sub(across, down))
    f = off_diagonal_reciprocal(gaps)
    inner = add(mul(mul(f, skew_u), across), mul(down, mul(f, skew_v)))
    slope = div(mul(diagonal(skew_u), constant(skew_u, 0.5)), convert_element_type(nonzero(s), skew_u.dtype))
    if ct_s is not None:
        slope = add(slope, convert_element_type(ct_s, slope.dtype))
    inner = with_diagonal(inner, by_column(slope, inner))
    x_bar = dot(u, inner)
    if m > n:
        x_bar = add(x_bar, div(sub(u_bar, dot(u, of_u)), by_column(s, u)))
    x_bar = dot(x_bar, adjoint(v))
    if m < n:
        x_bar = add(x_bar, dot(u, adjoint(div(sub(v_bar, dot(v, of_v)), by_column(s, v)))))
    return [conjugated(x_bar)]


def refuse_svd(eqn, m, n, rank, ct_u, ct_vh):
    """Raises NoRule where vectors have a cotangent that have no derivative."""
    if rank < min(m, n):
        raise NoRule(eqn, "singular vectors have a derivative only where all are asked for, without a subset")
    if eqn.params["full_matrices"] and (ct_u is not None if m > n else ct_vh is not None and m < n):
        raise NoRule(
            eqn, "the vectors that complete a factor to a square are not determined; pass full_matrices=False to svd"
        )


vjp_call(svd_p, svd_forward, svd_backward)

# --- solves -----------------------------------------------------------------------------------------------------------


def triangular_solve_b(ct, a, *, left_side, lower, transpose_a, conjugate_a, unit_diagonal):
    """op(A)⁻ᵀ ct, or ct op(A)⁻ᵀ: the solution is linear in the right-hand side."""
    return triangular_solve_p.bind(
        a,
        ct,
        left_side=left_side,
        lower=lower,
        transpose_a=not transpose_a,
        conjugate_a=conjugate_a,
        unit_diagonal=unit_diagonal,
    )


def triangular_solve_a(ct, a, out, *, left_side, lower, transpose_a, conjugate_a, unit_diagonal):
    """-b̄ Xᵀ for op(A) X = B, or -Xᵀ b̄ for X op(A) = B, taken through op: only the triangle counts.

    M. Giles, Collected matrix derivative results for forward and reverse mode algorithmic differentiation (2008),
    section 2.3.1.
    """
    how = {"left_side": left_side, "lower": lower, "transpose_a": transpose_a, "conjugate_a": conjugate_a}
    b_ct = triangular_solve_b(ct, a, **how, unit_diagonal=unit_diagonal)
    ct = neg(dot(b_ct, transposed(out)) if left_side else dot(transposed(out), b_ct))
    ct = transposed(ct) if transpose_a else ct
    ct = conjugated(ct) if conjugate_a else ct
    kept = {(True, False): ge, (True, True): gt, (False, False): le, (False, True): lax.lt}[lower, unit_diagonal]
    return where(places(kept, ct), ct)


def tridiagonal_solve_b(ct, dl, d, du, *, perturb_singular):
    """T⁻ᵀ ct: the diagonals of Tᵀ are those of T, the outer ones exchanged and moved along by one."""
    return tridiagonal_solve_p.bind(moved(du, 1, -1), d, moved(dl, -1, -1), ct, perturb_singular=perturb_singular)


def tridiagonal_solve_diagonal(offset):
    """The rule of a diagonal: -Σₖ b̄[i, k] x[i + offset, k], since that is what its element i is multiplied by."""

    def rule(ct, dl, d, du, out, *, perturb_singular):
        b_ct = tridiagonal_solve_b(ct, dl, d, du, perturb_singular=perturb_singular)
        return neg(reduce_sum(mul(b_ct, moved(out, -offset, -2)), [ct.ndim - 1]))

    return rule


def moved(x, by, axis):
    """x moved along an axis by one place, or by none, with zeros behind it."""
    ends = [(by, -by, 0) if i == axis % x.ndim else (0, 0, 0) for i in range(x.ndim)]
    return pad(x, constant(x, 0), ends)


vjp(triangular_solve_p, a=triangular_solve_a, b=triangular_solve_b)
vjp(
    tridiagonal_solve_p,
    dl=tridiagonal_solve_diagonal(-1),
    d=tridiagonal_solve_diagonal(0),
    du=tridiagonal_solve_diagonal(1),
    b=tridiagonal_solve_b,
)

# --- no derivative ----------------------------------------------------------------------------------------------------

nondifferentiable(lu_pivots_to_permutation_p)

# --- what JAX does not differentiate either ---------------------------------------------------------------------------

refused(cholesky_update_p, "no formula is known here; use cholesky(r.T @ r + outer(w, w)), which has one")
refused(hessenberg_p, "the basis of a Hessenberg form is not determined; eigvals, which needs none, has a derivative")
refused(householder_product_p, "no formula is known here; qr, which makes such a product, has a derivative")
refused(ormqr_p, "no formula is known here; take q from qr, which has a derivative, and multiply by it")
refused(schur_p, "the basis of a Schur form is not determined; eig or eigh, of which that is one, have a derivative")
refused(symmetric_product_p, "it may compute one triangle only; write alpha * a @ a.T + beta * c")
refused(tridiagonal_p, "the basis of a tridiagonal form is not determined; eigh, which needs none, has a derivative")
