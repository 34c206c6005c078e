"""What a page's server refuses, over HTTP: each attack of SECURITY.md."""

import json
import re
import socket
import threading
from importlib import import_module
from pathlib import Path

import pytest
from ase.build import bulk

from crystalmath.client import in_process
from crystalmath.recipes.structures import to_ase_json

app = pytest.importorskip("crystalmath_web.app", reason="crystalmath-web is not installed")

Page = import_module("web.conftest").Page  # needs crystalmath_web

SCRIPT = "<script>document.title='stolen'</script><img src=x onerror=alert(1)>"
ANSWERED = {"limit": 0}
ELSEWHERE = ("http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1:1", "null")


def test_the_page_itself_is_answered(page):
    told = {"token": page.secrets.token}
    entering = page.own(Cookie=None, X_CrystalMath_Key=None)
    status, headers, content = page.ask("POST", "/session", told, entering)
    assert status == 200
    assert json.loads(content)["key"] == page.secrets.key
    assert headers["set-cookie"].split("; ") == [
        f"crystalmath-{page.port}={page.secrets.cookie}",
        "HttpOnly",
        "Path=/",
        "SameSite=strict",
    ]
    assert page.call("jobs.list", ANSWERED)[1]["jobs"] == []
    # By ssh -L; the browser sends the cookie of another page on this machine, too.
    both = f"crystalmath-8765=x; crystalmath-8000={page.secrets.cookie}"
    passed_on = page.own(Host="localhost:8000", Origin="http://localhost:8000", Cookie=both)
    asked = {"method": "jobs.list", "params": ANSWERED}
    assert page.ask("POST", "/call", asked, passed_on)[0] == 200


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/session", "/call", "/events", "/none"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "127.0.0.2", "", None]
)
def test_a_name_that_was_bound_to_this_machine_is_refused(page, path, host):
    host = host and host.format(port=page.port)
    told = {"token": page.secrets.token, "method": "jobs.list"}
    for method, body in (("GET", None), ("POST", told)):
        headers = page.own(Host=host, Origin=f"http://{host}")
        try:
            status, _, content = page.ask(method, path, body, headers)
        except ConnectionResetError:
            # A request of HTTP/1.1 without any is none: uvicorn may hang up before the body came.
            assert host is None
            continue
        assert status in {400, 421}
        assert page.secrets.key.encode() not in content


@pytest.mark.parametrize("path", ["/session", "/call", "/events"])
@pytest.mark.parametrize("origin", [*ELSEWHERE, None])
def test_a_request_of_another_site_is_refused(page, path, origin):
    origin = origin and origin.format(port=page.port)
    told = {"token": page.secrets.token, "method": "jobs.list"}
    status, headers, _ = page.ask("POST", path, told, page.own(Origin=origin))
    assert status == 403
    assert "set-cookie" not in headers
    assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("path", ["/session", "/call", "/events"])
@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None],
)
def test_what_a_form_can_send_is_refused(page, path, kind):
    told = {"token": page.secrets.token, "method": "jobs.list"}
    assert page.ask("POST", path, told, page.own(Content_Type=kind))[0] == 415


def test_no_other_site_is_asked_beforehand_whether_it_may(page):
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
    headers = {**page.own(Origin="http://evil.example"), **asking}
    assert page.ask("OPTIONS", "/call", None, headers)[0] == 403


@pytest.mark.parametrize("path", ["/call", "/events"])
@pytest.mark.parametrize("kept", ["Cookie", "X-CrystalMath-Key", None])
def test_who_has_not_all_of_a_session_is_refused(page, path, kept):
    """Cookies go to all ports of a host, and a stolen address is none without its fragment."""
    headers = page.own()
    for name in {"Cookie", "X-CrystalMath-Key"} - {kept}:
        del headers[name]
    assert page.ask("POST", path, {"method": "jobs.list"}, headers)[0] == 401
    for wrong in ("", "x" * 43, "ä"):
        headers["Cookie"], headers["X-CrystalMath-Key"] = f"crystalmath-{page.port}={wrong}", wrong
        sent = {name: value.encode() for name, value in headers.items()}
        assert page.ask("POST", path, {"method": "jobs.list"}, sent)[0] == 401


def test_the_token_of_another_start_is_refused(page):
    tokens = ("", page.secrets.token[:-1], page.secrets.cookie, "\ud800", None, 1, [], {"a": 1})
    for token in tokens:
        status, headers, _ = page.ask("POST", "/session", {"token": token}, page.own())
        assert (status, headers["set-cookie"]) == (401, None)
    assert page.ask("POST", "/session", {}, page.own())[0] == 401


def test_secrets_are_new_for_each_start():
    one, other = app.Secrets(), app.Secrets()
    told = [one.token, one.cookie, one.key, other.token, other.cookie, other.key]
    assert len(set(told)) == 6
    assert all(len(each) >= 43 for each in told)  # 256 bits, of which a letter holds six


def test_events_of_another_site_are_not_followed(page):
    headers = page.own(Accept="text/event-stream")
    with page.open("POST", "/events", {}, headers) as answer:
        assert answer.status == 200
        assert answer.readline().startswith(b"id: ")
    for changed in ({"Origin": "http://evil.example"}, {"Content-Type": "text/plain"}):
        assert page.ask("POST", "/events", {}, {**headers, **changed})[0] in {403, 415}
    assert page.ask("GET", "/events", None, headers)[0] == 405  # as an EventSource asks
    for last in ("x", "-1", "1" * 400, "²"):
        sent = {**headers, "Last-Event-ID": last.encode()}
        assert page.ask("POST", "/events", {}, sent)[0] == 400


@pytest.mark.parametrize(
    "method",
    [
        "system.stop",
        "rpc.discover",
        "jobs.subscribe",
        "jobs.archive",
        "clusters.check",
        "\ud800",
        "",
        None,
        ["jobs.list"],
        {},
    ],
)
def test_a_page_cannot_call_everything(page, method):
    status, _, content = page.ask("POST", "/call", {"method": method}, page.own())
    assert status == 403, content


def test_every_method_that_can_be_called_is_one_that_stops_nothing():
    assert not app.READING & app.ACTING
    assert not [name for name in app.READING | app.ACTING if name.endswith((".stop", ".import"))]


def test_a_page_cannot_change_the_environment_of_jobs(page):
    where = {"recipe": "lab_recipes.where", "structure": to_ase_json(bulk("Al"))}
    sent = {**where, "environment": {"OMP_NUM_THREADS": "77"}}
    _, one = page.call("jobs.submit", sent)
    _, many = page.call("jobs.submit_many", {"jobs": [sent, {**sent, "name": "other"}]})
    for each in [one["job_id"], *(job["job_id"] for job in many["jobs"])]:
        list(page.client.wait([each], timeout=300))
        environment = page.call("jobs.result", {"job_id": each})[1]["result"]["environment"]
        assert environment.get("OMP_NUM_THREADS") != "77"
    for wrong in ("none", [3], [sent, None]):
        assert "jobs" in page.call("jobs.submit_many", {"jobs": wrong})[1]["error"]


def test_a_page_for_reading_changes_nothing(lab):
    with in_process() as client, Page(client, read_only=True) as page:
        for method in sorted(app.ACTING):
            status, told = page.call(method, {"recipe": "lab_recipes.value", "job_ids": []})
            assert (status, "read-only" in told["error"]) == (403, True), method
        assert page.call("jobs.list")[1]["jobs"] == []


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b'"a"', b"1", b"[" * 100_000, b"\xff\xfe"])
def test_a_request_that_is_no_object_is_refused(page, body):
    for path in ("/session", "/call", "/events"):
        assert page.ask("POST", path, body, page.own())[0] in {400, 413}


def test_a_request_that_is_too_large_is_refused(page, monkeypatch):
    # Who has no token has no 32 MiB read.
    token = {"token": "x" * 5000}
    assert page.ask("POST", "/session", token, page.own())[0] == 413
    monkeypatch.setattr("crystalmath_web.guard.LARGEST", 1000)
    told = {"method": "jobs.list", "params": {"name": "x" * 1000}}
    assert page.ask("POST", "/call", told, page.own())[0] == 413


@pytest.mark.parametrize(
    "path", ["/page/../app.py", "/page/%2e%2e/app.py", "/page//etc/passwd", "/page/", "/page"]
)
def test_only_the_files_of_the_page_are_read(page, path):
    status, headers, content = page.ask("GET", path, None, page.own())
    assert status in {307, 404}
    assert b"create_app" not in content
    assert not (headers["location"] or "").startswith("//")


def test_every_answer_has_the_rules_for_browsers(page):
    for method, path in (("GET", "/"), ("GET", "/page/main.js"), ("GET", "/x"), ("POST", "/call")):
        _, headers, _ = page.ask(method, path, None, page.own())
        policy = dict(each.split(" ", 1) for each in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert not re.search(r"unsafe|\*|http|blob", policy["script-src"] + policy["style-src"])
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


def test_it_listens_on_the_loopback_interface_only():
    from crystalmath_web import serving

    with serving._listening(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert listener.family == socket.AF_INET


class Slow:
    """A client whose server does not answer until it may."""

    def __init__(self):
        self.asked, self.may = threading.Event(), threading.Event()

    def call_json(self, method, params):
        self.asked.set()
        self.may.wait(120)
        return b"{}"


def test_a_server_that_is_stopped_answers_what_still_waits(capfd):
    answers = []
    slow = Slow()
    with Page(slow) as page:
        asking = threading.Thread(target=lambda: answers.append(page.call("jobs.logs")[0]))
        asking.start()
        assert slow.asked.wait(120)
    asking.join()
    slow.may.set()
    assert answers == [503]
    assert "Traceback" not in capfd.readouterr().err


def test_a_browser_is_redirected_by_a_private_file(home, monkeypatch, capsys):
    """Everybody can read the command line of a browser, as of any program."""
    from crystalmath_web import serving

    given = []

    def browse(address):
        path = Path(address.removeprefix("file://"))
        given.append((address, path, path.stat().st_mode & 0o777, path.read_text()))
        return False

    monkeypatch.setattr("webbrowser.open", browse)
    with serving._redirected("http://127.0.0.1:1/#SECRET"):
        ((address, path, mode, text),) = given
        assert "SECRET" not in address
        assert mode == 0o600
        assert "url=http://127.0.0.1:1/#SECRET" in text
    assert not path.exists()
    assert "SECRET" not in capsys.readouterr().err


def test_what_comes_from_jobs_stays_text(page):
    """Name, label, parameter, error, log and file name travel as JSON, and as nothing else."""
    told = {"name": SCRIPT, "labels": {"project": SCRIPT}}
    job = page.client.submit("lab_recipes.fail", bulk("Al"), {"message": SCRIPT}, **told)
    assert job.exception(timeout=300) is not None
    read = ("jobs.show", "jobs.status", "jobs.logs", "jobs.result", "jobs.specification")
    asked = [(method, {"job_id": job.job_id}) for method in read]
    found = 0
    for method, params in [*asked, ("jobs.list", {}), ("jobs.summary", {}), (SCRIPT, {})]:
        document = {"method": method, "params": params}
        _, headers, content = page.ask("POST", "/call", document, page.own())
        assert headers["content-type"] == "application/json"
        assert headers["x-content-type-options"] == "nosniff"
        found += "<script>" in content.decode()
    assert found >= 6


def test_the_page_makes_no_markup_of_text():
    """Preact puts in what comes from jobs as text nodes; these would not."""
    sources = [path for path in app.PAGE.glob("*.*") if path.suffix in {".js", ".html"}]
    assert len(sources) > 1
    unsafe = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|eval\(|new Function"
        r"|javascript:|setHTML|createContextualFragment|\bstyle=[\"']|\son\w+=[\"']|https?://"
    )
    for path in sources:
        assert not re.findall(unsafe, path.read_text(encoding="utf-8")), path
    assert "<script>" not in Path(app.PAGE / "index.html").read_text(encoding="utf-8")


def test_a_configuration_that_cannot_be_read_is_told(page, monkeypatch, tmp_path):
    monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text("[engines.local\n")
    status, told = page.call("jobs.check", {"recipe": "emt.core.relax_job"})
    assert status == 502
    assert "config.toml" in told["error"]


def test_an_answer_is_json_whatever_goes_wrong(page, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("<script>")

    monkeypatch.setattr(page.client, "call_json", fail)
    status, told = page.call("jobs.list")
    assert (status, told["code"]) == (500, "web")
    assert "ZeroDivisionError" in told["error"]
    assert "script" not in told["error"]
