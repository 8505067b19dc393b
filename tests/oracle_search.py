"""Search by hand, in slow Python, over the fake model: the oracles of every test of decoding."""

import itertools

import numpy as np
from fake import WORDS, log_probs

from s2s_jax.shapes import BOS, EOS, PAD, UNK

LENGTH_SCORES = {
    "gnmt": lambda log_prob, length, weight: log_prob / ((5 + length) / 6) ** weight,
    "average": lambda log_prob, length, weight: log_prob / length**weight,
    "reward": lambda log_prob, length, weight: log_prob + weight * length,
}


def strings(longest: int) -> list[tuple[int, ...]]:
    """Every complete string of at most `longest` tokens."""
    bodies = (itertools.product(range(UNK, WORDS), repeat=length) for length in range(longest))
    return [(*body, EOS) for bodies_of_length in bodies for body in bodies_of_length]


def token_log_probs(table, which: int, string: tuple[int, ...]) -> list[float]:
    """What the fake model says of each token."""
    pairs = enumerate(zip((BOS, *string[:-1]), string, strict=True))
    return [log_probs(table, which, time, before)[token] for time, (before, token) in pairs]


def score(table, row, string, *, name="gnmt", weight=0.0, coverage=0.0) -> float:
    """A string's score for a source row, with the attention that the fake model pays."""
    total = sum(token_log_probs(table, int(row[0]) % 2, string))
    paid = np.zeros(len(row))
    for time, before in enumerate((BOS, *string[:-1])):
        paid[(before + time) % len(row)] += 1
    least = float(np.finfo(np.float32).tiny)
    uncovered = sum(np.log(np.clip(paid[place], least, 1)) for place, token in enumerate(row) if token != PAD)
    return LENGTH_SCORES[name](total, len(string), weight) + coverage * uncovered


def leaves(table, which: int, longest: int) -> dict[tuple[int, ...], float]:
    """The probability of every string that sampling can end with, those cut off too; PAD and BOS are never said."""
    found = {(): 1.0}
    for time in range(longest):
        for string, probability in list(found.items()):
            if (string and string[-1] == EOS) or len(string) < time:
                continue
            del found[string]
            said = np.exp(log_probs(table, which, time, string[-1] if string else BOS)[EOS:])
            for token, share in zip(range(EOS, WORDS), said / said.sum(), strict=True):
                found[(*string, token)] = probability * share
    return found


def beam(table, which: int, *, width, groups=1, group_penalty=0.0, sibling_penalty=0.0, longest, exponent=0.0):
    """(score, string) of every group, complete ones first, as lists of group lists; stops when `width` have ended."""
    live = [[((), 0.0)] for _ in range(groups)]
    ended = [[] for _ in range(groups)]
    for time in range(longest):
        said = np.zeros(WORDS)
        for group in range(groups):
            if len(ended[group]) >= width:
                continue
            options = []
            for string, total in live[group]:
                of_token = log_probs(table, which, time, string[-1] if string else BOS)
                priced = sorted(range(EOS, WORDS), key=lambda token: said[token] * group_penalty - of_token[token])
                for rank, token in enumerate(priced):
                    price = group_penalty * said[token] + sibling_penalty * rank
                    options.append((total + of_token[token] - price, (*string, token), total + of_token[token]))
            options.sort(key=lambda option: -option[0])
            for _, string, total in options[:width]:
                if string[-1] == EOS:
                    ended[group].append((total / ((5 + len(string)) / 6) ** exponent, string))
            ended[group] = sorted(ended[group], key=lambda one: -one[0])[:width]
            live[group] = [(string, total) for _, string, total in options if string[-1] != EOS][:width]
            for string, _ in live[group]:
                said[string[-1]] += 1
    cut = [
        sorted(((total / ((5 + longest) / 6) ** exponent, string) for string, total in group), reverse=True)
        for group in live
    ]
    return [(done + rest)[:width] for done, rest in zip(ended, cut, strict=True)]


def string_of(tokens) -> tuple[int, ...]:
    """The tokens of a hypothesis, without the padding behind it."""
    return tuple(token for token in tokens.tolist() if token != PAD)
