"""What a model may learn beside hidden letters: which short words stand around (skip-gram; Mikolov et al. 2013).

>>> around = WordsAround(8, word=1, places=1, stride=4)
>>> around.shares(torch.tensor([[3, 3, 3, 4]]))[0, 0].tolist()  # a a a c
[0.75, 0.25, 0.0, 0.0]
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

# The tokenizer of BEND's convolutional model: padding, mask and unknown, then a, c, g, t.
FIRST_LETTER: Final = 3
N_LETTERS: Final = 4


class WordsAround(nn.Linear):
    """Tells from a state of the body how often each word stands to the left and to the right of its place.

    Args:
        width: Of the states.
        word: Letters of a word.
        places: How many places to either side are counted, the place itself included.
        stride: Nucleotides to a place.
    """

    def __init__(self, width: int, *, word: int, places: int, stride: int) -> None:
        self.word, self.places, self.stride = word, places, stride
        super().__init__(width, 2 * N_LETTERS**word)

    def loss(self, body_ND: Tensor, input_ids: Tensor, at_N: Tensor) -> Tensor:
        """Cross-entropy of the words that are there, mean of both sides, in nats, shape (places,).

        A word that holds a hidden or unknown letter is not counted; a side without words costs nothing.

        Args:
            body_ND: States of the body at some tokens, shape (places, body width).
            input_ids: Token ids, int64, shape (batch, tokens).
            at_N: The place of the body of each of those tokens, counted through the batch, shape (places,).
        """
        share_N2W = self.shares(input_ids).index_select(0, at_N)
        log_share_N2W = self(body_ND).float().view(len(body_ND), 2, -1).log_softmax(dim=-1)
        cost_N: Tensor = -(share_N2W * log_share_N2W).sum(dim=(1, 2)) / 2
        return cost_N

    def shares(self, input_ids: Tensor) -> Tensor:
        """Share of each word to the left and right of every place of the batch, shape (batch * places, 2, words).

        A word belongs to the place in which it begins.
        """
        n_words, n_tokens = N_LETTERS**self.word, input_ids.shape[1]
        n_places = -(-n_tokens // self.stride)
        letters_BT = pad(input_ids - FIRST_LETTER, (0, n_places * self.stride - n_tokens + self.word - 1), value=-1)
        word_BT = letters_BT.unfold(1, self.word, 1)
        powers = N_LETTERS ** torch.arange(self.word - 1, -1, -1, device=input_ids.device)
        place_T = torch.arange(n_places * self.stride, device=input_ids.device) // self.stride
        row_B1 = torch.arange(len(input_ids), device=input_ids.device)[:, None]
        cell_BT = (row_B1 * n_places + place_T) * n_words + (word_BT * powers).sum(dim=-1)
        cell = cell_BT[(word_BT >= 0).all(dim=-1)]
        counts = torch.zeros(len(input_ids) * n_places * n_words, device=input_ids.device)
        counts.index_add_(0, cell, torch.ones_like(cell, dtype=counts.dtype))
        before_BPW = pad(counts.view(len(input_ids), n_places, n_words).cumsum(dim=1), (0, 0, 1, 0))
        own_P = torch.arange(n_places, device=input_ids.device)
        low_P, high_P = (own_P + 1 - self.places).clamp(min=0), (own_P + self.places).clamp(max=n_places)
        left_BPW = before_BPW[:, own_P + 1] - before_BPW[:, low_P]
        right_BPW = before_BPW[:, high_P] - before_BPW[:, own_P]
        sides = torch.stack([left_BPW, right_BPW], dim=2).flatten(0, 1)
        shares: Tensor = sides / sides.sum(dim=-1, keepdim=True).clamp(min=1.0)
        return shares
