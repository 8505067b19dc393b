"""Inflection: a lemma and its tags to a form, in a language whose words are invented and whose grammar is known.

The nouns are agglutinating, with the regular morphology of Turkish: stem, plural, possessive and case in this order.
A suffix vowel agrees with the vowel before it (backness, and rounding where it is high), a suffix d becomes t after a
voiceless consonant, a final stop of a longer stem softens before a vowel, and buffers part two vowels. The tags of
UniMorph (`N;PL;ABL;PSS1S`) are the feature of a lemma.
"""

import itertools
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from s2s_jax.text.example import Example

BACK, FRONT = "aıou", "eiöü"
ROUNDED = "ouöü"
VOWELS = BACK + FRONT
VOICELESS = "pçtkfhsş"
ONSETS, CODAS = "bcçdfghklmnprsştvyz", "klmnrstzpç"
SOFTENED = dict(zip("pçtk", "bcdğ", strict=True))
MOST_SYLLABLES = 3

# Suffixes: A is a or e, I is one of ı i u ü, D is d or t; what stands in parentheses is left out after a vowel if it is
# a vowel, and after a consonant if it is a consonant.
NUMBERS = {"SG": "", "PL": "lAr"}
POSSESSIVES = {"": "", "PSS1S": "(I)m", "PSS2S": "(I)n", "PSS3S": "(s)I", "PSS1P": "(I)mIz", "PSS2P": "(I)nIz"}
CASES = {"NOM": "", "ACC": "(y)I", "DAT": "(y)A", "GEN": "(n)In", "LOC": "DA", "ABL": "DAn", "INS": "(y)lA"}
AFTER_THIRD_PERSON = {"ACC": "nI", "DAT": "nA", "GEN": "nIn", "LOC": "nDA", "ABL": "nDAn"}  # with PSS3S


class Noun(NamedTuple):
    """A lemma and the choice of its form."""

    lemma: str
    number: str
    case: str
    possessive: str  # empty for none

    @property
    def tags(self) -> str:
        """The tags as UniMorph writes them."""
        return ";".join(filter(None, ("N", self.number, self.case, self.possessive)))


def inflect(noun: Noun) -> str:
    """The form of a noun."""
    form = append_suffix(noun.lemma, NUMBERS[noun.number])
    form = append_suffix(form, POSSESSIVES[noun.possessive])
    third_person = AFTER_THIRD_PERSON if noun.possessive == "PSS3S" else {}
    return append_suffix(form, third_person.get(noun.case, CASES[noun.case]))


def append_suffix(stem: str, suffix: str) -> str:
    """The stem with a suffix, each of whose variable sounds agrees with what stands before it."""
    if suffix.startswith("("):
        buffer, suffix = suffix[1], suffix[3:]
        if (buffer == "I") != (stem[-1] in VOWELS):  # two vowels or two consonants would meet
            suffix = buffer + suffix
    if suffix[:1] in ("A", "I") and stem[-1] in SOFTENED and sum(letter in VOWELS for letter in stem) > 1:
        stem = stem[:-1] + SOFTENED[stem[-1]]
    for sound in suffix:
        stem += _agreeing(sound, stem)
    return stem


def _agreeing(sound: str, before: str) -> str:
    vowel = next(letter for letter in reversed(before) if letter in VOWELS)
    front, rounded = vowel in FRONT, vowel in ROUNDED
    if sound == "A":
        return "e" if front else "a"
    if sound == "I":
        return ("ü" if front else "u") if rounded else ("i" if front else "ı")
    if sound == "D":
        return "t" if before[-1] in VOICELESS else "d"
    return sound


class Inflection:
    """Nouns of one to three syllables, whose vowels are all front or all back; lemmas of two splits differ.

    Args:
        in_line: write the tags behind the letters of the lemma, all as words, in place of a feature. Kann & Schütze
            2016, arXiv:1606.00589.
    """

    def __init__(self, *, in_line: bool = False):
        self._in_line = in_line

    def draw(self, rng: Random) -> Noun:
        """A random lemma, and each choice of its form as often as any other."""
        vowels = rng.choice((BACK, FRONT))
        syllables = [rng.choice(ONSETS) + rng.choice(vowels) for _ in range(rng.randint(1, MOST_SYLLABLES))]
        coda = rng.choice(CODAS) if len(syllables) == 1 or rng.random() < 0.5 else ""
        choices = (rng.choice([*table]) for table in (NUMBERS, CASES, POSSESSIVES))
        return Noun("".join(syllables) + coda, *choices)

    def items(self) -> Iterator[Noun]:
        """All nouns in all forms, the shortest first."""
        for count in range(1, MOST_SYLLABLES + 1):
            for vowels in (BACK, FRONT):
                syllables = map("".join, itertools.product(ONSETS, vowels))
                for stem in itertools.product([*syllables], repeat=count):
                    for coda in (*CODAS, *([""] if count > 1 else [])):
                        for choices in itertools.product(NUMBERS, CASES, POSSESSIVES):
                            yield Noun("".join(stem) + coda, *choices)

    def split_key(self, item: Noun) -> str:
        """The lemma: all of its forms are in one split."""
        return item.lemma

    def example(self, item: Noun) -> Example:
        """Lemma and form, with the tags as feature or in line; the letters of the stem are linked with themselves."""
        places = range(len(item.lemma))
        if self._in_line:
            source = " ".join((*item.lemma, *item.tags.split(";")))
            return Example(source, inflect(item), tuple((2 * place, place) for place in places))
        return Example(item.lemma, inflect(item), tuple((place, place) for place in places), (item.tags,))
