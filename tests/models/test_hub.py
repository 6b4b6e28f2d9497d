"""From a name to a folder: shipped, local, or from a hub that this test plays itself, on this machine."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import sgpa_checkpoints
from safetensors.numpy import save_file

from sgpa_jax.errors import CheckpointError, UsageError
from sgpa_jax.models.hub import describe, resolve

SHIPPED = {"pocket": "pocket"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "maker/model"


class Hub:
    """A hub with one repository, kept in a folder; remembers which bytes of which file were asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.status = 200
        self.sent: list[tuple[str, int]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = request.path.partition("?")[0]
        codes = {401: "GatedRepo", 404: "RepoNotFound"}
        if self.status != 200:
            self.send(request, self.status, b"", {"X-Error-Code": codes[self.status]}, body)
        elif re.fullmatch(rf"/api/models/{NAME}(/revision/(main|{COMMIT}))?", path):
            siblings = [{"rfilename": self.name_of(file), "size": file.stat().st_size} for file in self.files()]
            info = {"id": NAME, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            self.send(request, 200, json.dumps(info).encode(), {}, body)
        elif re.fullmatch(rf"/api/models/{NAME}/tree/{COMMIT}.*", path):
            tree = [
                {"type": "file", "path": self.name_of(file), "size": file.stat().st_size, "oid": "0"}
                for file in self.files()
            ]
            self.send(request, 200, json.dumps(tree).encode(), {}, body)
        elif found := re.fullmatch(rf"/{NAME}/resolve/(main|{COMMIT})/(.+)", path):
            if (self.folder / found[2]).is_file():
                self.send_file(request, found[2], body)
            else:
                self.send(request, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, body)
        else:
            self.send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"}, body)

    def send_file(self, request: BaseHTTPRequestHandler, name: str, body: bool) -> None:
        data = (self.folder / name).read_bytes()
        headers, status = {"ETag": f'"{name}-{len(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}, 200
        if found := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", "")):
            first, last = int(found[1]), min(int(found[2]), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        if body:
            self.sent.append((name, len(data)))
        self.send(request, status, data, headers, body)

    def send(self, request: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict, body: bool) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if body:
            request.wfile.write(data)

    def name_of(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = tmp_path / "repository"
    (folder / "audio_detokenizer").mkdir(parents=True)
    for name in ("config.json", "chat_template.jinja", "vocab.txt", "modeling.py", "pytorch_model.bin", "README.md"):
        (folder / name).write_text('{"model_type": "wav2vec2"}')
    (folder / "audio_detokenizer" / "config.json").write_text("{}")
    for name in ("model.safetensors", "tokenizer-mimi.safetensors", "audio_detokenizer/model.safetensors"):
        save_file({"a": np.zeros((300, 1000), np.float32), "b": np.zeros(3, np.int8)}, folder / name)
    hub = Hub(folder)
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    huggingface_hub.HfFileSystem.clear_instance_cache()
    yield hub
    huggingface_hub.close_session()
    hub.close()


def test_a_shipped_name_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "pocket").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("pocket", "model", SHIPPED) == ("pocket", sgpa_checkpoints.shipped_folder("pocket"))
    assert resolve("./pocket", "model", SHIPPED) == ("pocket", Path("pocket"))
    assert resolve(tmp_path / "pocket", "model", SHIPPED) == ("pocket", tmp_path / "pocket")


def test_a_folder_wins_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / NAME).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve(NAME, "model", SHIPPED) == ("model", Path(NAME))


@pytest.mark.parametrize("given", ["pockett", "./gone/model", "/gone", "a/b/c", "maker/model@", "", "~/model"])
def test_what_is_neither_names_the_nearest(given: str):
    with pytest.raises(UsageError, match=r"no such folder, and no hub id.*pocket"):
        resolve(given, "model", SHIPPED)


def test_only_the_hub_has_revisions(tmp_path: Path):
    with pytest.raises(UsageError, match="has no revision 'main'"):
        resolve(tmp_path, "model", SHIPPED, revision="main")
    with pytest.raises(UsageError, match="give one of them"):
        resolve(f"{NAME}@v1", "model", SHIPPED, revision="v2")


def test_without_a_network_the_hub_is_told_in_one_sentence():
    with pytest.raises(CheckpointError, match=r"maker/model is no folder, and the hub cannot be reached") as caught:
        resolve(NAME, "model", SHIPPED)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [NAME, f"{NAME}@main", f"{NAME}@{COMMIT}"])
def test_only_what_is_read_is_fetched(hub: Hub, given: str):
    name, folder = resolve(given, "model", SHIPPED)
    assert name == f"{NAME}@{COMMIT}"
    fetched = {path.name for path in folder.rglob("*")}
    assert fetched == {"config.json", "chat_template.jinja", "vocab.txt", "model.safetensors"}
    assert dict(sgpa_checkpoints.read_tensors(folder))["a"].shape == (300, 1000)


def test_describing_fetches_the_header_alone(hub: Hub):
    found = describe(NAME, "model", SHIPPED)
    assert found.name == f"{NAME}@{COMMIT}"
    assert found.config == {"model_type": "wav2vec2"}
    assert found.preprocessor is None
    assert {name: (header.dtype, header.shape) for name, header in found.headers.items()} == {
        "a": (np.float32, (300, 1000)),
        "b": (np.int8, (3,)),
    }
    assert sum(n_bytes for _, n_bytes in hub.sent) < 1000


def test_described_shards_are_checked(hub: Hub):
    save_file({"c": np.zeros(3)}, hub.folder / "model-2.safetensors")
    (hub.folder / "model.safetensors").rename(hub.folder / "model-1.safetensors")
    weight_map = {"a": "model-1.safetensors", "c": "model-2.safetensors"}
    index = hub.folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert describe(NAME, "model", SHIPPED).headers.keys() == {"a", "b", "c"}
    (hub.folder / "model-2.safetensors").unlink()
    with pytest.raises(sgpa_checkpoints.FormatError, match="shards that are not there: model-2"):
        describe(NAME, "model", SHIPPED)
    index.unlink()
    with pytest.raises(sgpa_checkpoints.FormatError, match=r"holds no model\.safetensors"):
        describe(NAME, "model", SHIPPED)


@pytest.mark.parametrize("ask", [resolve, describe])
@pytest.mark.parametrize(("status", "told"), [(401, "wants its licence to be accepted"), (404, "the hub has no maker")])
def test_what_the_hub_refuses_is_told_in_one_sentence(hub: Hub, ask, status: int, told: str):
    hub.status = status
    with pytest.raises(CheckpointError, match=told) as caught:
        ask(NAME, "model", SHIPPED)
    assert "\n" not in str(caught.value)


def test_an_unknown_revision_is_told(hub: Hub):
    with pytest.raises(CheckpointError, match="the hub has no maker/model@v9"):
        resolve(NAME, "model", SHIPPED, revision="v9")


def test_a_missing_configuration_is_told(hub: Hub):
    (hub.folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"maker/model lacks a file that is needed"):
        describe(NAME, "model", SHIPPED)


def test_a_hub_that_does_not_answer_is_told(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    hub.close()
    for ask in (resolve, describe):
        with pytest.raises(CheckpointError, match="the hub cannot be reached"):
            ask(NAME, "model", SHIPPED)
