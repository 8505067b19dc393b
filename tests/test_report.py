"""A synthetic sweep with failures and hostile tokens, reported in four formats and opened in a browser."""

import base64
import csv
import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from s2s_jax.evaluate.metrics import value
from s2s_jax.evaluate.states import PairStates
from s2s_jax.sweep.predictions import _add_heads
from s2s_jax.sweep.report import numbers, write_report
from s2s_jax.sweep.report.colors import DARK, LIGHT
from s2s_jax.sweep.report.comparisons import compare_to_baseline
from s2s_jax.sweep.report.figures import draw_figures
from s2s_jax.sweep.report.findings import describe_findings
from s2s_jax.sweep.report.gallery import NAN, _map
from s2s_jax.sweep.report.html import to_html
from s2s_jax.sweep.report.join import join_results
from s2s_jax.sweep.report.markdown_latex import escape_latex, escape_markdown
from s2s_jax.sweep.report.style import mark_style, standalone_css
from s2s_jax.sweep.report.svg import Axis, axis_of, escape_text, shorten, tick_text, token_text
from s2s_jax.sweep.results import ExamplePrediction, SampleTranslation, SweepResults, TrialResult, sample_sources
from s2s_jax.sweep.significance import sign_flip_test
from s2s_jax.sweep.sweep import Published

HOSTILE = ("</s>", "<b>x", "&amp;", "東京", "سلام", "▁the", '"q"', "a\u0000b", "\u202eevil")
SCORES = {
    "none": 0.42,
    "dot": 0.72,
    "general": 0.74,
    "additive": 0.80,
    "location-aware": 0.81,
    "gaussian-mixture": 0.66,
}
SENTENCES = 240


def shown(random, *, attends=True):
    source, tokens = (
        ("東京", "<b>x", "سلام", "▁the", "&amp;", "</s>"),
        ("Tokyo", "&amp;", "a\u0000b", "\u202eevil", '"q"', "</s>"),
    )
    weights = random.dirichlet(np.full(6, 0.15), size=6) if attends else np.zeros((6, 6))
    return ExamplePrediction(
        "東京 <b>x سلام &amp; C:\\new_file | 100%", ("Tokyo <b>x",), "Tokyo &amp; \u202eevil", source, tokens, weights
    )


def trial(name, point, seed, quality, *, attends, random, curve_steps=12):
    right = (random.random(SENTENCES) < np.clip(quality + random.normal() * 0.012, 0, 1)).astype(float)
    tokens = random.integers(4, 30, size=SENTENCES).astype(float)
    nats = tokens * (1.4 - quality) * random.gamma(20, 1 / 20, size=SENTENCES)
    counts = {"exact_match": np.stack([right, np.ones(SENTENCES)], 1), "perplexity": np.stack([nats, tokens], 1)}
    counts["bleu"] = np.zeros((SENTENCES, 10))
    for order in range(4):
        grams = np.maximum(tokens - order, 0)
        counts["bleu"][:, 6 + order] = grams
        counts["bleu"][:, 2 + order] = np.floor(grams * np.clip(quality + 0.15 * right, 0, 1) ** (order + 1))
    counts["bleu"][:, :2] = tokens[:, None]
    metrics = {metric: value(metric, numbers_.sum(0)) for metric, numbers_ in counts.items()}
    metrics |= {"aer": 0.1 + 0.3 * (1 - quality) + 0.02 * random.random() if attends else None}
    metrics |= {"attention_entropy": 0.4 + random.random() * 0.1} if attends else {}
    steps = [250 * (place + 1) for place in range(curve_steps)]
    loss = [(step, 2.8 * math.exp(-step / 900) + 1.1 - quality + 0.03 * random.normal()) for step in steps]
    lengths = np.sort(random.integers(5, 40, size=SENTENCES))
    samples = {
        index: SampleTranslation(
            f"source <{index}>", (f"right {index}",), f"{'right' if right[index] else 'wrong'} {index}"
        )
        for index in sample_sources(lengths)
    }
    return TrialResult(
        name=name,
        folder=Path("/sweeps/dates/trials", name),
        start={"s2s_jax": "0.2.0", "python": "3.11.2", "packages": {"jax": "0.10.2"}, "devices": "1 x cpu"},
        reads=1 + (seed == 1),
        signature="nrefs:1|tok:13a",
        samples=samples,
        point=point,
        seed=seed,
        status="done",
        launch_mode="replicas" if seed else "single",
        settings={"seed": seed, "data.train": "task:dates", "data.test": "task:dates", "validation.metric": "loss",
                  "model.attention.score": point["attention"], "model.decoder.size": 64 * len(point)},
        parameters=1_234_567 + 1000 * len(name),
        steps=3000,
        tokens=1_920_000 + seed,
        seconds=61.5 + random.random(),
        best_step=2750,
        metrics=metrics,
        counts=counts,
        lengths=lengths,
        curves={"loss": loss},
        gallery=(shown(random, attends=attends),),
    )  # fmt: skip


def sweep_results(*, seeds=8, labels=tuple(SCORES), other=(), failing=True):
    random = np.random.default_rng(0)
    axes = {"attention": labels, **({"cell": other} if other else {})}
    results = []
    for extra in other or ("",):
        for label in labels:
            for seed in range(seeds):
                point = {"attention": label, **({"cell": extra} if extra else {})}
                name = "-".join([*point.values(), str(seed)])
                quality = SCORES.get(label, 0.7) + (0.05 if extra == "lstm" else 0)
                results.append(trial(name, point, seed, quality, attends=label != "none", random=random))
    if failing:
        bare = {"metrics": {}, "counts": {}, "curves": {}, "gallery": (), "lengths": np.zeros(0, np.int64)}
        error = "seed 3: out of memory in <lambda> & co"
        results[3] = results[3]._replace(status="failed", error=error, **bare)
        results[-1] = results[-1]._replace(status="diverged", error="loss is NaN at step 120", **bare)
    return SweepResults(
        name="Scores of attention on dates",
        claim="A learned score beats the dot product, and any attention beats none.\nThe gap is no noise.",
        command="s2s sweep experiments/attention/scores.py",
        axes=axes,
        compare="attention",
        baseline="dot" if "dot" in labels else labels[0],
        metrics=("exact_match", "bleu", "perplexity"),
        trials=tuple(results),
    )  # fmt: skip


def test_published_numbers_stand_beside_the_means():
    results = sweep_results(failing=False)
    published = (Published("dot", "exact_match", 0.0), Published("none", "bleu", 50.0, aim=200.0))
    found = describe_findings(compare_to_baseline(results._replace(published=published)))
    assert re.fullmatch(r"Exact match of “dot”: published 0, here 0\.\d+ \(8 seeds\): reached\.", found[0])
    assert re.fullmatch(r"BLEU of “none”: .* not reached, [\d.]+ short of 200\.", found[1])
    assert found[2:] == describe_findings(compare_to_baseline(results))


def two_axes():
    return sweep_results(seeds=4, labels=("none", "dot", "additive", "location-aware"), other=("gru", "lstm"))


def page_of(results):
    comparison = compare_to_baseline(results)
    return to_html(comparison, draw_figures(comparison))


class Page(HTMLParser):
    """Links, ids, what is loaded, and the balance of tags."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loads, self.open = [], [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        self.loads += [found[name] for name in ("src", "data", "srcset") if name in found]
        self.loads += [found["href"]] if tag in ("link", "use", "image") else []
        assert tag not in ("b-x", "iframe")
        self.open += [] if tag in ("meta", "link", "br", "input") else [tag]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(two_axes(), folder)
    return folder


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_results_give_the_same_bytes(written, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.svg").write_text("of an earlier report")
    assert write_report(two_axes(), tmp_path) == tmp_path / "report.html"
    assert files(tmp_path) == files(written)
    assert {"report.html", "report.md", "table.csv", "table.tex"} < files(tmp_path).keys()


def test_page_is_complete_and_loads_nothing(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    inner = [link[1:] for link in page.links if link.startswith("#")]
    assert set(inner) <= set(page.ids)
    assert len(inner) > 80
    assert [link for link in page.links if link.endswith("/trials/dot-gru-3/log.txt")]
    assert all(link.startswith(("#", "../")) for link in page.links)
    assert page.loads == ["data:,"]
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    sections = (
        "results",
        "differences",
        "learning",
        "lengths",
        "attention",
        "alignments",
        "choices",
        "settings",
        "runs",
    )
    assert set(sections) <= set(page.ids)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert {"</s>", "<b>x", "&amp;", "東京", "سلام"} <= {token for each in data["maps"] for token in each["source"]}
    assert len(data["maps"]) == 3 * 2 * 4 - 1  # variants that attend, cells, seeds; one of them diverged
    assert "<b>x" not in text
    assert "\u202e" not in text
    assert "\x00" not in text
    assert "U+202E" in text
    assert "the test split was read, again whenever settings of the search were changed, 1–2 times per run" in text
    assert "s2s_jax 0.2.0, Python 3.11.2, jax 0.10.2. Hardware: 1 x cpu" in text
    assert "BLEU&#x27;s signature is nrefs:1|tok:13a." in text
    assert re.search(r"<dt>(<b>=</b> )?<bdi>.*?</bdi>&#8239;\d/4", text)  # how many seeds were right


def test_weights_are_kept_to_a_part_in_254():
    weights = np.array([[0.0, 0.5, 1.0], [math.nan, 0.001, 1.2]])
    example = ExamplePrediction("a b c", ("x",), "x", ("a", "b", "c"), ("x", "y"), weights, heads=(weights / 2,))
    first, second = (np.frombuffer(base64.b64decode(each), np.uint8) for each in _map(example)["weights"])
    assert first.tolist() == [0, 127, 254, NAN, 0, 254]
    assert second.tolist() == [0, 64, 127, NAN, 0, 152]


def test_figures_are_xml_with_fixed_colors(written):
    found = sorted((written / "figures").glob("*.svg"))
    assert {"difference-exact_match.svg", "learning-loss-1.svg", "length-2.svg", "parallel.svg"} < {
        p.name for p in found
    }
    for path in found:
        assert "var(" not in path.read_text(encoding="utf-8")
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_a_chart_has_the_same_styles_in_its_file_and_as_pdf():
    seed = mark_style("seed", 1, 18)
    assert seed == {"fill": "#ffffff", "stroke": LIGHT.first[1], "stroke-width": "1.4"}
    assert mark_style("seed", 12, 18)["stroke"] == LIGHT.named["rest"]
    assert mark_style("tick", -1, 18)["fill"] == LIGHT.named["mute"]
    assert mark_style("band", 1, 18) is mark_style("label end", 12, 18) is None
    assert mark_style("band", 1, 4)["fill"] == LIGHT.first[1]
    css = standalone_css(18)
    assert f".v1 .seed{{fill:#ffffff;stroke:{LIGHT.first[1]};stroke-width:1.4}}" in css
    assert ".v12 .end{display:none}" in css


def test_failures_are_counted_and_reported(written):
    text = (written / "report.html").read_text(encoding="utf-8")
    assert "30 of 32 runs done, 1 failed, 1 diverged" in text
    assert "3 of 4<small>1 failed</small>" in text
    assert "3 of 4<small>1 diverged</small>" in text
    assert "out of memory in &lt;lambda&gt; &amp; co" in text
    assert "loss is NaN at step 120" in text
    assert "out of memory in &lt;lambda&gt; &amp; co" in (written / "report.md").read_text(encoding="utf-8")


def test_csv_has_full_precision(written):
    rows = list(csv.DictReader(io.StringIO((written / "table.csv").read_text(encoding="utf-8"))))
    comparison = compare_to_baseline(two_axes())
    assert len(rows) == len(comparison.rows) == 8
    for record, row in zip(rows, comparison.rows, strict=True):
        seeds = [each.metrics["exact_match"] for each in row.done]
        assert float(record["exact_match_mean"]) == pytest.approx(np.mean(seeds))
        assert int(record["done"]) == len(seeds) == 4 - int(record["failed"]) - int(record["diverged"])
        assert (record["p"] == "") == row.is_baseline == (record["attention"] == "dot")
        assert float(record["exact_match_low"]) < float(record["exact_match_mean"]) < float(record["exact_match_high"])


def test_pairs_are_seeds_that_both_sides_have():
    comparison = compare_to_baseline(
        sweep_results(labels=("dot", "none"))
    )  # seed 3 of dot and seed 7 of none are missing
    gap = comparison.rows[1].differences["exact_match"]
    by_seed = {
        row.is_baseline: {each.seed: each.metrics["exact_match"] for each in row.done} for row in comparison.rows
    }
    shared = sorted(by_seed[True].keys() & by_seed[False].keys())
    assert shared == [0, 1, 2, 4, 5, 6]
    gaps = np.array([by_seed[False][seed] - by_seed[True][seed] for seed in shared])
    assert gap.spread.mean == pytest.approx(gaps.mean())
    assert gap.p == sign_flip_test(gaps) == 2 / 2**6
    assert gap.interval.low < gaps.mean() < gap.interval.high
    assert gap.interval.over == "seeds and sentences"
    assert gap.wins == (0, 0, 6)
    assert gap.improvement == 0.0
    assert gap.p_max_t == gap.p_holm == gap.p
    assert gap.population == "on new sentences too"
    assert comparison.power.startswith("1 comparison needs 6 seeds, there are 6: the smallest possible p is 0.031")


def test_a_sweep_with_too_few_seeds_says_so(tmp_path):
    text = page_of(sweep_results(seeds=3, failing=False))
    assert "5 comparisons by max-T need 6 seeds, there are 3: no difference can be significant" in text
    assert "no difference from dot is significant (smallest corrected p 0.250)" in text


def test_one_seed_one_value_no_attention(tmp_path):
    text = page_of(sweep_results(seeds=1, labels=("none",), failing=False))
    ids = Page(text).ids
    assert "There is nothing to compare: the axis has one value." in text
    assert not {"alignments", "attention", "differences", "choices", "settings"} & set(ids)
    assert "learning" in ids


def test_nothing_is_done_yet(tmp_path):
    waiting = tuple(TrialResult(f"c{n}", {"attention": label}, 0, "waiting") for n, label in enumerate(("dot", "none")))
    text = page_of(sweep_results(labels=("dot", "none"))._replace(trials=waiting))
    assert "No run is done yet" in text
    assert "0 of 2 runs done, 2 waiting" in text
    assert {"results", "methods", "runs", "runs-1", "runs-2"} <= set(Page(text).ids)
    assert not {"differences", "learning", "lengths", "alignments"} & set(Page(text).ids)
    write_report(sweep_results()._replace(trials=()), tmp_path)  # not even planned


def test_ties_missing_and_infinite_numbers(tmp_path):
    made = sweep_results(seeds=3, labels=("dot", "none", "general"), failing=False)
    strange = {0: {}, 1: {"exact_match": math.nan, "perplexity": math.inf, "bleu": None}}
    results = [each._replace(metrics=each.metrics | strange.get(each.seed, {})) for each in made.trials]
    same = [each for each in results if each.point["attention"] == "dot"]
    results[6:] = [each._replace(point={"attention": "general"}, name=f"g{each.seed}") for each in same]
    comparison = compare_to_baseline(made._replace(trials=tuple(results)))
    gap = comparison.rows[2].differences["exact_match"]
    assert gap.wins == (0, 2, 2)
    assert gap.p == 1.0
    assert gap.improvement == 0.5
    assert gap.spread == (0.0, 0.0, 2)
    assert gap.interval.low == gap.interval.high == 0.0
    text = page_of(made._replace(trials=tuple(results)))
    assert "NaN</td>" in text
    assert "∞</td>" in text
    assert "(2 of 3)" in text
    assert "0 of 2<small>2 tied</small>" in text


def test_different_test_sets_are_not_paired_by_sentence():
    made = sweep_results(seeds=3, labels=("dot", "none"), failing=False)

    def cut(each):
        return each._replace(counts={metric: counts[: 100 + each.seed] for metric, counts in each.counts.items()})

    results = [cut(each) if each.point["attention"] == "none" else each for each in made.trials]
    comparison = compare_to_baseline(made._replace(trials=tuple(results)))
    assert comparison.rows[0].intervals["bleu"].over == "seeds and sentences"
    assert comparison.rows[1].intervals["bleu"].over == comparison.rows[1].differences["bleu"].interval.over == "seeds"


def test_test_sets_of_one_size_with_other_lines_are_not_paired_by_sentence():
    whole = sweep_results(seeds=3, labels=("dot", "none"), failing=False)
    trials = tuple(each._replace(test_set="of " + each.point[whole.compare]) for each in whole.trials)
    comparison = compare_to_baseline(whole._replace(trials=trials))
    assert comparison.rows[1].intervals["bleu"].over == "seeds and sentences"
    assert comparison.rows[1].differences["bleu"].interval.over == "seeds"


def test_sweeps_are_joined_on_the_axes_that_they_share():
    first = sweep_results(seeds=2, labels=("dot", "none"), failing=False)
    second = sweep_results(seeds=2, labels=("general", "additive"), failing=False)._replace(name="More scores")
    joined = join_results([first, second])  # other points: one grid
    assert joined.axes == {"attention": ("dot", "none", "general", "additive")}
    assert (joined.compare, joined.baseline, len(joined.trials)) == ("attention", "dot", 8)
    assert compare_to_baseline(joined).comparisons == 3
    wide = sweep_results(seeds=2, labels=("dot",), other=("gru",), failing=False)
    wide = wide._replace(axes={"attention": ("dot",), "model.decoder.size": ("64",)}, trials=tuple(
        each._replace(point={"attention": "dot", "model.decoder.size": "32"}) for each in wide.trials
    ))  # fmt: skip
    joined = join_results([first, wide])  # an axis that the first lacks: the value of its setting
    assert joined.axes == {"attention": ("dot", "none"), "model.decoder.size": ("64", "32")}
    joined = join_results([first, first])  # the same points: sweep against sweep
    names = ("Scores of attention on dates (1)", "Scores of attention on dates (2)")
    assert joined.axes == {"attention": ("dot", "none"), "sweep": names}
    assert (joined.compare, joined.baseline) == ("sweep", names[0])
    comparison = compare_to_baseline(joined)
    assert [row.differences["exact_match"].spread.mean for row in comparison.rows if row.differences] == [0.0, 0.0]


def test_results_that_cannot_be_compared_are_refused():
    made = sweep_results(seeds=1)
    with pytest.raises(ValueError, match="compare must be one of attention, got 'atention'; did you mean"):
        compare_to_baseline(made._replace(compare="atention"))
    with pytest.raises(ValueError, match="baseline must be one of .*, got 'dott'; did you mean 'dot'?"):
        compare_to_baseline(made._replace(baseline="dott"))
    with pytest.raises(ValueError, match="metrics must be one of .*, got 'blue'; did you mean 'bleu'?"):
        compare_to_baseline(made._replace(metrics=("blue",)))
    with pytest.raises(ValueError, match="metrics must name at least one, the tested one first, got none"):
        compare_to_baseline(made._replace(metrics=()))
    with pytest.raises(
        ValueError, match="metrics must begin with one that has a better direction, got 'attention_entropy'"
    ):
        compare_to_baseline(made._replace(metrics=("attention_entropy",)))


def test_latex_and_markdown_escape_every_special_character(written):
    assert escape_latex("100% & $x_1$ #{a}") == r"100\% \& \$x\_1\$ \#\{a\}"
    assert escape_latex("~^\\") == r"\textasciitilde{}\textasciicircum{}\textbackslash{}"
    assert escape_latex("<b>|") == r"\textless{}b\textgreater{}\textbar{}"
    assert escape_markdown("a|b <i> *x* _y_ `z` [1] &amp;") == r"a\|b &lt;i&gt; \*x\* \_y\_ \`z\` \[1\] &amp;amp;"
    tex = (written / "table.tex").read_text(encoding="utf-8")
    lines = tex.splitlines()
    width = len(re.search(r"tabular\}\{([lr]+)\}", tex)[1])
    assert all(len(re.findall(r"(?<!\\)&", each)) == width - 1 for each in lines if each.endswith(r"\\"))
    table = [
        each for each in (written / "report.md").read_text(encoding="utf-8").splitlines() if each.startswith("| gru")
    ]
    assert {len(re.findall(r"(?<!\\)\|", each)) for each in table} == {width + 1}


def test_numbers_have_as_many_digits_as_their_deviation_allows():
    assert [numbers.decimals_for(each) for each in ([0.012], [3.2, None], [120.0], [], [0.0], [1e-9])] == [
        3,
        1,
        0,
        3,
        3,
        5,
    ]
    assert numbers.with_spread(0.81234, 0.0123, 3) == "0.812 ± 0.012"
    assert numbers.with_spread(1.0, None, 2) == "1.00"
    assert [numbers.signed(each, 2) for each in (0.5, -0.5, 0.001, -0.001, math.nan, None)] == (
        ["+0.50", "−0.50", "0.00", "0.00", "NaN", "–"]
    )
    assert [numbers.p_value(each) for each in (1.0, 0.0312, 0.0001, None)] == ["1.000", "0.031", "< 0.001", "–"]
    assert [numbers.compact(each) for each in (0, 999, 1234567, 12.5e9, None)] == [
        "0",
        "999",
        "1.23\u202fM",
        "12.5\u202fG",
        "–",
    ]
    assert numbers.whole(1234567.4) == "1\u202f234\u202f567"


def test_ticks_are_round():
    axis = Axis(0.113, 0.94, 0, 100)
    assert [tick_text(tick, axis.ticks()) for tick in axis.ticks()] == ["0.2", "0.4", "0.6", "0.8"]
    assert Axis(0.9, 4000, 0, 100, True).ticks() == [1, 10, 100, 1000]
    assert axis_of([3.0, 3.0], start=0, end=10).place(3.0) == 5
    assert [tick_text(each, sorted([0.0, each])) for each in (-2500.0, 25_000.0, 0.25)] == ["−2500", "25k", "0.25"]


def test_text_is_literal():
    assert escape_text('<b>x & "y" \u200e') == "&lt;b&gt;x &amp; &quot;y&quot; U+200E"
    assert escape_text("\u0301a") == "\u25cc\u0301a"
    assert escape_text("\ud800") == "U+D800"
    assert token_text("a b\u200e") == "a␣bU+200E"
    assert token_text("") == "∅"
    assert shorten("abcdefghij", 6) == "ab…hij"


def luminance(color):
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_colors_have_enough_contrast(palette):
    def contrast(one, other):
        low, high = sorted([luminance(one), luminance(other)])
        return (high + 0.05) / (low + 0.05)

    named, colors = palette.named, palette.variants(50)
    for ground in ("paper", "raised"):
        assert all(contrast(named[name], named[ground]) >= 4.5 for name in ("ink", "mute", "link", "bad"))
    assert len(set(colors)) == 50
    assert all(contrast(color, named["paper"]) >= 3 for color in colors)


def test_an_axis_breaks_where_few_rows_are_far_away():
    near = [(0.60 + 0.01 * place, 0.65 + 0.01 * place) for place in range(8)]

    def axis(*spans, **options):
        return axis_of([end for span in spans for end in span], start=0, end=400, spans=spans, **options)

    broken = axis((0.1, 0.12), *near)
    assert broken.outliers_first
    assert broken.gap[0] < 0.3 < broken.gap[1]
    places = [broken.place(low) for low, _ in ((0.1, 0.12), *near)]
    assert places == sorted(places)
    assert places[-1] - places[1] > 150  # without the break they would have 45 of 400 pixels
    assert [axis(*spans).gap for spans in (near, near[:4], [(0.1, 0.6), *near], [(0.1, 0.1)] * 4 + near)] == [None] * 4
    assert axis((0.1, 0.12), *near, at_zero=True).place(0) < places[0]
    mirrored = axis((-0.12, -0.1), *((-high, -low) for low, high in near))
    assert not mirrored.outliers_first
    assert mirrored.place(-0.1) == pytest.approx(400 - places[0])


def test_heads_are_kept_where_the_text_is_read_back_as_it_was_written():
    heads = np.arange(12.0).reshape(2, 2, 3) / 10  # [T, N, S]
    read = [PairStates(*[()] * 2, tokens, *[()] * 5, heads, *[()] * 2) for tokens in (("x", "</s>"), ("y", "</s>"))]
    records = [{"tokens": ("x", "</s>")}, {"tokens": ("z", "</s>")}]
    _add_heads(records, read)
    assert records[0]["heads"] == heads.swapaxes(0, 1).tolist()
    assert "heads" not in records[1]


@pytest.fixture
def opened(browser, written):
    """Opens the page in a window of some width; at the end nothing may have been logged or loaded."""
    messages, requests, pages = [], [], []

    def opened(width=1280, scheme="light", **options):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((written / "report.html").as_uri())
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert messages == []
    assert all(url.startswith(("file://", "data:")) for url in requests)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark"), (3840, "light")])
def test_the_page_fits_its_window(opened, width, scheme):
    page = opened(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # only tables scroll sideways
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
    assert page.locator("b-x, svg b").count() == 0
    assert {"</s>", "<b>x", "&amp;", "東京", "سلام"} <= set(page.locator("table.map thead th").all_text_contents())


def test_rows_are_sorted_filtered_and_grouped(opened):
    page = opened()
    rows = page.locator("table.main tbody tr.v:not(.out)")
    head = page.locator("table.main th[aria-sort]", has_text="Exact match").first
    column = "row => Number(row.cells[3].dataset.k)"
    page.locator("#by").select_option("attention")
    assert page.locator("tr.group").all_text_contents() == [
        f"attention {name}" for name in ("none", "dot", "additive", "location-aware")
    ]
    assert page.locator("#learning .facets:visible figure").count() == 4  # one chart per score
    page.locator("#by").select_option("cell")
    for direction in ("descending", "ascending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == direction
        values = rows.evaluate_all(f"rows => rows.map({column})")
        for group in (values[:4], values[4:]):  # within each cell
            assert group == sorted(group, reverse=direction == "descending")
    page.locator("#filter").fill("location")
    assert rows.count() == 2
    assert page.locator("#count").text_content() == "2 of 8"
    assert page.locator("#differences svg g.v:not(.out)").count() == 6  # three metrics
    assert page.locator("#runs tbody tr:not(.out)").count() == 8
    page.locator("#bar select[data-axis=cell]").select_option("lstm")
    assert rows.count() == 1
    page.locator("#reset").click()
    assert rows.count() == 8
    assert head.get_attribute("aria-sort") == "none"


def test_one_variant_is_highlighted_in_all_charts(opened):
    page = opened()
    color = "node => getComputedStyle(node).stroke"
    chip = page.locator("#legend button", has_text="additive")
    variant = chip.get_attribute("data-v")
    curves = page.locator(f"svg g[data-v='{variant}'] .curve")
    colors = set(curves.evaluate_all(f"nodes => nodes.map({color})"))
    assert len(colors) == 1  # in every chart
    chip.hover()
    assert "lit" in page.evaluate("document.body.className").split()
    assert page.locator("svg g.v.on").count() == page.locator(f"svg g[data-v='{variant}']").count() > 5
    page.locator("table.main tbody tr.v").first.hover()
    assert page.locator("svg g.v.on").first.get_attribute("data-v") != variant
    page.locator("#differences svg g.v").first.locator(".mean").hover()
    assert page.locator("#tip").is_visible()
    assert "[" in page.locator("#tip").text_content()
    chip.click()  # stays
    page.mouse.move(2, 2)
    assert chip.get_attribute("aria-pressed") == "true"
    assert page.locator("#maps figure").count() == 2  # additive, with each cell
    page.locator("#seed").select_option("all")
    assert page.locator("#maps figure").count() in (7, 8)  # one run may have failed


def test_numbers_lead_to_their_runs_and_print(opened, tmp_path):
    page = opened()
    page.locator("table.main td a").first.click()
    assert page.url.endswith("#runs-1")
    assert page.locator("#runs-1").is_visible()  # unfolded
    page.locator("#lengths summary").first.click()
    assert page.locator("#lengths dl").first.is_visible()
    page.emulate_media(media="print")
    assert page.locator("#filter").is_hidden()
    page.set_viewport_size({"width": 703, "height": 900})  # A4 less its margins
    assert page.evaluate("document.querySelector('table.main').getBoundingClientRect().right") <= 703
    spaces = page.locator("table.main tbody td").evaluate_all("all => all.map(td => getComputedStyle(td).whiteSpace)")
    assert set(spaces) == {"nowrap"}
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_scripts_the_report_is_complete(opened):
    page = opened(java_script_enabled=False)
    assert page.locator("table.main tbody tr.v").count() == 8
    assert page.locator("#filter").is_hidden()
    assert page.locator("#learning .facets:visible figure").count() == 2
