"""Settings become the search they name, and those that make no sense are refused in one line."""

import dataclasses
import re
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake import MODEL, table

from s2s_jax.config import Experiment, override, settings
from s2s_jax.decode import compaction
from s2s_jax.decode.batching import WINDOW
from s2s_jax.decode.compaction import COMPACTIONS
from s2s_jax.decode.length_normalization import LENGTH_NORMALIZATIONS, LengthNormalizationName
from s2s_jax.decode.lexical_constraints import ConstrainedLine
from s2s_jax.decode.logits_rules import LogitsRules
from s2s_jax.decode.mbr import MBR_METRICS, MbrMetricName
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.sampling import Sampling
from s2s_jax.decode.search import SEARCHES, SearchConfig, SearchName, compiled_search
from s2s_jax.decode.translate import Translator
from s2s_jax.shapes import EOS, PAD
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.tokenizers import Characters

LINES = ["a", "", "aa", "aaaa", "a" * 9, "aaa", "aa"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "beem"}, "search.method must be one of beam, sample, stochastic, got 'beem'; did you mean 'beam'?"),
        (
            {"length_normalization": "gmnt"},
            "search.length_normalization must be one of average, gnmt, reward, got 'gmnt'; did you mean 'gnmt'?",
        ),
        ({"stopping": "bound"}, "search.stopping must be one of bounded, full, never, got 'bound'; did you mean"),
        ({"mbr_metric": "ter"}, "search.mbr_metric must be one of bleu, chrf, exact, none, got 'ter'"),
        ({"beam": 0}, "search.beam must be positive, got 0"),
        ({"length_penalty": -1.0}, "search.length_penalty must be zero or more, got -1.0"),
        ({"coverage_penalty": -1.0}, "search.coverage_penalty must be zero or more, got -1.0"),
        ({"n_best": -1}, "search.n_best must be zero or more, got -1"),
    ],
)
def test_invalid_values_are_refused(settings, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        SearchConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam": 6, "groups": 4}, "search.groups must divide search.beam=6, got 4; take one of 1, 2, 3, 6."),
        ({"beam": 4, "n_best": 5}, "search.n_best must be at most the 4 hypotheses of a beam"),
        ({"beam": 4, "group_penalty": 0.5}, "needs groups to differ, got search.groups=1; set search.groups to 2"),
        (
            {"rules": LogitsRules(min_ratio=2.0, max_ratio=1.5)},
            "min_ratio must be at most search.rules.max_ratio=1.5, got 2.0",
        ),
        (
            {"rules": LogitsRules(min_length=9), "max_length": 5},
            "min_length must be at most search.max_length=5, got 9",
        ),
        (
            {"samples": 4},
            "search.samples is for search.method=sample, got search.method=beam; leave search.samples out",
        ),
        ({"sampling": Sampling(top_k=3), "beam": 4}, "search.sampling is for search.method=sample, got"),
        (
            {"method": "sample", "beam": 4},
            "search.beam is for search.method=beam or stochastic, got search.method=sample",
        ),
        ({"method": "stochastic"}, "search.method=stochastic needs more than one hypothesis, got search.beam=1"),
        ({"method": "stochastic", "beam": 4, "stopping": "never"}, "search.stopping is for search.method=beam, got"),
    ],
)
def test_contradictory_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SearchConfig(**settings)


def test_overrides_may_come_in_any_order():
    """One by one, groups would not divide the beam; only the whole must make sense."""
    changes = ("search.groups=2", "search.group-penalty=0.5", "search.beam=4", "search.rules.banned=[4]")
    experiment = override(Experiment(), *changes)
    assert experiment.search.rules.banned == (4,)


def translator(**settings) -> Translator:
    tokenizer = Characters(["a"])
    search = SearchConfig(**settings)
    return Translator(compiled_search(MODEL, search, 6), PairTokenizer(tokenizer, tokenizer), search)


def answers(params=None, **settings) -> list:
    return list(translator(**settings).translate(table() if params is None else params, LINES))


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"method": "sample", "samples": 3, "sampling": Sampling(top_p=0.9)}, 3),
        ({"method": "stochastic", "beam": 3}, 3),
        ({"beam": 4, "groups": 2, "group_penalty": 1.0, "length_normalization": "average"}, 4),
        ({"beam": 4, "stopping": "bounded", "n_best": 2, "coverage_penalty": 0.2}, 2),
    ],
    ids=lambda value: value.get("method", "beam") if isinstance(value, dict) else "",
)
def test_every_method_translates_every_line_in_order_whatever_the_batches(settings, count):
    found = answers(**settings)
    assert [answer.source for answer in found] == LINES
    assert found[1].hypotheses == ()
    assert all(len(answer.hypotheses) == count for answer in found if answer.source)
    for answer, other in zip(found, answers(batch_size=1, **settings), strict=True):
        assert [one.tokens for one in answer.hypotheses] == [one.tokens for one in other.hypotheses]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"method": "sample", "samples": 2},
        {"method": "stochastic", "beam": 3},
        {"beam": 4, "groups": 2, "group_penalty": 0.5, "coverage_penalty": 0.2},
    ],
    ids=lambda settings: settings.get("method", f"beam {settings.get('beam', 1)}"),
)
def test_compaction_changes_no_result(settings):
    """Of 64 sentences the last 32 continue in a smaller batch, and of these the last 16."""
    random = np.random.default_rng(0)
    source = np.zeros((64, 5), np.int32)
    for row, length in enumerate(random.integers(0, 5, 64)):
        source[row, : length + 1] = [*random.integers(3, 6, length), EOS] if length else 0
    numbers, params = np.arange(64, dtype=np.int32), table(3)
    search = SearchConfig(rules=LogitsRules(min_ratio=1.5, repetition_penalty=1.5), **settings)
    find = compiled_search(MODEL, search, 9)
    whole, found = find(params, source, numbers), find(params, source, numbers, compactions=2)
    loops = [
        find.lower(params, source, numbers, compactions=count).as_text().count("stablehlo.while")  # pyright: ignore
        for count in (0, 2)
    ]
    assert loops[1] >= loops[0] + 2
    lengths = (np.asarray(found.tokens)[:, 0] != PAD).sum(-1)
    assert len(set(lengths)) > 3
    for name, one, other in zip(found._fields, found, whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, err_msg=name)


def test_a_compacted_sentence_continues_at_its_time(monkeypatch):
    """Time continues from loop to loop, and no step is taken for finished sentences."""
    monkeypatch.setattr(compaction, "MIN_SENTENCES", 1)
    ends = jax.numpy.array([1, 5, 2, 9, 3, 7, 4, 2])

    def advance(ends, now, time):
        taken, times, ends_carried = now
        goes_on = (taken < ends).astype("int32")
        return taken + goes_on, times + goes_on * 10 ** (time % 8), ends_carried

    begun = jax.numpy.zeros(8, "int32"), jax.numpy.zeros(8, "int32"), ends
    taken, times, _ = compaction.loop_until_done(
        advance, lambda now: now[0] >= now[2], ends, begun, steps=8, compactions=2
    )
    assert taken.tolist() == [1, 5, 2, 8, 3, 7, 4, 2]
    assert times.tolist() == [int("1" * steps) for steps in taken.tolist()]  # times 0, 1, 2, ... once each


def test_many_lines_are_compacted_with_the_same_translations():
    """From a first full window on; few lines compile no compacted loop."""
    lines = ["ab" if number % 16 else "ba" for number in range(WINDOW * 16 + 5)]  # a letter unknown: the other table
    one, requested = translator(batch_size=16), []
    find, one.search = (
        one.search,
        lambda *given, **more: requested.append(more["compactions"]) or find(*given, **more),
    )
    found = [answer.text for answer in one.translate(table(4), lines)]
    assert requested == [COMPACTIONS] * (WINDOW + 1)
    requested.clear()
    assert found == [answer.text for answer in one.translate(table(4), lines, window=20)]
    assert set(requested) == {0}


def test_the_seed_and_the_line_number_decide_a_sample():
    one, again, other = (
        [answer.text for answer in answers(method="sample", seed=seed, rules=LogitsRules(min_length=5))]
        for seed in (1, 1, 2)
    )
    assert one == again != other
    assert one[2] != one[6]  # the same line in another place


def test_consensus_puts_the_most_frequent_sample_first():
    plain = answers(method="sample", samples=15, rules=LogitsRules(unknown=False))
    agreed = answers(method="sample", samples=15, rules=LogitsRules(unknown=False), mbr_metric="exact")
    for before, after in zip(plain, agreed, strict=True):
        texts = [one.text for one in before.hypotheses]
        if texts:
            assert texts.count(after.text) == max(map(texts.count, texts))
            assert sorted({*texts}) == sorted(one.text for one in after.hypotheses)


EXTREMES = (
    {"beam": 50},
    {"beam": 50, "n_best": 50, "stopping": "bounded"},
    {"beam": 50, "groups": 50, "group_penalty": 0.5},
    {"beam": 7, "sibling_penalty": 1e30, "coverage_penalty": 1e30, "length_penalty": 1e30},
    {"method": "sample", "samples": 50, "sampling": Sampling(top_k=2**63 - 1, temperature=1e-6)},
    {"method": "sample", "seed": 2**63 - 1},
    {"method": "stochastic", "beam": 50},
    {"beam": 2, "rules": LogitsRules(no_repeat_ngram=2**63 - 1, min_length=1, min_ratio=1e30, max_ratio=1e30)},
    {"max_source": 1},
    {"batch_size": 2**63 - 1, "batch_tokens": 2**63 - 1},
    {"batch_tokens": 1},
)


@pytest.mark.parametrize("extreme", EXTREMES, ids=str)
def test_extreme_numbers_meet_the_shortest_translations(extreme):
    """More slots than strings, bounds beyond every length, no room for the prefix: each line has its answer."""
    config, tokenizer = SearchConfig(max_length=1, **extreme), Characters(["a"])
    one = Translator(compiled_search(MODEL, config, 1), PairTokenizer(tokenizer, tokenizer), config)
    lines = ["a", "", ConstrainedLine("aa", prefix="aaaaa")]
    found = list(one.translate(table(), lines))
    assert [len(answer.source) for answer in found] == [1, 0, 2]
    assert [len(answer.tokens) for answer in found] == [1, 0, 1]


def test_one_program_serves_every_line_number():
    """Line numbers are an argument: they compile nothing anew."""
    search = compiled_search(MODEL, SearchConfig(method="sample"), 4)
    source = jax.numpy.array([[4, 2, 0]], "int32")
    for number in range(3):
        search(table(), source, jax.numpy.array([number], "int32"))
    assert search._cache_size() == 1  # pyright: ignore


def test_every_field_has_a_description():
    known = {setting.name: setting.description for setting in settings(SearchConfig())}
    assert {"rules.no_repeat_ngram", "sampling.top_p"} <= set(known)
    assert len(known) >= len(dataclasses.fields(SearchConfig))
    assert all(known.values())


def test_the_names_that_are_typed_are_those_of_the_tables():
    assert set(typing.get_args(SearchName)) == set(SEARCHES)
    assert set(typing.get_args(LengthNormalizationName)) == set(LENGTH_NORMALIZATIONS)
    assert set(typing.get_args(MbrMetricName)) == {"none", *MBR_METRICS}


def test_a_search_of_the_user_is_one_function_and_one_entry(monkeypatch):
    """It reads any setting, even those that other searches do not, and gets keys, rules and lengths."""
    calls = []

    def second_best(model, params, source, *, config, max_length, keys, prefix=None, compactions=0):
        calls.append((config.beam, config.samples, max_length, keys.shape))
        found = SEARCHES["beam"](model, params, source, config=config, max_length=max_length, keys=keys)
        return SearchResult(*(leaf[:, 1:2] for leaf in found))

    with pytest.raises(ValueError, match="search.method must be one of beam, sample, stochastic, got 'second_best'"):
        SearchConfig(method="second_best")
    monkeypatch.setitem(SEARCHES, "second_best", second_best)
    found = answers(method="second_best", beam=3, samples=7)
    assert calls[0][:3] == (3, 7, 6)
    best = answers(beam=3)
    assert [one.text for one in found] == [one.hypotheses[1].text if one.hypotheses else "" for one in best]
    with pytest.raises(ValueError, match="hold need search.method=beam, got second_best"):
        list(translator(method="second_best", beam=3).translate(table(), [ConstrainedLine("a", phrases=("a",))]))


def test_options_of_the_compiler_reach_it():
    source, numbers = jnp.array([[3, 4, 2]]), jnp.zeros(1, jnp.int32)
    for_graphs = {"xla_gpu_command_buffer_unroll_loops": True}
    plain, with_graphs = (compiled_search(MODEL, SearchConfig(), 4, compiler_options=each) for each in ({}, for_graphs))
    for found, wanted in zip(*(find(table(), source, numbers) for find in (plain, with_graphs)), strict=True):
        np.testing.assert_array_equal(found, wanted)
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such"):
        compiled_search(MODEL, SearchConfig(), 4, compiler_options={"xla_no_such": 1})(table(), source, numbers)
