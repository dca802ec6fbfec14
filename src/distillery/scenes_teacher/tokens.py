"""The teacher's tokenizer: CLIP's byte-level BPE with the captions' words as single tokens.

In: captions. Out: a `CLIPTokenizer`. Text of any other kind is spelled in smaller pieces, at
worst in bytes, and is cut at `context_length` tokens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTokenizer

WORD_END = "</w>"
SPECIAL_TOKENS = ["<|startoftext|>", "<|endoftext|>"]


def build_tokenizer(captions: Iterable[str], context_length: int) -> CLIPTokenizer:
    """Merge until every word of `captions` is one token (about 600 tokens for the scenes)."""
    words = {word for caption in captions for word in re.findall(r"[a-z]+", caption)}
    merges = learn_merges(sorted(words))
    alphabet = sorted(ByteLevel.alphabet())
    tokens = alphabet + [letter + WORD_END for letter in alphabet]
    tokens += [left + right for left, right in merges] + SPECIAL_TOKENS
    vocab = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=context_length)


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges (Sennrich et al. 2016, algorithm 1) until each word is one piece.

    Among equally frequent pairs the first in the alphabet is merged; the trainer of the
    `tokenizers` library breaks such ties at random, and its numbering differs between runs.
    """
    spelled = [[*word[:-1], word[-1] + WORD_END] for word in words]
    merges = []
    while counts := Counter(pair for pieces in spelled for pair in pairwise(pieces)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spelled = [_merge(pieces, best) for pieces in spelled]
    return merges


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids (N, context_length), padded and cut as `StableDiffusionPipeline` does."""
    return tokenizer(
        captions,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def text_config(
    tokenizer: CLIPTokenizer, *, width: int, projection: int, num_layers: int, num_heads: int
) -> CLIPTextConfig:
    """Of a text tower over the tokenizer's vocabulary and context."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=projection,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
