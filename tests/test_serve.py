"""The server: its answers are those of the commands, bit for bit, whatever the load; whatever is wrong has a code."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from json_page import check_keys
from starlette.testclient import TestClient
from stdin import type_in

from s2s_jax.serve.api import OPERATIONS
from s2s_jax.serve.app import SECURITY_HEADERS, create_app
from s2s_jax.serve.config import ServeConfig
from s2s_jax.serve.errors import CODES
from s2s_jax.serve.models import load_model
from s2s_jax.serve.service import Service

CONFIG = ServeConfig(rows=2, max_tokens=8, max_lines=20, queue=40, max_bytes=3000, deadline=20.0)
SETTINGS = ("--search.batch-invariant", "true", "--search.batch-size", "2")
LINES = ["a b c", "", "z", "d e f g h", "b", "unheard of", "c c", " "]
PAIRS = [("a b", "a b"), ("c", "c d e"), ("d e f", "")]
JSON = {"Content-Type": "application/json"}
LOCAL = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def service(trained_run):
    return Service([load_model(str(trained_run), "copy", CONFIG, also=[{"beam": 2}])], CONFIG)


@pytest.fixture(scope="module")
def client(service):
    with TestClient(create_app(service), base_url=LOCAL) as client:
        while client.get("/ready").status_code != 200:
            time.sleep(0.05)
        yield client


def post(client, path, **body):
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def command_records(s2s, monkeypatch, text, *words):
    """What a command prints about each line, in batches as the server has them."""
    type_in(monkeypatch, text.encode())
    code, out, errors = s2s(*words, *SETTINGS, "--json")
    assert code == 0, errors
    return [json.loads(line) for line in out.splitlines()]


def test_translations_are_those_of_the_command_bit_for_bit(client, s2s, trained_run, monkeypatch):
    records = command_records(s2s, monkeypatch, "".join(f"{line}\n" for line in LINES), "translate", str(trained_run))
    wanted = [{name: value for name, value in record.items() if name != "line"} for record in records]
    full = {"tokens": True, "alignment": True}
    assert post(client, "/v1/translate", lines=LINES, **full)["translations"] == wanted

    def alone(line):
        return post(client, "/v1/translate", lines=[line], **full)["translations"][0]

    with ThreadPoolExecutor(6) as clients:
        assert list(clients.map(alone, LINES)) == wanted
    response = client.post("/v1/translate", json={"lines": LINES, "stream": True, **full})
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, end, rest = response.text.split("\n\n")
    assert [json.loads(event.partition("data: ")[2]) for event in events] == records
    assert [event.partition("\n")[0] for event in events] == [f"id: {row}" for row in range(len(LINES))]
    assert (end, rest) == (f'event: done\ndata: {{"lines": {len(LINES)}}}', "")


def test_a_stream_may_be_longer_than_the_queue(client, service):
    lines = [line for line in LINES for _ in range(9)]
    assert len(lines) > max(CONFIG.queue, CONFIG.max_lines)
    short = post(client, "/v1/translate", lines=LINES)["translations"]
    text = client.post("/v1/translate", json={"lines": lines, "stream": True}).text
    *events, end, _ = text.split("\n\n")
    assert [json.loads(event.partition("data: ")[2]) for event in events] == [
        {"line": row, **short[row // 9]} for row in range(len(lines))
    ]
    assert end.startswith("event: done")
    assert service.batcher.waiting == 0


def test_a_search_is_chosen_by_its_settings(client, s2s, trained_run, monkeypatch):
    words = ("translate", str(trained_run), "--beam", "2", "--n-best", "2")
    (record,) = command_records(s2s, monkeypatch, "d e f\n", *words)
    (found,) = post(client, "/v1/translate", lines=["d e f"], beam=2, n_best=2, tokens=True, alignment=True)[
        "translations"
    ]
    assert {"line": 0, **found} == record
    assert len(found["hypotheses"]) == 2
    (plain,) = post(client, "/v1/translate", lines=["d e f"], method="beam", model="copy")["translations"]
    assert set(plain["hypotheses"][0]) == {"text", "score", "truncated", "utility", "log_probability"}


def test_scores_are_those_of_the_command_bit_for_bit(client, s2s, trained_run, monkeypatch):
    text = "".join(f"{source}\t{target}\n" for source, target in PAIRS)
    records = command_records(s2s, monkeypatch, text, "score", str(trained_run))
    found = post(client, "/v1/score", pairs=PAIRS, tokens=True)["scores"]
    assert found == [{name: value for name, value in each.items() if name != "alignment"} for each in records]
    aligned = post(client, "/v1/align", pairs=PAIRS)["alignments"]
    assert [each["alignment"] for each in aligned] == [each["alignment"] for each in records]


def test_lines_are_aligned_with_their_translations(client):
    lines = ["a b c", "", "d e"]
    translations = post(client, "/v1/translate", lines=lines)["translations"]
    pairs = [(each["source"], each["translation"]) for each in translations if each["translation"]]
    found = post(client, "/v1/align", lines=lines)["alignments"]
    assert [found[0], found[2]] == post(client, "/v1/align", pairs=pairs)["alignments"]
    assert found[1] == {"source_tokens": [], "target_tokens": [], "alignment": [], "pharaoh": ""}


def test_no_request_compiles(client, service):
    counts = service.batcher.metrics.compilations.values
    assert counts["start",] >= 3
    before = counts["load",]
    for tokens in range(1, 8):
        for body in ({"lines": ["a " * tokens]}, {"lines": ["a", "b " * tokens, "c"], "beam": 2, "n_best": 2}):
            post(client, "/v1/translate", **body)
        post(client, "/v1/score", pairs=[["a " * tokens, "b"], ["c", "a " * tokens]])
        post(client, "/v1/align", lines=["a " * tokens])
    assert counts["load",] == before  # the commands of other tests compile in this process too


def test_the_form_of_opennmt(client):
    (own,) = post(client, "/v1/translate", lines=["a b"])["translations"]
    response = client.post("/translator/translate", json=[{"src": "a b", "id": 100}, {"src": ""}])
    score = own["hypotheses"][0]["score"]
    assert response.json() == [
        [{"src": "a b", "tgt": own["translation"], "n_best": 1, "pred_score": score}],
        [{"src": "", "tgt": "", "n_best": 1, "pred_score": 0.0}],
    ]


BROKEN = [
    ("/v1/translate", b"{", "bad_json", "the body is not JSON: "),
    ("/v1/translate", b"\xff", "bad_json", "the body is not UTF-8: byte 0 is 0xff"),
    ("/v1/translate", b"[" * 3000, "bad_json", "the body is not JSON: it is nested too deeply"),
    ("/v1/translate", b'{"lines": ["a"], "timeout": NaN}', "bad_json", "NaN is no number of JSON"),
    ("/v1/translate", b"[]", "bad_json", "the body must be an object of JSON, got []"),
    ("/v1/translate", b"{}", "bad_request", "the field 'lines' is missing"),
    ("/v1/translate", b'{"linse": []}', "bad_request", "no field 'linse'; did you mean 'lines'?"),
    ("/v1/translate", b'{"lines": "a"}', "bad_request", "lines must be a list, got 'a'"),
    ("/v1/translate", b'{"lines": [1]}', "bad_request", "lines must be text, got 1"),
    ("/v1/translate", b'{"lines": ["a"], "beam": "2"}', "bad_request", "beam must be a whole number, got '2'"),
    ("/v1/translate", b'{"lines": ["a"], "n_best": 2}', "bad_request", "n_best must be between 1 and the 1 of"),
    ("/v1/translate", b'{"lines": ["a"], "timeout": -1}', "bad_request", "timeout must be zero or more, got -1"),
    ("/v1/translate", b'{"lines": ["a"], "prefixes": ["a", "b"]}', "bad_request", "an entry per line (1), got 2"),
    ("/v1/translate", b'{"lines": ["a"], "model": "../etc"}', "no_such_model", "there are copy"),
    ("/v1/translate", b'{"lines": ["a"], "beam": 7}', "not_served", "beam=7, but with method=beam, beam=1; method="),
    ("/v1/translate", b'{"lines": ["a"], "prefixes": ["b"]}', "not_served", "start s2s serve with --constraints"),
    ("/v1/translate", b'{"lines": ["a"], "features": [["x"]]}', "bad_line", "feature"),
    ("/v1/translate", b'{"lines": ["a\\nb"]}', "bad_line", "a line must not hold a line break, got 'a\\nb'"),
    ("/v1/translate", b'{"lines": ["\\ud800"]}', "bad_line", "half of a surrogate pair, '\\ud800'"),
    (
        "/v1/translate",
        b'{"lines": ["a a a a a a a a"]}',
        "line_too_long",
        "a line has 9 tokens, the end token included",
    ),
    ("/v1/translate", b'{"lines": ["a a a a a a a a"], "stream": true}', "line_too_long", "and 8 are served; cut"),
    ("/v1/translate", json.dumps({"lines": ["a"] * 21}).encode(), "too_many_lines", "21 entries, at most 20 may"),
    ("/v1/translate", b'{"lines": ["' + b"a" * 3000 + b'"]}', "too_large", "more than 3,000 bytes; send several"),
    ("/v1/translate", b'{"lines": ["a"], "timeout": 1e-9}', "deadline", "was not there in time"),
    ("/v1/score", b'{"pairs": [["a"]]}', "bad_request", "a pair must hold source and target, got 1 text(s)"),
    ("/v1/score", b'{"pairs": [["", "a"]]}', "bad_line", "a pair has a blank source"),
    ("/v1/score", b'{"pairs": [["a", "a a a a a a a a"]]}', "line_too_long", "a line has 9 tokens"),
    ("/v1/align", b"{}", "bad_request", "give either lines or pairs"),
    ("/translator/translate", b'{"src": "a"}', "bad_request", "must be a list of objects"),
]


@pytest.mark.parametrize(("path", "body", "code", "message"), BROKEN)
def test_a_broken_request_has_one_clear_error_and_the_next_one_is_answered(client, path, body, code, message):
    response = client.post(path, content=body, headers=JSON)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (CODES[code][0], code)
    assert message in error["message"]
    assert "\n" not in error["message"]
    assert len(error["message"]) < 500
    assert post(client, "/v1/translate", lines=["a"])["translations"][0]["translation"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "code"),
    [
        ("POST", "/v1/translate", {"Content-Type": "text/plain"}, "content_type"),
        ("POST", "/v1/translate", {"Content-Type": "application/json; charset=latin-1"}, "content_type"),
        ("POST", "/v1/translate", {**JSON, "Content-Encoding": "gzip"}, "content_type"),
        ("GET", "/v1/translate", {}, "method_not_allowed"),
        ("OPTIONS", "/v1/translate", {"Origin": "https://example.org"}, "method_not_allowed"),
        ("GET", "/v1/../../etc/passwd", {}, "not_found"),
        ("GET", "/v1/models/", {}, "not_found"),
        ("GET", "/v1/models", {"Host": "example.org"}, "bad_host"),
        ("GET", "/health", {"Host": "127.0.0.1.example.org:8080"}, "bad_host"),
    ],
)
def test_what_is_no_request_of_ours_is_refused_with_the_same_headers(client, method, path, headers, code):
    response = client.request(method, path, headers=headers, content=b"{}" if method == "POST" else None)
    assert (response.status_code, response.json()["error"]["code"]) == (CODES[code][0], code)
    assert all(response.headers[name] == value for name, value in SECURITY_HEADERS.items() if code != "bad_host")
    assert not any(name.startswith("access-control") for name in response.headers)


def test_the_description_has_every_route_every_field_and_every_code(client):
    described = client.get("/openapi.json").json()
    routes = {(route.path, method) for route in client.app.app.routes for method in route.methods - {"HEAD"}}
    assert {(path, method.upper()) for path, item in described["paths"].items() for method in item} == routes
    assert {(operation.path, operation.method) for operation in OPERATIONS} == routes
    schemas = described["components"]["schemas"]
    assert schemas["Error"]["properties"]["error"]["properties"]["code"]["enum"] == list(CODES)
    assert schemas["TranslateRequest"]["required"] == ["lines"]
    assert schemas["TranslateRequest"]["properties"]["phrases"]["items"]["items"] == {"type": "string"}
    assert all(field["description"].endswith(".") for field in schemas["ScoreRequest"]["properties"].values())
    responses = described["paths"]["/v1/translate"]["post"]["responses"]
    assert {str(CODES[code][0]) for _, _, code, _ in BROKEN} <= set(responses)
    references = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described))
    assert set(references) <= set(schemas)


def test_the_page_has_every_address_and_every_code():
    page = (Path(__file__).parent.parent / "docs" / "how-to" / "serve.md").read_text(encoding="utf-8")
    codes = re.findall(r"^\| `(\w+)` \| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert {code: (int(status), meaning) for code, status, meaning in codes} == CODES
    assert {(method, path) for method, path in re.findall(r"`(GET|POST) (\S+)`", page)} == {
        (operation.method, operation.path) for operation in OPERATIONS
    }


def test_models_and_metrics(client):
    (model,) = client.get("/v1/models").json()["models"]
    assert (model["name"], model["max_tokens"], model["attention"], model["scores"]) == ("copy", 8, "general", True)
    assert [search["beam"] for search in model["searches"]] == [1, 2]
    post(client, "/v1/translate", lines=["a", "b", "c"])
    response = client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    sample = re.compile(r'[a-z][a-z0-9_]*(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+0-9.e]+|# (HELP|TYPE) [a-z].*')
    assert all(sample.fullmatch(line) for line in response.text.splitlines()), response.text
    values = dict(line.rsplit(" ", 1) for line in response.text.splitlines() if line[0] != "#")
    assert values["s2s_queue_lines"] == "0"
    assert float(values['s2s_requests_total{path="/v1/translate",status="200"}']) >= 1
    assert float(values["s2s_batch_lines_sum"]) == float(values["s2s_lines_total"]) >= 3
    assert values['s2s_batch_lines_bucket{le="2"}'] == values["s2s_batch_lines_count"]


def test_a_client_that_leaves_frees_its_place(client, service):
    """The program is held; then the client leaves before its lines are computed."""
    app, batcher = client.app, service.batcher
    body = json.dumps({"lines": ["a", "b", "c"], "beam": 2}).encode()
    scope = {"type": "http", "method": "POST", "path": "/v1/translate", "query_string": b"", "http_version": "1.1"}
    scope["headers"] = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    held, messages = threading.Event(), []

    async def leave():
        async def receive():
            if not messages:
                messages.append("body")
                return {"type": "http.request", "body": body}
            while not batcher.waiting:  # until its lines are queued
                await asyncio.sleep(0.001)
            messages.append(batcher.waiting)
            return {"type": "http.disconnect"}

        async def send(message):
            messages.append(message.get("status"))

        await app({**scope}, receive, send)
        messages.append(batcher.waiting)

    blocking = batcher._thread.submit(held.wait, 10)
    try:
        client.portal.call(leave)
    finally:
        held.set()
        blocking.result()
    queued, left = messages[1], messages[-1]
    assert queued > left == 0
    assert batcher.metrics.requests.values["/v1/translate", "499"] == 1


def test_a_token_is_wanted_where_there_is_one_and_a_server_that_compiles_says_so(service):
    config = ServeConfig(host="0.0.0.0", token="secret", rows=2, max_tokens=8)
    other = Service(list(service.models.values()), config)
    other.batcher.compile = lambda groups: asyncio.sleep(60)
    with TestClient(create_app(other), base_url="http://example.org") as client:
        assert client.get("/health").json() == {"status": "ok"}
        response = client.get("/ready")
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
            refused = client.get("/v1/models", headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        right = {"Authorization": "Bearer secret"}
        assert client.get("/v1/models", headers=right).status_code == 200
        response = client.post("/v1/translate", json={"lines": ["a"]}, headers=right)
        assert response.json()["error"]["code"] == "not_ready"


def test_constraints_and_exported_runs(trained_run, tmp_path, s2s):
    config = ServeConfig(rows=1, max_tokens=8, constraints=True)
    code, _, errors = s2s("export", str(trained_run), str(tmp_path / "out"), "--beam", "2")
    assert code == 0, errors
    models = [load_model(str(trained_run), "run", config), load_model(str(tmp_path / "out"), "export", config)]
    assert len(list(models[0].groups([8]))) == 5  # no constraint, a prefix, phrases, both; and scoring
    service = Service(models, config)
    with TestClient(create_app(service), base_url=LOCAL) as client:
        while client.get("/ready").status_code != 200:
            time.sleep(0.05)
        body = {"lines": ["a b c", "a b"], "prefixes": ["b", ""], "phrases": [[], ["c"]], "tokens": True}
        first, second = post(client, "/v1/translate", **body)["translations"]
        assert first["translation"].startswith("b")
        assert "c" in second["translation"].split()
        run, export = (
            post(client, "/v1/translate", lines=["a b c", "d"], model=name, beam=1)["translations"]
            for name in ("run", "export")
        )
        assert run == export
        for path, more in (("translate", {"lines": ["a"], "prefixes": ["a"]}), ("score", {"pairs": [["a", "a"]]})):
            response = client.post(f"/v1/{path}", json={"model": "export", **more})
            assert response.json()["error"]["code"] in ("not_served", "bad_line"), response.text
        long = {"lines": ["a"], "phrases": [["a", "b", "c", "d", "e"]]}
        assert "at most 16 tokens of a prefix, 4 phrases" in client.post("/v1/translate", json=long).text
        assert service.batcher.metrics.compilations.values["load",] == 0


@pytest.fixture
def server(trained_run):
    """A server in a process of its own, with its address."""
    words = ("serve", str(trained_run), "--port", "0", "--max-tokens", "8", "--rows", "2", "--wait", "1500", "--json")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-m", "s2s_jax", *words], stdout=subprocess.PIPE, env=environment)
    try:
        printed = json.loads(process.stdout.readline())
        check_keys("serve", printed)
        yield process, printed["address"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_sigterm_drains(server):
    process, address = server
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address}/ready").close()
            break
        except urllib.error.HTTPError as error:
            error.close()
            time.sleep(0.1)
    body = json.dumps({"lines": ["a b"]}).encode()  # one line of two: it waits for 1.5 seconds
    with ThreadPoolExecutor(1) as client:
        request = urllib.request.Request(f"{address}/v1/translate", body, JSON)

        def ask():
            with urllib.request.urlopen(request) as response:
                return json.load(response)

        answer = client.submit(ask)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        host, port = address.removeprefix("http://").split(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=5)
        assert not answer.done()
        assert answer.result(20)["translations"][0]["translation"]
    assert process.wait(20) == -signal.SIGTERM


def test_nothing_is_written(client, trained_run):
    def state():
        return sorted((path, path.stat().st_mtime_ns) for path in Path(trained_run).rglob("*"))

    before = state()
    post(client, "/v1/translate", lines=["a", "unseen words"], beam=2)
    post(client, "/v1/align", lines=["a"])
    assert state() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "--host", "0.0.0.0"], "--host 0.0.0.0 is reached from other machines"),
        (["RUN", "--also", "beam"], "--also must be settings of a search such as beam=5 or method=sample,samples=4"),
        (["RUN", "--also", "baem=5"], "no setting 'search.baem'; did you mean 'search.beam'?"),
        (["RUN", "--search.batch-size", "4"], "--search.batch-size is decided by the server; give --rows instead"),
        (["RUN", "--model.embedding", "4"], "--model.embedding is settled when a run is trained"),
        (["nowhere"], "nowhere"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused_in_one_line(s2s, trained_run, words, message):
    code, out, errors = s2s("serve", *(str(trained_run) if word == "RUN" else word for word in words))
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert message in errors


def test_an_address_in_use_is_named(s2s, trained_run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, errors = s2s("serve", str(trained_run), "--port", str(port))
    assert (code, errors) == (2, f"s2s: 127.0.0.1:{port}: address already in use\n")
