"""The way to a cluster: its address, the token, and what a person hears when there is no way."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cluster import dashboard
from cluster.dashboard import connect, find_token, resolve_address

pytestmark = pytest.mark.usefixtures("no_cluster")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://10.0.0.1:8265", "http://10.0.0.1:8265"),
        ("https://ray.example.com/team/", "https://ray.example.com/team"),
        ("10.0.0.1:9000", "http://10.0.0.1:9000"),
        ("head", "http://head:8265"),
        ("[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_address_of_a_dashboard(given, url):
    assert resolve_address(given) == url


def test_address_comes_from_flag_then_environment(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://a:1")
    assert resolve_address(None) == "http://a:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://b:2")
    assert resolve_address(None) == "http://b:2"
    assert resolve_address("http://c:3") == "http://c:3"


@pytest.mark.parametrize("given", ["ray://head:10001", "head:6379", "auto", "local", "http://", "head:port"])
def test_refuses_an_address_that_takes_no_jobs(given):
    with pytest.raises(ValueError, match=r"--address .*: no jobs are taken there; .*http://HOST:8265"):
        resolve_address(given)


def test_refuses_no_address_and_one_with_a_password():
    with pytest.raises(ValueError, match=r"^no cluster given; .*RAY_ADDRESS"):
        resolve_address(None)
    with pytest.raises(ValueError, match=r"--address: .* password") as error:
        resolve_address("http://me:hunter2@head:8265")
    assert "hunter2" not in str(error.value)


def test_token_is_looked_for_in_order(monkeypatch, tmp_path):
    assert find_token() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of-home\n")
    assert find_token() == "of-home"
    (tmp_path / "file").write_text("of-path\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file"))
    assert find_token() == "of-path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-variable")
    assert find_token() == "of-variable"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert find_token() is None


def test_refuses_what_is_no_token_without_showing_it(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hunter2\nX-Header: 1")
    with pytest.raises(ValueError, match="no spaces or line breaks") as error:
        find_token()
    assert "hunter2" not in str(error.value)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "missing"))
    with pytest.raises(ValueError, match=r"RAY_AUTH_TOKEN_PATH .*missing: no token can be read"):
        find_token()
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(ValueError, match="RAY_AUTH_MODE=token, and no token; set RAY_AUTH_TOKEN"):
        find_token()


@pytest.mark.parametrize(("listens", "reason"), [(False, "refused"), (True, "no answer in time")])
def test_says_soon_that_no_cluster_answers(monkeypatch, listens, reason):
    monkeypatch.setattr(dashboard, "WAKE_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        start = time.monotonic()
        with pytest.raises(ValueError, match=f"no cluster answers at http://127.*{reason}") as error:
            connect(f"http://127.0.0.1:{silent.getsockname()[1]}", None)
        assert time.monotonic() - start < 10
        assert "\n" not in str(error.value)


def test_does_not_wait_for_a_host_that_there_is_not():
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"no cluster answers at http://nowhere\.invalid:1 \(no such host\)"):
        connect("http://nowhere.invalid:1", None)
    assert time.monotonic() - start < 5


@pytest.fixture
def answers():
    """A web server that gives the answers in a list, one after the other, and then the last for ever.

    Yields its URL, the list, and the Authorization header of each request.
    """
    given, tokens = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            tokens.append(self.headers["Authorization"])
            code, text = given[0] if len(given) == 1 else given.pop(0)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", given, tokens
    server.shutdown()
    thread.join()
    server.server_close()


VERSION = json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "s"})


def test_waits_for_a_cluster_that_is_waking_up(answers, capsys):
    url, given, _ = answers
    given += [(503, ""), (502, "<html>"), (401, ""), (200, VERSION)]
    assert connect(url, "t")
    assert capsys.readouterr().err == f"{url} does not answer yet; asking again for 15 s\n"


def test_gives_up_on_a_cluster_that_does_not_wake(answers, monkeypatch):
    monkeypatch.setattr(dashboard, "WAKE_SECONDS", 1)
    url, given, _ = answers
    given.append((503, ""))
    with pytest.raises(ValueError, match=r"no cluster answers at .* \(HTTP 503\)"):
        connect(url, None)


def test_does_not_wait_for_what_is_no_dashboard(answers, capsys):
    url, given, _ = answers
    given.append((200, "<html>"))
    with pytest.raises(ValueError, match=r"answers, but is no Ray dashboard \(HTTP 200\)"):
        connect(url, None)
    assert capsys.readouterr().err == ""


def test_an_open_cluster_needs_insecure_and_is_not_sent_the_token(answers, capsys):
    url, given, tokens = answers
    given.append((200, VERSION))
    for token in (None, "secret"):
        with pytest.raises(ValueError, match=r"is open to everybody .*RAY_AUTH_MODE=token, or .*--insecure") as error:
            connect(url, token)
        assert "\n" not in str(error.value)
    assert tokens == [None, None]
    assert capsys.readouterr().err == ""
    assert connect(url, None, insecure=True)
    assert capsys.readouterr().err.startswith(f"warning: THE CLUSTER AT {url} IS OPEN TO EVERYBODY")


def test_a_guarded_cluster_is_sent_the_token(answers):
    url, given, tokens = answers
    given += [(401, ""), (200, VERSION)]
    assert connect(url, "secret")
    assert tokens[:2] == [None, "Bearer secret"]
