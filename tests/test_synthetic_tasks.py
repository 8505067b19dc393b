import re
from dataclasses import dataclass
from datetime import date
from string import ascii_lowercase

import pytest

from s2s_jax.text import dates
from s2s_jax.text.example import Example
from s2s_jax.text.synthetic_tasks import SPLIT_PERCENTILES, TASKS, make_examples, split_of

TASK_NAMES = ", ".join(sorted(TASKS))

ORDERS = {"copy": list, "reverse": lambda letters: letters[::-1], "sort": sorted}
GOLDEN_COPY = ["x p y b x e v", "m a u n g z p b x", "v r z t h r j y x"]
GOLDEN_ADDITION = ["5+3947=", "44+96=", "299+98="]
GOLDEN_SPLITS = ["train", "train", "test", "train"]


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_letters_have_the_order_that_the_task_names(name):
    for source, target, links, _ in make_examples(name, split="train", count=300):
        assert target.split(" ") == list(ORDERS[name](source.split(" ")))
        assert source.replace(" ", "").islower()
        assert len(links) == len(source.split(" "))


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_every_letter_is_linked_with_one_equal_letter(name):
    for source, target, links, _ in make_examples(name, split="train", count=300):
        sources, targets = zip(*links, strict=True)
        assert sorted(sources) == sorted(targets) == list(range(0, len(source), 2))
        assert all(source[i] == target[j] for i, j in links)


def test_equal_letters_keep_their_order_when_sorted():
    repeats = 0
    for source, _, links, _ in make_examples("sort", split="train", count=300):
        place = dict(links)
        for first in place:
            for second in place:
                if first < second and source[first] == source[second]:
                    repeats += 1
                    assert place[first] < place[second]
    assert repeats > 50


def test_reverse_links_the_first_letter_with_the_last():
    for _, target, links, _ in make_examples("reverse", split="train", count=100):
        assert all(source + place == len(target) - 1 for source, place in links)


def test_addition_adds_and_links_digits_of_the_same_decimal_place():
    carries = 0
    for source, target, links, _ in make_examples("addition", split="train", count=500, maximum_length=3):
        first, second = source.removesuffix("=").split("+")
        assert int(target) == int(first) + int(second)
        assert f"{int(first)}+{int(second)}=" == source
        longest = max(len(first), len(second))
        for place in range(1, len(target) + 1):
            linked = {i for i, j in links if j == len(target) - place}
            wanted = {len(first) - place} if place <= len(first) else set()
            wanted |= {len(source) - 1 - place} if place <= len(second) else set()
            assert linked == wanted
        carries += len(target) > longest
    assert carries > 50


def test_one_addition_by_hand():
    examples = make_examples("addition", split="train", count=70, minimum_length=1, maximum_length=1)
    one = next(example for example in examples if int(example.target) > 9)
    assert one.links == ((0, 1), (2, 1))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_same_arguments_give_the_same_examples_and_another_seed_gives_others(name):
    once = make_examples(name, split="train", count=50, seed=3)
    assert once == make_examples(name, split="train", count=50, seed=3)
    assert once[:20] == make_examples(name, split="train", count=20, seed=3)
    assert once != make_examples(name, split="train", count=50, seed=4)


def test_golden_examples():
    # If this fails, did the hash, the seeding, or Python's random change? Earlier runs are no longer comparable then.
    assert [example.source for example in make_examples("copy", split="test", count=3)] == GOLDEN_COPY
    assert [example.source for example in make_examples("addition", split="train", count=3)] == GOLDEN_ADDITION
    assert [split_of(item) for item in ("a", "ab", "1+2", "2024-02-29")] == GOLDEN_SPLITS


@pytest.mark.parametrize("name", sorted(TASKS))
def test_sources_are_distinct_and_links_are_inside_their_lines(name):
    examples = make_examples(name, split="validation", count=300)
    assert len({(example.source, example.features) for example in examples}) == 300
    for source, target, links, _ in examples:
        assert links
        assert len(set(links)) == len(links)
        assert all(0 <= i < len(source) and 0 <= j < len(target) for i, j in links)


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_splits_are_disjoint_and_together_contain_every_sequence(name):
    every = list(ascii_lowercase)
    found = []
    for split in SPLIT_PERCENTILES:
        there = [source for source in every if split_of(source) == split]
        if there:
            made = [e.source for e in make_examples(name, split=split, count=len(there), maximum_length=1)]
            assert sorted(made) == sorted(there)
            found += made
    assert sorted(found) == sorted(every)


def test_splits_share_no_pair_of_numbers_in_either_order():
    pairs = [f"{first}+{second}" for first in range(10) for second in range(10)]
    of_smaller_first = {pair: split_of("+".join(sorted(pair.split("+")))) for pair in pairs}
    for split in SPLIT_PERCENTILES:
        there = [f"{pair}=" for pair in pairs if of_smaller_first[pair] == split]
        made = [e.source for e in make_examples("addition", split=split, count=len(there), maximum_length=1)]
        assert sorted(made) == sorted(there)


def test_splits_have_their_percentages():
    splits = [split_of(str(item)) for item in range(5000)]
    assert splits.count("train") / 5000 == pytest.approx(0.8, abs=0.02)
    assert splits.count("test") / 5000 == pytest.approx(0.1, abs=0.02)


def test_every_length_is_as_frequent_as_any_other():
    lengths = [len(e.source.split()) for e in make_examples("copy", split="train", count=500, minimum_length=6)]
    assert {length: lengths.count(length) > 75 for length in set(lengths)} == dict.fromkeys(range(6, 11), True)


@pytest.mark.parametrize("name", ["copy", "reverse", "sort", "addition"])
def test_a_count_above_the_number_of_items_is_refused(name):
    items = [f"{a}+{b}" for a in range(10) for b in range(10)] if name == "addition" else list(ascii_lowercase)
    there = sum(split_of("+".join(sorted(item.split("+")))) == "train" for item in items)
    text = f"task '{name}' has {there} examples in split 'train', got count={there + 1}; "
    with pytest.raises(ValueError, match=f"^{re.escape(text)}lower count or raise maximum_length$"):
        make_examples(name, split="train", count=there + 1, maximum_length=1)


def test_a_count_above_the_number_of_items_is_refused_for_a_task_without_lengths(monkeypatch):
    monkeypatch.setattr(dates, "LOCALES", ("en_US",))
    monkeypatch.setattr(dates, "LAST_DAY", date(1900, 1, 31))
    with pytest.raises(
        ValueError, match=r"^task 'dates' has [0-9]+ examples in split 'train', got count=94; lower count$"
    ):
        make_examples("dates", split="train", count=94)


@dataclass(frozen=True)
class Doubles:
    """A task of the user's own: a number and its double, without lengths."""

    def draw(self, rng):
        return rng.randrange(1000)

    def items(self):
        return iter(range(1000))

    def split_key(self, item):
        return str(item)

    def example(self, item):
        return Example(str(item), str(2 * item), ())


def test_a_task_of_your_own_is_one_entry_of_the_table(monkeypatch):
    monkeypatch.setitem(TASKS, "doubles", Doubles())
    examples = make_examples("doubles", split="test", count=50)
    assert all(int(target) == 2 * int(source) and split_of(source) == "test" for source, target, *_ in examples)
    with pytest.raises(ValueError, match="^task 'doubles' has no maximum_length, got 3; leave it out$"):
        make_examples("doubles", split="test", count=50, maximum_length=3)


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        (
            "copi",
            {},
            f"task must be one of {TASK_NAMES}, got 'copi'; did you mean 'copy'?",
        ),
        (
            "quicksand",
            {},
            f"task must be one of {TASK_NAMES}, got 'quicksand'.",
        ),
        ("copy", {"split": "tset"}, "split must be one of test, train, validation, got 'tset'; did you mean 'test'?"),
        ("copy", {"split": "dev"}, "split must be one of test, train, validation, got 'dev'."),
        ("copy", {"count": 0}, "count must be positive, got 0"),
        ("copy", {"minimum_length": 0}, "minimum_length must be positive, got 0"),
        ("sort", {"minimum_length": 5, "maximum_length": 4}, "maximum_length must be at least minimum_length=5, got 4"),
        ("addition", {"minimum_length": 5}, "maximum_length must be at least minimum_length=5, got 4"),
        ("dates", {"minimum_length": 5}, "task 'dates' has no minimum_length, got 5; leave it out"),
        ("dates", {"maximum_length": 5}, "task 'dates' has no maximum_length, got 5; leave it out"),
    ],
)
def test_impossible_arguments_are_refused_in_one_line(name, settings, text):
    with pytest.raises(ValueError) as refusal:
        make_examples(name, **({"split": "train", "count": 10} | settings))
    assert str(refusal.value) == text
