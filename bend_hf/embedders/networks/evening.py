"""A linear map after which all directions of some rows vary about alike (whitening; Su et al. 2021, Whitening Sentence
Representations for Better Semantics and Faster Retrieval).

>>> rows = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([10.0, 0.5]) + 3.0
>>> moments, even = Moments(2, rows.device), Even(2)
>>> moments.add(rows)
>>> even.fit(moments)
>>> [round(variance, 1) for variance in even(rows).var(dim=0).tolist()]
[1.0, 1.0]
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

_LEAST_VARIANCE: Final = 1e-3  # of rows whose mean variance is 1, as they come from a norm


class Moments:
    """Sums over rows, float64, from which mean and covariance follow."""

    def __init__(self, width: int, device: torch.device) -> None:
        self.n = 0
        self.sum_D = torch.zeros(width, dtype=torch.float64, device=device)
        self.square_DD = torch.zeros(width, width, dtype=torch.float64, device=device)

    def add(self, x_ND: Tensor) -> None:
        """Some rows more."""
        self.n += len(x_ND)
        self.sum_D += x_ND.sum(dim=0, dtype=torch.float64)
        self.square_DD += (x_ND.T @ x_ND).double()


class Even(nn.Module):
    """x -> (x - centre) map; as it is made it changes nothing. It is computed and not learned."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.map = nn.Parameter(torch.eye(width), requires_grad=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Shape (..., width) in and out."""
        evened: Tensor = (x_ND - self.centre) @ self.map
        return evened

    @torch.no_grad()
    def fit(self, moments: Moments) -> None:
        """Directions that hardly vary are not blown up: ``_LEAST_VARIANCE`` is added to the variance of each."""
        mean_D = moments.sum_D / moments.n
        covariance_DD = moments.square_DD / moments.n - mean_D[:, None] * mean_D
        variance_D, direction_DD = torch.linalg.eigh(covariance_DD)
        scale_D = (variance_D.clamp(min=0.0) + _LEAST_VARIANCE).rsqrt()
        self.centre.copy_(mean_D)
        self.map.copy_((direction_DD * scale_D) @ direction_DD.T)
