"""Moments of one modality's tokens, outliers replaced, without copying the tokens.

The covariance is the dearest part of MIR. It is taken in float32 products over 1,024 tokens at
a time, added up in float64: each product's error is some 1e-8 of the two standard deviations,
and the errors of many products cancel. How large the error is, is measured in every call on a
few columns; `mir.layer` asks for float64 products where the distance could feel it.
Tokens of massive norm are few and would drown the others, so they enter in float64, and so do
all means and variances: a massive channel's alone can outweigh the whole distance.

Shape suffixes: N tokens, D hidden size, M a few tokens, R rank of a factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mir.blocks import add_lower_gram, column_blocks
from mir.frechet import Gaussian, factor
from mir.outliers import massive_mask, median_row, outlier_mask

CHUNK = 1024
CHECKED_COLUMNS = 8
WIDE = 100.0
TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Roles:
    """What each token of a modality is: ordinary, replaced by `row_D`, or of massive norm.

    replaced_N, massive_N: bool, never both for one token.
    row_D: the per-dimension median; zeros where nothing is replaced.
    """

    replaced_N: Tensor
    massive_N: Tensor
    row_D: Tensor

    @property
    def ordinary(self) -> Tensor:
        """Tokens that count as they are and are not massive."""
        return ~(self.replaced_N | self.massive_N)


def roles(tokens_ND: Tensor, norms_N: Tensor) -> Roles:
    """Step 2 of MIR for one modality, as a plan instead of a copy."""
    replaced_N = outlier_mask(norms_N)
    massive_N = massive_mask(norms_N) & ~replaced_N
    row_D = median_row(tokens_ND) if bool(replaced_N.any()) else torch.zeros_like(tokens_ND[0])
    return Roles(replaced_N, massive_N, row_D)


@dataclass(frozen=True, eq=False)
class Sums:
    """Sum and sum of products of tokens minus `centre_D`, float64; adds up with `plus`.

    product_DD: valid on and below the diagonal.
    noise: see `mir.frechet.Gaussian`.
    """

    count: int
    centre_D: Tensor
    total_D: Tensor
    product_DD: Tensor
    noise: float

    def plus(self, rows_MD: Tensor, weight: int = 1) -> Sums:
        """With further rows, each counted `weight` times."""
        centred_MD = rows_MD.double() - self.centre_D
        product_DD = self.product_DD.clone()
        add_lower_gram(product_DD, centred_MD * weight**0.5)
        return Sums(
            self.count + weight * len(rows_MD),
            self.centre_D,
            self.total_D + weight * centred_MD.sum(dim=0),
            product_DD,
            self.noise,
        )

    @property
    def spread(self) -> Tensor:
        """Variance of every dimension around the centre."""
        return self.product_DD.diagonal() / self.count

    def gaussian(self, order_D: Tensor | None = None) -> Gaussian:
        """Mean and unbiased covariance of what was summed; needs two tokens."""
        offset_D = self.total_D / self.count
        cov_DD = self.product_DD - self.count * torch.outer(offset_D, offset_D)
        cov_DD /= self.count - 1
        if order_D is not None:
            whole_DD = cov_DD.tril() + cov_DD.tril(-1).T
            cov_DD = whole_DD[order_D][:, order_D]
        factor_DR, lower = factor(cov_DD, exact=self.noise == 0)
        variances_D = cov_DD.diagonal().clamp(min=0)
        mean_D = self.centre_D + offset_D
        return Gaussian(mean_D, factor_DR, variances_D, lower, self.noise, order_D)


@dataclass(frozen=True, eq=False)
class Few:
    """Tokens [N, D] of a modality with no more tokens than dimensions, float64."""

    tokens_ND: Tensor

    @property
    def count(self) -> int:
        """Number of tokens."""
        return len(self.tokens_ND)

    @property
    def spread(self) -> Tensor:
        """Variance of every dimension."""
        return self.tokens_ND.var(dim=0)

    def gaussian(self, order_D: Tensor | None = None) -> Gaussian:
        """With the tokens themselves as factor: they span N - 1 directions around their mean.

        A Householder reflection that maps the vector of ones to the first axis gathers the
        mean in the first row; dropping that row centres the others without a null direction.
        """
        mean_D = self.tokens_ND.mean(dim=0)
        centred_ND = self.tokens_ND - mean_D
        reflector_N = centred_ND.new_full((self.count,), self.count**-0.5)
        reflector_N[0] -= 1
        along_D = reflector_N @ centred_ND / (reflector_N @ reflector_N)
        reflected_ND = centred_ND - 2 * torch.outer(reflector_N, along_D)
        factor_DR = reflected_ND[1:].T / (self.count - 1) ** 0.5
        factor_DR = factor_DR if order_D is None else factor_DR[order_D]
        variances_D = factor_DR.square().sum(dim=1)
        return Gaussian(mean_D, factor_DR, variances_D, lower=False, order_D=order_D)


Moments = Sums | Few


def moments(tokens_ND: Tensor, roles: Roles, dtype: torch.dtype) -> tuple[Moments, Moments | None]:
    """Of all tokens after replacement, and of those without the massive ones.

    dtype: of the products. The second is None where fewer than two tokens remain, and the same
    object as the first where nothing is massive.
    """
    few = len(tokens_ND) <= tokens_ND.shape[1]
    whole, clean = (_few if few else _sums)(tokens_ND, roles, dtype)
    if not bool(roles.massive_N.any()):
        return whole, whole
    return whole, clean if clean.count > 1 else None


def _few(tokens_ND: Tensor, roles: Roles, _dtype: torch.dtype) -> tuple[Moments, Moments]:
    kept_ND = torch.where(roles.replaced_N[:, None], roles.row_D, tokens_ND).double()
    whole = Few(kept_ND)
    return whole, Few(kept_ND[~roles.massive_N]) if bool(roles.massive_N.any()) else whole


def _sums(tokens_ND: Tensor, roles: Roles, dtype: torch.dtype) -> tuple[Moments, Moments]:
    clean = _ordinary_sums(tokens_ND, roles.ordinary, dtype)
    replaced = int(roles.replaced_N.sum())
    if replaced:
        clean = clean.plus(roles.row_D[None], weight=replaced)
    whole = clean
    for few_M in roles.massive_N.nonzero()[:, 0].split(CHUNK):
        whole = whole.plus(tokens_ND[few_M])
    return whole, clean


def widest_first(*parts: Moments) -> Tensor | None:
    """An order of dimensions that puts massive channels first, None where there are none.

    Eigenvalue solvers keep the small eigenvalues of a matrix whose large entries come first and
    lose them otherwise: measured 1e-16 against 1e-8 of the trace with one channel of a thousand
    times the others' size.
    """
    spread_D = torch.stack([part.spread / part.spread.sum().clamp(min=TINY) for part in parts])
    total_D = spread_D.sum(dim=0)
    if float(total_D.max()) <= WIDE * float(total_D.median()):
        return None
    return total_D.argsort(descending=True, stable=True)


def _ordinary_sums(tokens_ND: Tensor, ordinary_N: Tensor, dtype: torch.dtype) -> Sums:
    size = tokens_ND.shape[1]
    centre_D = _centre(tokens_ND, ordinary_N)
    total_D = centre_D.new_zeros(size, dtype=torch.float64)
    product_DD = centre_D.new_zeros(size, size, dtype=torch.float64)
    squares_D = torch.zeros_like(total_D)
    noise = 0.0
    # One buffer for all, because memory fresh from the system costs more than the arithmetic.
    buffer_DN = centre_D.new_empty(size, CHUNK, dtype=dtype)
    for start in range(0, len(tokens_ND), CHUNK):
        rows_ND, ordinary = (part[start : start + CHUNK] for part in (tokens_ND, ordinary_N))
        centred_DN = buffer_DN[:, : len(rows_ND)]
        torch.sub(rows_ND.T, centre_D[:, None].to(dtype), out=centred_DN)
        centred_DN.index_fill_(1, (~ordinary).nonzero()[:, 0], 0)
        add_lower_gram(product_DD, centred_DN.T)
        total_D += centred_DN.sum(dim=1, dtype=torch.float64)
        squares_D += torch.linalg.vector_norm(centred_DN, dim=1, dtype=torch.float64).square()
        if start == 0 and dtype != torch.float64:
            share = CHUNK / len(tokens_ND)
            noise = _product_noise(centred_DN.T, product_DD, squares_D) * share**0.5
    product_DD.diagonal().copy_(squares_D)
    sums = Sums(int(ordinary_N.sum()), centre_D.double(), total_D, product_DD, noise)
    return _without_constants(tokens_ND, sums)


def _centre(tokens_ND: Tensor, ordinary_N: Tensor) -> Tensor:
    """Roughly the mean of the ordinary tokens, from some of them; zeros where there are none."""
    wide = torch.promote_types(tokens_ND.dtype, torch.float32)
    chosen_K = ordinary_N.nonzero()[:, 0]
    if len(chosen_K) == 0:
        return tokens_ND.new_zeros(tokens_ND.shape[1], dtype=wide)
    step = -(-len(chosen_K) // CHUNK)
    return tokens_ND[chosen_K[::step]].to(wide).mean(dim=0)


def _without_constants(tokens_ND: Tensor, sums: Sums) -> Sums:
    """With exactly no variance in dimensions that are constant, where rounding left some.

    Only dimensions that vary by less than 1e-5 of their mean are looked at, which are few.
    """
    limit_D = sums.count * (1e-5 * sums.centre_D).square()
    suspects_K = (sums.product_DD.diagonal() <= limit_D).nonzero()[:, 0]
    equal_K = torch.ones_like(suspects_K, dtype=torch.bool)
    for rows_ND in tokens_ND.split(CHUNK):
        equal_K &= (rows_ND[:, suspects_K] == tokens_ND[0, suspects_K]).all(dim=0)
    constants_K = suspects_K[equal_K]
    centre_D, total_D, product_DD = sums.centre_D, sums.total_D, sums.product_DD
    centre_D[constants_K] = tokens_ND[0, constants_K].double()
    total_D[constants_K] = 0
    product_DD[constants_K] = 0
    product_DD[:, constants_K] = 0
    return sums


def _product_noise(rows_ND: Tensor, product_DD: Tensor, squares_D: Tensor) -> float:
    """Root mean square error of the first chunk's products, measured on a few columns."""
    first = next(column_blocks(product_DD.shape[1]))
    columns = torch.linspace(0, first.stop - 1, CHECKED_COLUMNS, device=rows_ND.device).long()
    exact = rows_ND.double().T @ rows_ND[:, columns].double()
    deviations_D = squares_D.sqrt()
    scale = deviations_D[:, None] * deviations_D[columns]
    errors = (product_DD[:, columns] - exact) / torch.where(scale > 0, scale, 1)
    return float(errors.square().mean().sqrt())
