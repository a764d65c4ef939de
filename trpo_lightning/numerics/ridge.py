"""Linear least squares with a penalty on the coefficients."""

import torch
from torch import Tensor

RAISES = 14
"""How often the penalty is raised: from 0 to 1e-12 of the matrix's largest diagonal entry, then tenfold up to it."""


def ridge_regression(gram: Tensor, moment: Tensor, penalties: Tensor) -> Tensor | None:
    """Minimise (1/N) sum_n (x_n'w - y_n)^2 + sum_i penalties_i w_i^2: (X'X/N + diag(penalties)) w = X'y/N.

    `gram` `[F, F]` is X'X/N, `moment` `[F]` is X'y/N, `penalties` `[F]` are not negative. If rounding leaves the
    matrix not positive definite (collinear features, no penalty), a penalty on every coefficient is added and raised
    until it is. Returns w `[F]` as float64, or None if no penalty gives a finite solution.
    """
    matrix, right = gram.double() + torch.diag(penalties.double()), moment.double()[:, None]
    largest, extra = matrix.diagonal().max(), 0.0
    for _ in range(RAISES):
        factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag((extra * largest).expand(len(matrix))))
        if not failed:
            solution = torch.cholesky_solve(right, factor)[:, 0]
            if torch.isfinite(solution).all():
                return solution
        extra = max(10.0 * extra, 1e-12)
    return None
