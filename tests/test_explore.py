"""The explorer: the beam as a tree against a slow beam, each step against NumPy, its addresses, and its page."""

import asyncio
import dataclasses
import json
import threading
from time import sleep

import fake
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from s2s_jax import run
from s2s_jax.decode.search import SearchConfig
from s2s_jax.evaluate.exposure_bias import free_running_nats
from s2s_jax.explore import neighbors
from s2s_jax.explore.beam_tree import beam_tree, path_of, search_with_record
from s2s_jax.explore.explorer import Explorer
from s2s_jax.explore.steps import Steps, attention_shapes, steps_of
from s2s_jax.run.model import make_model
from s2s_jax.shapes import BOS, EOS, UNK, Batch

SOURCE = np.array([[4, 3, 2, 0], [3, 4, 4, 2]], np.int32)


@pytest.fixture(scope="module")
def explorer(trained_run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "MOST_PAIRS", 300)
        explorer = Explorer(run.load(trained_run, changes=["search.beam=3"]))
        explorer.index()
    return explorer


def slow_tree(table, which, *, width, longest, prefix=()):
    """(path, total, fate) of each continuation that a beam considers, in slow Python."""
    live, ended, nodes = [((), 0.0)], 0, {(): (0.0, "open")}
    for time in range(longest):
        options = []
        for path, total in live:
            of_token = fake.log_probs(table, which, time, path[-1] if path else BOS)
            allowed = prefix[time : time + 1] or range(EOS, fake.WORDS)
            options += [((*path, token), total + of_token[token]) for token in allowed]
        options = sorted(options, key=lambda option: -option[1])[: 2 * width]
        kept = [option for option in options if option[0][-1] != EOS][:width]
        for place, (path, total) in enumerate(options):
            fate = "open" if (path, total) in kept else "ended" if path[-1] == EOS and place < width else "rejected"
            nodes[path] = total, fate
            if fate != "rejected":
                nodes[path[:-1]] = nodes[path[:-1]][0], "continued"
            ended += fate == "ended"
        for path, total in live:
            if nodes[path][1] == "open":
                nodes[path] = total, "pruned"
        live = kept
        if ended >= width:
            break
    return nodes


@pytest.mark.parametrize(("width", "prefix"), [(1, ()), (3, ()), (2, (4, 3))])
def test_the_tree_is_that_of_a_slow_beam(width, prefix):
    table, longest = fake.table(), 6
    given = np.zeros((2, longest), np.int32)
    given[:, : len(prefix)] = prefix
    config = SearchConfig(beam=2, length_penalty=0.0)
    search = jax.jit(
        lambda table, source, given: search_with_record(
            fake.MODEL, table, source, given, config=config, width=width, max_length=longest
        )
    )
    result, record, taken = jax.device_get(search(table, SOURCE, given))
    for row in range(2):
        nodes = beam_tree(record, row, width=width, steps=int(taken[row]))
        found = {path_of(nodes, number): node for number, node in enumerate(nodes)}
        wanted = slow_tree(table, int(SOURCE[row, 0]) % 2, width=width, longest=longest, prefix=prefix)
        assert {path: node.fate for path, node in found.items()} == {path: fate for path, (_, fate) in wanted.items()}
        for path, node in found.items():
            np.testing.assert_allclose(node.total, wanted[path][0], atol=1e-5)
        best = tuple(token for token in result.tokens[row, 0].tolist() if token)
        assert found[best].fate in ("ended", "open")
        assert result.scores[row, 0] == pytest.approx(found[best].total, abs=1e-5)


def test_each_step_is_the_distribution_of_the_model():
    table, target = fake.table(), np.array([[4, 3, 2, 0], [UNK, 2, 0, 0]], np.int32)
    steps = jax.jit(lambda *inputs: steps_of(fake.MODEL, *inputs, alternatives=10))(table, Batch(SOURCE, target))
    for row, time in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)):
        before = target[row, time - 1] if time else BOS
        log_probs = fake.log_probs(table, int(SOURCE[row, 0]) % 2, time, int(before))
        token = target[row, time]
        np.testing.assert_allclose(steps.log_probs[row, time], log_probs[token], atol=1e-5)
        np.testing.assert_allclose(steps.entropy[row, time], -(np.exp(log_probs) * log_probs).sum(), atol=1e-5)
        assert steps.rank[row, time] == (log_probs > log_probs[token]).sum()
        order = [token for token in np.argsort(-log_probs) if token >= EOS]
        assert steps.best[row, time, : len(order)].tolist() == order
        np.testing.assert_allclose(steps.best_log_probs[row, time, : len(order)], log_probs[order], atol=1e-5)


def test_a_trace_is_what_translate_finds_token_by_token(explorer):
    found = explorer.trace("a b c")
    (own,) = explorer.run.translate(["a b c"])
    assert [each["text"] for each in found["hypotheses"]] == [each.text for each in own.hypotheses]
    (scored,) = explorer.run.score([("a b c", own.text)])
    best = found["hypotheses"][0]
    assert (best["tokens"], found["source_tokens"]) == (list(own.tokens), list(own.source_tokens))
    np.testing.assert_allclose(best["log_probs"], scored.log_probs, atol=1e-4)
    np.testing.assert_allclose(best["attention"], own.alignment, atol=1e-4)
    np.testing.assert_allclose(best["coverage"], own.alignment.sum(0), atol=1e-4)
    assert [each[0]["id"] for each in best["alternatives"]] == best["ids"]
    assert best["rank"] == [0] * len(best["ids"])
    ended = [node for node in found["tree"] if node["fate"] == "ended"]
    assert min(abs(node["total"] - sum(best["log_probs"])) for node in ended) < 1e-3


def test_each_head_has_its_rows_without_padding(explorer):
    sentence, random = explorer.read("a b"), np.random.default_rng(0)
    flat, heads = np.zeros((2, 4)), random.random((2, 4, 3, 8))  # two targets, four steps, three heads
    best = np.full((2, 4, 5), 4)
    steps = Steps(flat, best[..., 0], flat, best, flat[..., None] + np.zeros(5), heads.mean(2), heads)
    found = sentence.step_record(steps, 1, [4, 2], attends=True)
    np.testing.assert_allclose(found["heads"], heads[1, :2, :, :3].swapaxes(0, 1), rtol=1e-5)
    np.testing.assert_allclose(found["attention"], heads[1, :2, :, :3].mean(1), rtol=1e-5)


def test_the_search_goes_on_from_a_prefix(explorer):
    first = explorer.trace("a b c")["hypotheses"][0]
    other = first["alternatives"][1][1]
    found = explorer.trace("a b c", prefix=[first["ids"][0], other["id"]])
    assert found["beam"] == 3
    for each in found["hypotheses"]:
        assert each["ids"][:2] == [first["ids"][0], other["id"]]
    assert found["hypotheses"][0]["log_probs"][1] == pytest.approx(other["log_prob"], abs=1e-4)
    (whole,) = explorer.trace("a b c", prefix=[other["id"], EOS])["hypotheses"]  # nothing is left to search
    assert (whole["ids"], whole["truncated"]) == ([other["id"], EOS], False)


def test_given_weights_make_the_context_that_predicts(explorer):
    """softmax(E tanh(W [context; state]) + b), with a context of the given weights."""
    loaded, weights = explorer.run, [0.2, 0.0, 0.5, 0.3]
    trace = explorer.trace("a b c")["hypotheses"][0]
    found = explorer.attend("a b c", trace["ids"], step=1, weights=weights)
    (states,) = loaded.states([("a b c", trace["text"])])
    decoder = {
        name: np.asarray(leaf, np.float64) for name, leaf in loaded.params["decoder"].items() if hasattr(leaf, "shape")
    }
    context = np.asarray(weights) @ states.encoder[-1]
    read = np.concatenate([context, states.decoder[-1][0][1]])
    logits = (
        decoder["output"] @ np.tanh(read @ np.asarray(loaded.params["decoder"]["readout"]["weight"]))
        + decoder["output_bias"]
    )
    log_probs = logits - np.log(np.exp(logits).sum())
    np.testing.assert_allclose(found["attention"][1], weights, atol=1e-6)
    for each in found["alternatives"][1]:
        assert each["log_prob"] == pytest.approx(log_probs[each["id"]], abs=1e-3)
    for name in ("log_probs", "entropy"):  # without feedback no other step depends on it
        np.testing.assert_allclose(np.delete(found[name], 1), np.delete(trace[name], 1), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "has_weights"),
    [
        (["model.attention.score=none"], False),
        (["model.attention.score=last-state"], False),
        (["model.decoder.architecture=hard", "model.decoder.input_feeding=false"], False),
        (["model.attention.heads=2"], True),
        (["model.decoder.architecture=bahdanau", "model.decoder.copy=pointer"], True),
    ],
)
def test_weights_are_replaced_only_where_a_step_reads_them(explorer, changes, has_weights):
    model = make_model(tiny.experiment(*changes).model, explorer.run.pair)
    params = jax.eval_shape(model.init, jax.random.key(0))
    batch = Batch(SOURCE, SOURCE)
    assert attention_shapes(model, params, batch) == ([(2, 4)] if has_weights else [])


def test_a_given_pair_under_both_regimes(explorer):
    found = explorer.forced("a b c", "a c c")
    assert found["tokens"] == ["a", "c", "c", "</s>"]
    assert found["first_wrong"] == 1
    assert found["free"]["text"] == "a b c"
    pair = explorer.run.pair
    source, target = (
        [*encode(line), EOS] for encode, line in ((pair.encode_source, "a b c"), (pair.target.encode, "a c c"))
    )
    batch = Batch(jnp.array([source], jnp.int32), jnp.array([target], jnp.int32))
    nats = free_running_nats(explorer.run.model, explorer.run.params, batch)
    assert -sum(found["free"]["log_probs"]) == pytest.approx(float(nats[0]), rel=1e-4)
    assert explorer.forced("a b c", "a b c")["first_wrong"] is None


def test_influence_has_a_number_per_pair_of_tokens(explorer):
    ids = explorer.trace("a b c")["hypotheses"][0]["ids"]
    found = np.array(explorer.influence("a b c", ids, method="occlusion")["influence"])
    assert found.shape == (len(ids), 4)
    hidden, shown = (explorer.forced(line, "a b c")["log_probs"] for line in ("a zz c", "a b c"))  # zz is unknown
    np.testing.assert_allclose(found[:, 1], np.subtract(shown, hidden), atol=1e-3)


def test_the_nearest_training_sentence_is_the_sentence_itself(explorer):
    index = explorer.index()
    example = index.examples[7]
    ids = [*explorer.run.pair.target.encode(example.target), EOS]
    found = explorer.neighbors(example.source, ids, step=len(ids) - 2, count=4)["neighbors"]
    assert (found[0]["source"], found[0]["target"]) == (example.source, example.target)
    assert found[0]["distance"] < 1e-2
    (states,) = explorer.run.states([(example.source, example.target)])
    distances = np.linalg.norm(index.states - states.decoder[-1][0][len(ids) - 2], axis=-1)
    best = {}
    for place in np.argsort(distances):
        one = index.examples[index.pair[place]]
        best.setdefault((one.source, one.target), distances[place])
    np.testing.assert_allclose([each["distance"] for each in found], list(best.values())[:4], atol=1e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: one.trace(" "), "the line is blank"),
        (lambda one: one.trace("a", beam=33), "beam must be between 1 and 32, got 33"),
        (lambda one: one.trace("a", prefix=[999]), "prefix must be ids of target tokens below"),
        (lambda one: one.trace("a", prefix=[0]), "and not 0 or 1, got 0"),
        (lambda one: one.trace("a", prefix=[2, 4]), "the end token 2 at the end alone"),
        (lambda one: one.trace("a", prefix=[4] * 99), r"a target may have \d+ tokens"),
        (lambda one: one.attend("a", [], step=0, weights=[]), "ids must have at least 1"),
        (lambda one: one.attend("a", [4, 2], step=2, weights=[1, 0]), "step must be between 0 and 1, got 2"),
        (lambda one: one.attend("a", [4, 2], step=0, weights=[1]), "weights must be 2 numbers of 0 or more"),
        (lambda one: one.attend("a", [4, 2], step=0, weights=[1, float("nan")]), "weights must be 2 numbers"),
        (lambda one: one.influence("a", [4], method="x"), "method must be one of"),
        (lambda one: one.neighbors("a", [4], step=0, count=0), "count must be between 1 and 100"),
    ],
)
def test_what_is_out_of_range_is_refused(explorer, call, message):
    with pytest.raises(ValueError, match=message):
        call(explorer)


@pytest.fixture(scope="module")
def service(explorer, trained_run):
    """A server's service, whose programs for translation are never compiled; one run under two names."""
    pytest.importorskip("starlette")
    from s2s_jax.serve.config import ServeConfig
    from s2s_jax.serve.models import load_model
    from s2s_jax.serve.service import Service

    config = ServeConfig(rows=1, max_tokens=8)
    first = dataclasses.replace(load_model(str(trained_run), "copy", config), explorer=explorer)
    others = [dataclasses.replace(first, name="other"), dataclasses.replace(first, name="closed", explorer=None)]
    service = Service([first, *others], config)

    async def compile_nothing():
        service.batcher.metrics.ready = True

    service.compile = compile_nothing
    return service


@pytest.fixture(scope="module")
def address(service):
    """Where a server listens, in a thread of this process."""
    import uvicorn

    from s2s_jax.serve.app import create_app
    from s2s_jax.serve.config import ServeConfig
    from s2s_jax.serve.explore import page_routes
    from s2s_jax.serve.server import listen

    listening = listen(ServeConfig(port=0))
    server = uvicorn.Server(uvicorn.Config(create_app(service, page_routes()), log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not (server.started and service.batcher.metrics.ready):
        assert thread.is_alive()
        sleep(0.02)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)
    listening.close()


@pytest.mark.parametrize(
    ("path", "body", "code", "message"),
    [
        (
            "trace",
            {"line": "a " * 8},
            "line_too_long",
            "the line has 9 tokens, the end token included, and 8 are served",
        ),
        ("trace", {"line": ""}, "bad_line", "the line is blank"),
        ("trace", {"line": "a", "model": "closed"}, "not_served", "this model is not explored"),
        ("trace", {"line": "a", "model": "none"}, "no_such_model", "there are copy, other, closed"),
        ("trace", {"line": "a", "prefix": [77777]}, "bad_request", "prefix must be ids of target tokens"),
        ("forced", {"line": "a"}, "bad_request", "the field 'target' is missing"),
        ("attend", {"line": "a", "ids": [4], "step": 0, "weights": [1]}, "bad_request", "weights must be 2 numbers"),
        ("influence", {"line": "a", "ids": [4], "method": "x"}, "bad_request", "method must be one of"),
        ("neighbors", {"line": "a", "ids": [4], "step": 1}, "bad_request", "step must be between 0 and 0, got 1"),
    ],
)
def test_requests_that_are_refused(service, path, body, code, message):
    from s2s_jax.serve.api import OPERATIONS
    from s2s_jax.serve.errors import RequestError
    from s2s_jax.serve.requests import parse_request

    (operation,) = (each for each in OPERATIONS if each.path == f"/v1/explore/{path}")
    with pytest.raises(RequestError, match=message) as caught:
        asyncio.run(service.explore(path, parse_request(operation.body, json.dumps(body).encode())))
    assert caught.value.code == code
    assert code in operation.errors


def test_a_route_answers_what_the_explorer_finds(address, explorer):
    from urllib.request import Request, urlopen

    headers = {"Content-Type": "application/json"}
    body = json.dumps({"line": "a b c", "beam": 3}).encode()
    with urlopen(Request(f"{address}/v1/explore/trace", body, headers), timeout=60) as response:
        assert json.load(response) == {"model": "copy", **explorer.trace("a b c", beam=3)}
    with urlopen(f"{address}/explore/main.js", timeout=10) as response:
        assert response.headers["content-type"] == "text/javascript; charset=utf-8"
        assert response.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    with urlopen(f"{address}/openapi.json", timeout=10) as response:
        schema = json.load(response)["components"]["schemas"]["AttendRequest"]
    assert schema["required"] == ["line", "ids", "step", "weights"]


def test_the_page_needs_no_token_and_its_answers_do():
    pytest.importorskip("starlette")
    from s2s_jax.explore.page import PATHS
    from s2s_jax.serve.app import refusal
    from s2s_jax.serve.config import ServeConfig

    config, headers = ServeConfig(token="secret"), [(b"host", b"127.0.0.1")]
    refused = {path: refusal(config, {"path": path, "headers": headers}) for path in (*PATHS, "/v1/explore/trace")}
    assert [path for path, error in refused.items() if error] == ["/v1/explore/trace"]


@pytest.fixture
def open_page(browser):
    """Open an address: the page, with nothing on its console and no request to anywhere else when the test ends."""
    messages, requests, pages, origins = [], [], [], []

    def open_page(url, **options):
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
        page.set_default_timeout(60_000)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        pages.append(page)
        origins.append(url.partition("#")[0])
        page.goto(url)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert messages == []
    assert all(url.startswith((*origins, "data:")) for url in requests)


def translated(page, line):
    page.fill("#line", line)
    page.press("#line", "Enter")
    page.wait_for_selector(f"article:has(.node):has-text({json.dumps(line.split()[-1])})")
    return page


def target_tokens(page):
    return [
        each.partition(",")[0]
        for each in page.eval_on_selector_all(
            "[aria-label='Target tokens'] button", "all => all.map(each => each.getAttribute('aria-label'))"
        )
    ]


def test_a_sentence_in_the_browser(address, open_page, explorer):
    page = translated(open_page(f"{address}/"), "a b c")
    assert target_tokens(page) == ["a", "b", "c", "</s>"]
    assert "line=a+b+c" in page.url
    # hover links both sides: the copy attends to the same letter
    page.hover("[aria-label='Source tokens'] [data-s='1']")
    assert page.locator("[aria-label='Target tokens'] button[data-t='1'].on").count() == 1
    assert page.locator("svg path.ribbon.dim").count() > 0
    # heat map, coverage, occlusion
    page.select_option("label:has-text('As') select", "heat")
    page.wait_for_selector("svg rect.cell", state="attached")
    page.select_option("label:has-text('Of') select", "occlusion")
    page.wait_for_selector("svg[aria-label^='occlusion'] rect.cell", state="attached")
    page.select_option("label:has-text('Of') select", "coverage")
    page.wait_for_selector("svg[aria-label^='coverage'] rect.cell", state="attached")
    # the ten best of a token; a slider shows the distribution before and after
    page.click("[aria-label='Target tokens'] button[data-t='1']")
    assert page.locator(".alternatives tbody tr").count() == 10
    page.focus(".weights input >> nth=0")
    page.keyboard.press("End")
    page.wait_for_selector(".alternatives th:has-text('before')")
    assert float(page.input_value(".weights input >> nth=1")) == 0
    page.click("text=Find training sentences")
    page.wait_for_selector(".neighbors tbody tr")
    assert page.locator(".neighbors tbody tr").count() == 10
    # the second best token is taken
    second = explorer.trace("a b c")["hypotheses"][0]["alternatives"][1][1]
    page.click("text=The model's own")
    assert page.locator(".alternatives th:has-text('before')").count() == 0
    page.click(".alternatives tbody tr:nth-child(2) button")
    page.wait_for_selector("[aria-label='Target tokens'] button.forced >> nth=1")
    assert target_tokens(page)[:2] == ["a", second["token"]]
    # the permanent link holds all of it
    again = open_page(page.url)
    again.wait_for_selector(".node")
    assert target_tokens(again) == target_tokens(page)
    assert again.locator("svg rect.cell").count() > 0
    # what changes with the search, or with the source, is marked
    assert page.locator("button.differs").count() > 0
    page.click("text=Drop the 2 forced")
    page.wait_for_selector("[aria-label='Target tokens']:not(:has(.forced))")
    assert target_tokens(page) == ["a", "b", "c", "</s>"]


def test_the_tree_by_keyboard_a_given_target_and_two_runs(address, open_page):
    page = translated(open_page(f"{address}/", color_scheme="dark", viewport={"width": 400, "height": 800}), "a b c")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    at = "document.activeElement.dataset.node"
    page.focus(".node[tabindex='0']")
    last = page.evaluate(at)
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(at) != last
    page.keyboard.press("ArrowRight")
    assert page.evaluate(at) == last
    shown = page.locator(".node").count()
    page.check("text=what was not kept")
    assert page.locator(".node").count() > shown
    page.focus(".node.rejected[data-node] >> nth=0")
    wanted = page.evaluate("document.activeElement.querySelector('text').textContent")
    page.keyboard.press("Enter")
    page.wait_for_selector("[aria-label='Target tokens'] button.forced")
    assert target_tokens(page)[0] == wanted
    page.fill("input[aria-label='Given target']", "a c c")
    page.click("button:text-is('Force')")
    assert "First wrong at token 2: c has" in " ".join(page.inner_text(".first-wrong").split())
    page.select_option("#beside", "other")
    page.click("button:text-is('Translate')")
    page.wait_for_selector("article[aria-label='other'] .node")
    assert page.locator("article").count() == 2
    assert page.locator("article >> nth=0").locator("button.differs").count() > 0  # the first run alone is forced


def test_what_the_page_saves(address, open_page, tmp_path):
    page = translated(open_page(f"{address}/"), "a b")
    for kind, begins in (("SVG", b"<svg "), ("PNG", b"\x89PNG"), ("JSON", b"{")):
        with page.expect_download() as download:
            page.click(f"[aria-label='Save alignment as {kind}']")
        download.value.save_as(tmp_path / kind)
        content = (tmp_path / kind).read_bytes()
        assert content.startswith(begins)
        assert len(content) > 200
    assert b"var(" not in (tmp_path / "SVG").read_bytes()  # colors stand in the file
    assert json.loads((tmp_path / "JSON").read_text())["target"] == ["a", "b", "</s>"]


LITERAL = ["</s>", "<b>x</b>", "\u202eevil", "\u0301", "東京", "سلام"]


def test_one_file_without_a_server_shows_every_token_as_it_is(s2s, trained_run, tmp_path, open_page):
    page_file, lines = tmp_path / "page.html", tmp_path / "lines.txt"
    lines.write_text("a b c\ta c c\n\n" + " ".join(LITERAL) + "\n", encoding="utf-8")
    code, out, errors = s2s("explore", str(trained_run), str(lines), "--beam", "3", "--static", str(page_file))
    assert (code, out) == (0, f"page: {page_file} (2 sentences)\n"), errors
    text = page_file.read_text(encoding="utf-8")
    assert "http://" not in text.replace("http://www.w3.org/", "")
    page = open_page(page_file.as_uri())
    page.wait_for_selector(".first-wrong")
    assert target_tokens(page) == ["a", "b", "c", "</s>"]
    page.select_option("label:has-text('Of') select", "saliency")
    page.wait_for_selector("svg[aria-label^='saliency'] path", state="attached")
    assert page.locator(".node[role=button]").count() == 0  # nothing to go on with
    page.select_option("#line", index=1)
    page.wait_for_selector("[aria-label='Source tokens'] >> text=</s>")
    assert page.locator("b").count() == 0
