"""OpenCLIP's text tower, read one layer before its end, as Stable Diffusion 2 and the VideoCrafter family use it.

Module names are those under ``cond_stage_model.model.`` in the published files, including the last layer and the projection, which
only CLIP's own embedding needs, and the temperature, which is not used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from ..config import TextEncoderConfig
from ..errors import InputError
from .openclip import transformer


@lru_cache(maxsize=1)
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def tokenize(prompts: Sequence[str], context_length: int = 77) -> Tensor:
    """Byte pair tokens of each prompt, padded with 0.

    A prompt longer than one window continues in further windows, each with its own start and end token, as in ComfyUI. In a
    batch, a prompt's windows are repeated to the least common multiple, which attention can't tell apart.

    Returns:
        ``[B, n, context_length]`` in int64.

    Raises:
        InputError: there are no prompts.
    """
    tokenizer = _tokenizer()
    room = context_length - 2
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    if not encoded:
        raise InputError("There are no prompts; give at least one.")
    lengths = [max(1, -(-len(ids) // room)) for ids in encoded]
    windows = math.lcm(*lengths)
    tokens = torch.zeros(len(encoded), windows, context_length, dtype=torch.long)
    for row, ids, length in zip(tokens, encoded, lengths, strict=True):
        for index in range(windows):
            start = index % length * room
            piece = [tokenizer.sot_token_id, *ids[start : start + room], tokenizer.eot_token_id]
            row[index, : len(piece)] = torch.tensor(piece)
    return tokens


class TextEncoder(nn.Module):
    """Tokens to one vector each: the penultimate layer's output through the final norm."""

    def __init__(self, config: TextEncoderConfig, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.token_embedding = nn.Embedding(config.vocab_size, width, device=device, dtype=dtype)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width, device=device, dtype=dtype))
        self.transformer = transformer(width, config.heads, config.layers, device, dtype)
        self.ln_final = nn.LayerNorm(width, device=device, dtype=dtype)
        self.text_projection = nn.Parameter(torch.empty(width, config.embed_dim, device=device, dtype=dtype))
        self.logit_scale = nn.Parameter(torch.zeros((), device=device, dtype=dtype))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, n, context_length]`` -> ``[B, n * context_length, width]``; windows don't attend to each other."""
        hidden = self._hidden(tokens.flatten(0, 1), self.config.layers - 1)
        return self.ln_final(hidden).unflatten(0, tokens.shape[:2]).flatten(1, 2)

    def embed(self, tokens: Tensor) -> Tensor:
        """CLIP's own embedding of texts, ``[B, context_length]`` -> ``[B, embed_dim]``, not normalized."""
        hidden = self.ln_final(self._hidden(tokens, self.config.layers))
        ends = tokens.argmax(dim=-1)  # the end token has the largest number
        return hidden[torch.arange(len(tokens), device=tokens.device), ends] @ self.text_projection

    def _hidden(self, tokens: Tensor, layers: int) -> Tensor:
        length = tokens.shape[1]
        hidden = self.token_embedding(tokens) + self.positional_embedding[:length]
        mask = torch.full((length, length), float("-inf"), device=hidden.device, dtype=hidden.dtype).triu(1)
        for block in self.transformer.resblocks[:layers]:  # type: ignore[index]  # a ModuleList
            hidden = block(hidden, attn_mask=mask)
        return hidden
