"""Downloads from a fake hub: announced, resumed, verified, and shared with huggingface_hub's cache."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import close_session, constants, hf_hub_download

from src.model.hub import ALTERNATIVES, download_model, find_weight_files
from tests.fakes_hub import FakeHub, point_client_at

WEIGHTS = random.Random(0).randbytes(300_000)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub(FILES) as running:
        point_client_at(running.endpoint, monkeypatch)
        yield running
    close_session()


def test_a_download_is_announced_and_complete(
    server: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = download_model(server.repo, tmp_path)
    output = capsys.readouterr()
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert f"Downloading {server.repo} into {tmp_path / 'models--someone--tiny-gpt2'}" in output.err
    assert "model.safetensors (0.3 MB)" in output.err
    assert output.out == ""


def test_a_cached_model_needs_no_server(server: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = download_model(server.repo, tmp_path)
    n_requests = len(server.requests)
    capsys.readouterr()
    assert download_model(server.repo, tmp_path) == folder
    assert len(server.requests) == n_requests
    assert capsys.readouterr().err == ""


def test_downloads_are_found_by_huggingface_hub(server: FakeHub, tmp_path: Path) -> None:
    download_model(server.repo, tmp_path)
    found = hf_hub_download(server.repo, "model.safetensors", cache_dir=tmp_path, local_files_only=True)
    assert Path(found).read_bytes() == WEIGHTS


def test_files_downloaded_by_huggingface_hub_are_reused(
    server: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hf_hub_download(server.repo, "model.safetensors", cache_dir=tmp_path)
    capsys.readouterr()
    folder = download_model(server.repo, tmp_path)
    assert "config.json (0.0 kB)\n" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert server.content_bytes == len(WEIGHTS)


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_broken_connection_resumes(server: FakeHub, tmp_path: Path, ending: str) -> None:
    server.cuts = [(150_000, ending), (60_000, ending)]
    folder = download_model(server.repo, tmp_path)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    first, *later = server.content_requests()
    assert first.range is None
    assert later and all(request.range is not None for request in later)
    assert {request.encoding for request in later} == {"identity"}  # a range of a compressed response is useless
    assert server.content_bytes < 1.3 * len(WEIGHTS)


def test_a_server_that_ignores_ranges_starts_over(server: FakeHub, tmp_path: Path) -> None:
    server.supports_ranges = False
    server.cuts = [(150_000, "close")]
    folder = download_model(server.repo, tmp_path)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert server.content_bytes == 150_000 + len(WEIGHTS)


def test_a_failed_download_resumes_in_the_next_run(
    server: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.cuts = [(200_000, "close")] + [(0, "close")] * 100
    with pytest.raises(
        OSError, match=r"stopped at 0\.2 MB of 0\.3 MB .*run the same command again to resume"
    ) as failure:
        download_model(server.repo, tmp_path)
    assert "\n" not in str(failure.value) and ALTERNATIVES in str(failure.value)
    server.cuts = []
    server.requests.clear()
    folder = download_model(server.repo, tmp_path)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert server.content_requests()[0].range == "bytes=200000-"
    assert server.content_bytes == len(WEIGHTS)
    assert "model.safetensors (0.3 MB, 0.2 MB of it already downloaded)" in capsys.readouterr().err


@pytest.mark.parametrize(("n_written", "requested_range"), [(100_000, "bytes=100000-"), (len(WEIGHTS) + 1, None)])
def test_an_interrupted_download_keeps_usable_bytes(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_written: int, requested_range: str | None
) -> None:
    def interrupted(url: str, stream: Any, **options: Any) -> None:
        stream.write((WEIGHTS * 2)[:n_written])
        raise KeyboardInterrupt

    hf_hub_download(server.repo, "config.json", cache_dir=tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("huggingface_hub.file_download.http_get", interrupted)
        download_model(server.repo, tmp_path)
    folder = download_model(server.repo, tmp_path)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert [request.range for request in server.content_requests()] == [requested_range]


def test_a_damaged_download_is_refused_and_repeated(server: FakeHub, tmp_path: Path) -> None:
    server.claimed_hash = hashlib.sha256(WEIGHTS).hexdigest()
    server.files["model.safetensors"] = bytes([WEIGHTS[0] ^ 1]) + WEIGHTS[1:]
    with pytest.raises(OSError, match=r"model\.safetensors has SHA-256 .* expected .* was deleted, run the same"):
        download_model(server.repo, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == len(WEIGHTS)]
    server.files["model.safetensors"] = WEIGHTS
    assert (download_model(server.repo, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert server.content_bytes == 2 * len(WEIGHTS)


def test_a_server_without_file_sizes_works(server: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.sends_sizes = False
    assert (download_model(server.repo, tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert "model.safetensors (size unknown)" in capsys.readouterr().err


def test_a_full_disk_is_reported_before_the_download(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=200_000))
    with pytest.raises(OSError, match=r"needs 0\.3 MB, but the disk has only 0\.2 MB free"):
        download_model(server.repo, tmp_path)
    assert server.content_bytes == 0


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (404, {"X-Error-Code": "RepoNotFound"}, "has no such model"),
        (404, {}, "has no config.json for someone/tiny-gpt2"),
        (403, {"X-Error-Code": "GatedRepo"}, "accept its terms"),
        (503, {}, "answered 503"),
        (200, {}, "is not a Hugging Face hub"),
    ],
)
def test_a_refusal_is_one_line_with_alternatives(
    server: FakeHub, tmp_path: Path, status: int, headers: dict[str, str], message: str
) -> None:
    server.error_response = (status, headers)
    with pytest.raises(OSError) as failure:
        download_model(server.repo, tmp_path)
    assert message in str(failure.value) and server.endpoint in str(failure.value)
    assert str(failure.value).endswith(ALTERNATIVES) and "\n" not in str(failure.value)
    assert [request.method for request in server.requests if "/resolve/" in request.path] == ["HEAD"]


def test_a_missing_connection_is_one_line_with_alternatives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeHub(FILES) as gone:
        point_client_at(gone.endpoint, monkeypatch)
    with pytest.raises(OSError) as failure:
        download_model(gone.repo, tmp_path)
    assert f"no connection to {gone.endpoint}" in str(failure.value)
    assert str(failure.value).endswith(ALTERNATIVES) and "\n" not in str(failure.value)


def test_offline_mode_sends_no_request(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        OSError, match="HF_HUB_OFFLINE is set and the model is not in .*; three alternatives: --weights PATH"
    ):
        download_model(server.repo, tmp_path)
    assert server.requests == []


def test_a_token_is_sent_to_the_hub_only(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    download_model(server.repo, tmp_path)
    assert [request.authorization for request in server.content_requests()] == [None]
    assert "Bearer hf_secret" in [request.authorization for request in server.requests]


def test_concurrent_runs_download_once(server: FakeHub, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: download_model(server.repo, tmp_path), range(2)))
    assert [(folder / "model.safetensors").read_bytes() for folder in folders] == [WEIGHTS, WEIGHTS]
    assert server.content_bytes == len(WEIGHTS)


def test_an_index_and_its_parts_are_downloaded(
    server: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["model-1-of-2.safetensors", "model-2-of-2.safetensors"]
    index = {"weight_map": {"a": names[1], "b": names[0], "c": names[1]}}
    server.files = {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode(), "x.bin": b""}
    server.files |= {names[0]: WEIGHTS[:1000], names[1]: WEIGHTS[1000:]}
    folder = download_model(server.repo, tmp_path)
    assert find_weight_files(folder) == [folder / name for name in names]
    assert b"".join(path.read_bytes() for path in find_weight_files(folder)) == WEIGHTS
    (folder / names[1]).unlink()  # only the missing part is downloaded again
    server.requests.clear()
    capsys.readouterr()
    download_model(server.repo, tmp_path)
    assert [request.path for request in server.content_requests()] == [f"/cdn/{names[1]}"]
    assert capsys.readouterr().err.count("Downloading") == 1


def test_safetensors_are_preferred_to_a_pickle(server: FakeHub, tmp_path: Path) -> None:
    server.files["pytorch_model.bin"] = b"pickle"
    assert find_weight_files(download_model(server.repo, tmp_path))[0].name == "model.safetensors"
    assert [request.path for request in server.content_requests()] == ["/cdn/model.safetensors"]


def test_a_model_without_safetensors_is_downloaded_as_a_pickle(server: FakeHub, tmp_path: Path) -> None:
    server.files = {"config.json": b"{}", "pytorch_model.bin": WEIGHTS}
    assert find_weight_files(download_model(server.repo, tmp_path))[0].read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b"{}"}, "has neither model.safetensors nor pytorch_model.bin"),
        ({"model.safetensors": WEIGHTS}, "has no config.json"),
        (
            {"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {"a": "m.safetensors"}}'},
            "lacks m.safetensors",
        ),
    ],
)
def test_a_model_without_its_files_is_refused(
    server: FakeHub, tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    server.files = files
    with pytest.raises(FileNotFoundError, match=message):
        download_model(server.repo, tmp_path)


@pytest.mark.parametrize("part", ["../config.json", "/etc/passwd", "..\\x.bin", ".bin", "a/b.bin", "x.txt"])
def test_an_index_may_only_list_weight_files_in_its_folder(tmp_path: Path, part: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": part}}), encoding="utf-8")
    with pytest.raises(ValueError, match="expected file names ending in"):
        find_weight_files(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}'])
def test_an_unreadable_index_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"index\.json is not an index of weights"):
        find_weight_files(tmp_path)


def _run_client(home: Path, repo: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS"))}
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from src.model.hub import download_model; print(download_model(sys.argv[1]))",
            repo,
        ],
        env={**clean, "NO_PROXY": "127.0.0.1,localhost", "HF_HOME": str(home), "TQDM_POSITION": "-1", **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_hub_variables_apply_and_a_progress_bar_is_shown(tmp_path: Path) -> None:
    with FakeHub(FILES) as server:
        first = _run_client(tmp_path, server.repo, HF_ENDPOINT=server.endpoint)
        assert "Downloading someone/tiny-gpt2" in first.stderr
        assert any(line.startswith("model.safetensors: 100%") for line in first.stderr.splitlines())
        assert Path(first.stdout.strip()).is_relative_to(tmp_path / "hub")
    again = _run_client(tmp_path, server.repo, HF_HUB_OFFLINE="1")
    assert again.stdout == first.stdout


def test_an_unusable_proxy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:7890")
    close_session()
    with pytest.raises(OSError, match="ALL_PROXY=socks://... is not a proxy that can be used; set it to socks5://127"):
        download_model("someone/tiny-gpt2", tmp_path)
    close_session()
