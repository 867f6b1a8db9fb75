"""Basset (Kelley et al. 2016), the supervised baseline for one label vector a window, in BEND's form.

>>> import torch
>>> head = BassetHead(width=5, n_outputs=18, window_bp=96).eval()
>>> head(torch.zeros(1, 96, 5), torch.arange(96)[None]).shape
torch.Size([1, 1, 18])
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from bend_hf.errors import ConfigError
from bend_hf.training.heads._batch_norm import SharedBatchNorm1d
from bend_hf.training.heads._rows import check_one_hot, spread

CHANNELS = (300, 200, 200)  # Kelley et al. 2016, figure 1: filters of the three convolutions
KERNELS = (19, 11, 7)  # the same, their lengths
POOLS = (3, 4, 4)  # the same, max pooling after each
LINEAR = (1000, 1000)  # the same, fully connected units
DROPOUT = 0.3  # BEND bend/models/basset.py


class BassetHead(nn.Module):
    """Three convolutions with batch norm and max pooling, then three linear layers.

    The batch that is normalised is that of all processes together.

    Parameters are named as in BEND's checkpoints (``conv_net``, ``clf``).

    Args:
        width: 5, the letters.
        n_outputs: Labels.
        window_bp: Length of every sequence, at least the 48 nucleotides that pooling makes one place of.

    Raises:
        ConfigError: The embeddings are not one-hot sequence, or the window is too short.
    """

    def __init__(self, *, width: int, n_outputs: int, window_bp: int) -> None:
        super().__init__()
        check_one_hot("Basset", width)
        places = window_bp
        for step in POOLS:
            places //= step
        if places < 1:
            raise ConfigError(f"Basset needs windows of 48 nucleotides or more, not {window_bp}; use a CNN head")
        self.window_bp = window_bp
        blocks: list[nn.Module] = []
        for (n_in, n_out), kernel, step in zip(pairwise((width, *CHANNELS)), KERNELS, POOLS, strict=True):
            convolution = nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2)
            blocks += [convolution, SharedBatchNorm1d(n_out), nn.ReLU(), nn.MaxPool1d(step)]
        self.conv_net = nn.Sequential(*blocks)
        self.clf = nn.Sequential(
            nn.Flatten(),
            nn.Linear(places * CHANNELS[-1], LINEAR[0]),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(*LINEAR),
            nn.Dropout(DROPOUT),  # BEND has no activation between its last two layers
            nn.Linear(LINEAR[1], n_outputs),
        )

    def forward(self, x_BTD: Tensor, token_of_BL: Tensor) -> Tensor:
        """Score each sequence as one label window.

        Args:
            x_BTD: One-hot letters, float, shape (batch, tokens, 5).
            token_of_BL: For each nucleotide the row of its letter, int64, shape (batch, window_bp).

        Returns:
            Logits, shape (batch, 1, labels).

        Raises:
            ConfigError: The sequences are longer or shorter than the window.
        """
        if token_of_BL.shape[1] != self.window_bp:
            raise ConfigError(
                f"Basset was built for windows of {self.window_bp} nucleotides, not {token_of_BL.shape[1]}; "
                "give window_bp the length of the task's sequences"
            )
        h_BDL = spread(x_BTD, token_of_BL).transpose(1, 2)
        real_B = (token_of_BL >= 0).any(dim=1)  # a process without an item is fed one that is all padding
        for layer in self.conv_net:
            h_BDL = layer(h_BDL, real_B) if isinstance(layer, SharedBatchNorm1d) else layer(h_BDL)
        logits: Tensor = self.clf(h_BDL).unsqueeze(1)
        return logits
