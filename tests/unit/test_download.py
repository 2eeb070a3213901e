"""Trained weights from a server: a hub on this machine, asked by the client that users have."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save

from skipway import models
from skipway.errors import EnvironmentFault, SecurityError
from skipway.nn.backbones import find_weights
from skipway.pretrained import load_pretrained

NAME, REPOSITORY = "resnet10t", "timm/resnet10t.c3_in1k"
PLACE = f"/{REPOSITORY}/resolve/main/model.safetensors"


class Hub:
    """What the server answers, and what it was asked.

    Attributes:
        body: The file that is served; None is a 404.
        sent: How much of it comes; the connection is then closed.
        declared: What GET says of its length; the truth unless given.
        asked: (method, path) of each request.
    """

    def __init__(self):
        self.body = None
        self.sent = None
        self.declared = None
        self.asked = []
        self.address = ""


def handler(hub):
    class Handler(BaseHTTPRequestHandler):
        def answer(self, *, body):
            hub.asked.append((self.command, self.path))
            if hub.body is None or self.path != PLACE:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            first = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
            self.send_response(206 if first else 200)
            length = hub.declared if body and hub.declared is not None else len(hub.body) - first
            self.send_header("Content-Length", str(length))
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(hub.body) - 1}/{len(hub.body)}")
            self.send_header("ETag", f'"{len(hub.body):040x}"')
            self.send_header("X-Repo-Commit", "0123456789" * 4)
            self.end_headers()
            if body:
                self.wfile.write(hub.body[first : hub.sent])

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def log_message(self, *_):
            pass

    return Handler


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine and an empty cache; nothing goes to any other server, no token to this one."""
    import huggingface_hub
    from huggingface_hub import constants, utils

    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    point_to(hub.address, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "registry.json"), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    utils.disable_progress_bars()
    close = getattr(huggingface_hub, "close_session", lambda: None)  # a client lives on between calls
    close()
    yield hub
    close()
    utils.enable_progress_bars()
    server.shutdown()
    server.server_close()
    thread.join()


def point_to(address, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return models.unet(in_channels=3, backbone=NAME, width=4)


@pytest.fixture
def state():
    import timm

    torch.manual_seed(1)
    return timm.create_model(NAME).state_dict()


def one_line(refusal):
    (problem,) = refusal.value.problems
    assert "\n" not in str(problem)
    assert f"{REPOSITORY}/model.safetensors" in str(problem)
    return str(problem)


@pytest.fixture
def unchanged(network):
    """Nothing that was refused has got into the network."""
    before = {key: value.clone() for key, value in network.state_dict().items()}
    yield
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_what_is_served_arrives_and_is_found_again_without_a_request(hub, network, state):
    hub.body = save(state)
    source = load_pretrained(network, "download")
    assert source.file.read_bytes() == hub.body
    loaded = network.encoder.net.state_dict()
    assert {key for key in loaded if torch.equal(loaded[key], state[key])} == loaded.keys()
    own = "/api/"  # what the client asks for its own ends
    assert {path for _, path in hub.asked if not path.startswith(own)} == {PLACE}
    assert hub.asked.count(("GET", PLACE)) == 1
    hub.asked.clear()
    torch.manual_seed(2)
    again = models.unet(in_channels=3, backbone=NAME, width=4)
    for word in ("cache", "download"):
        assert load_pretrained(again, word) == source
    assert torch.equal(again.encoder.net.state_dict()["conv1.0.weight"], state["conv1.0.weight"])
    assert hub.asked == []


@pytest.mark.usefixtures("unchanged")
def test_nothing_is_asked_for_unless_the_user_says_so(hub, network, state):
    hub.body = save(state)
    with pytest.raises(EnvironmentFault, match="--pretrained download"):
        load_pretrained(network, "cache")
    assert hub.asked == []


@pytest.mark.usefixtures("unchanged")
def test_a_file_that_is_not_there_is_one_line(hub, network):
    began = time.monotonic()
    with pytest.raises(EnvironmentFault) as refusal:
        load_pretrained(network, "download")
    assert "404" in one_line(refusal)
    assert time.monotonic() - began < 5
    assert ("GET", PLACE) not in hub.asked


@pytest.mark.usefixtures("unchanged")
def test_a_server_that_cannot_be_reached_is_one_line_at_once(hub, network, monkeypatch):
    """The client on its own tries six times in 23 seconds, and does not say what was wrong."""
    import socket

    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        point_to(f"http://127.0.0.1:{taken.getsockname()[1]}", monkeypatch)
        began = time.monotonic()
        with pytest.raises(EnvironmentFault) as refusal:
            load_pretrained(network, "download")
        assert time.monotonic() - began < 5
    assert "ConnectError" in one_line(refusal)
    assert "--pretrained FILE" in one_line(refusal)


@pytest.mark.usefixtures("unchanged")
def test_a_file_shorter_than_announced_is_refused_and_not_kept(hub, network, state):
    hub.body = save(state)
    hub.sent = hub.declared = len(hub.body) // 2
    with pytest.raises(EnvironmentFault) as refusal:
        load_pretrained(network, "download")
    assert f"should be of size {len(hub.body)}" in one_line(refusal)
    assert find_weights(NAME) is None
    with pytest.raises(EnvironmentFault):
        load_pretrained(network, "cache")


@pytest.mark.slow  # the client tries again five times, a second apart
@pytest.mark.usefixtures("unchanged")
def test_a_connection_that_breaks_off_is_refused_and_what_came_is_not_kept(hub, network, state):
    hub.body = save(state)
    hub.sent = len(hub.body) // 2
    began = time.monotonic()
    with pytest.raises(EnvironmentFault) as refusal:
        load_pretrained(network, "download")
    one_line(refusal)
    assert time.monotonic() - began < 20
    assert find_weights(NAME) is None


def test_after_a_failure_the_next_download_is_whole(hub, network, state):
    hub.body = save(state)
    hub.sent = hub.declared = len(hub.body) // 2
    with pytest.raises(EnvironmentFault):
        load_pretrained(network, "download")
    hub.sent = hub.declared = None
    source = load_pretrained(network, "download")
    assert source.file.read_bytes() == hub.body


@pytest.mark.usefixtures("unchanged")
def test_a_pickle_that_is_served_is_refused_unread(hub, network, state, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    hub.body = (tmp_path / "w.pth").read_bytes()
    for word in ("download", "cache"):
        with pytest.raises(SecurityError, match="safetensors, which cannot hold code"):
            load_pretrained(network, word)


def test_an_error_without_words_is_one_line_too(hub, monkeypatch):
    import huggingface_hub

    def fail(_):
        raise TimeoutError

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    with pytest.raises(EnvironmentFault) as refusal:
        find_weights(NAME, download=True)
    assert "the download failed (TimeoutError)" in one_line(refusal)
