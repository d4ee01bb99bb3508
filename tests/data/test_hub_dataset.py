"""Data sets of the hub: announced with size and licence, cached, resumed, and refused with what can be done."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from src.common import disk
from src.data.hub_dataset import DatasetId, parse_dataset_id
from src.data.hub_splits import default_config, splits_by_config
from src.data.record_files import read_records
from tests.fakes_hub import COMMIT, FakeHub, point_client_at

REPO = "someone/tiny-pairs"


def lines(*answers: str) -> bytes:
    return "".join(json.dumps({"instruction": "a", "response": answer}) + "\n" for answer in answers).encode()


FILES = {
    "README.md": b"# Pairs",
    "dataset_infos.json": b"{}",
    "data/train-00000-of-00002.jsonl": lines("1", "2"),
    "data/train-00001-of-00002.jsonl.gz": gzip.compress(lines("3")),
    "data/test-00000-of-00001.jsonl": lines("4"),
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with FakeHub(FILES, REPO) as running:
        running.card = {"license": "cc-by-4.0"}
        point_client_at(running.endpoint, monkeypatch)
        yield running
    close_session()


def answers(source: str | Path, notes: list[str] | None = None) -> list[str]:
    file = read_records(source, notify=(notes if notes is not None else []).append)
    assert not file.bad
    return [record["response"] for _, record in file.records]


def refusal(source: str, kind: type[Exception]) -> str:
    with pytest.raises(kind) as caught:
        read_records(source, notify=lambda line: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_split_is_read_after_its_size_and_licence_are_shown(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    notes: list[str] = []
    assert answers(REPO, notes) == ["1", "2", "3"]
    assert notes == [f"data: {REPO}, split train, commit 0123456: 2 files, 0.1 kB; licence: cc-by-4.0"]
    output = capsys.readouterr()
    assert f"Downloading {REPO} into " in output.err and "data/train-00000-of-00002.jsonl (" in output.err
    assert output.out == ""


def test_places_name_the_file_of_the_data_set(hub: FakeHub) -> None:
    places = [where for where, _ in read_records(REPO, notify=lambda line: None).records]
    assert places[1:] == [
        f"{REPO} data/train-00000-of-00002.jsonl line 2",
        f"{REPO} data/train-00001-of-00002.jsonl.gz line 1",
    ]


@pytest.mark.parametrize(
    "source",
    [
        f"{REPO}:test",
        f"{REPO}@{COMMIT}:test",
        f"{REPO}@main:default/test",
        f"hf://datasets/{REPO}:test",
        Path(f"{REPO}:test"),
    ],
)
def test_a_split_and_a_revision_can_be_named(hub: FakeHub, source: str | Path) -> None:
    assert answers(source) == ["4"]


def test_a_cached_split_needs_no_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(REPO)
    n_requests = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert answers(REPO) == answers(f"{REPO}@{COMMIT}") == ["1", "2", "3"]
    assert len(hub.requests) == n_requests
    message = refusal(f"{REPO}:test", OSError)
    assert message.startswith(f"HF_HUB_OFFLINE is set and {REPO} is not complete in {constants.HF_HUB_CACHE}; two alt")


def test_offline_without_a_cache_is_one_line(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = refusal(REPO, OSError)
    assert message.startswith(f"{REPO} cannot be downloaded: HF_HUB_OFFLINE is set and the data set is not in ")
    assert message.endswith("--data PATH (a file that you have), or HF_ENDPOINT=https://MIRROR (another server)")


def test_an_interrupted_download_resumes(hub: FakeHub) -> None:
    hub.files = {"train.jsonl": lines(*map(str, range(2000)))}
    size = len(hub.files["train.jsonl"])
    hub.cuts = [(40_000, "close")]
    assert len(answers(REPO)) == 2000
    assert hub.content_bytes == size


def test_too_little_disk_space_is_refused(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1}))
    assert "has only 0.0 kB free" in refusal(REPO, OSError)
    assert not hub.content_requests()


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("someone/other", OSError, "has no such data set (if it is private, run: hf auth login); two alternatives"),
        (f"{REPO}@v2", OSError, "cannot be downloaded: the data set has no such revision; two alternatives"),
        (
            f"{REPO}:dev",
            ValueError,
            f"has no split 'dev'; choose one with --data {REPO}:SPLIT, where SPLIT is one of train, test",
        ),
        (f"{REPO}:main/train", ValueError, "has no split 'main/train'; choose one"),
    ],
    ids=["data set", "revision", "split", "configuration"],
)
def test_a_missing_file_is_refused(hub: FakeHub, source: str, kind: type[Exception], message: str) -> None:
    assert message in refusal(source, kind)


def test_a_gated_data_set_is_refused_with_what_to_do(hub: FakeHub) -> None:
    hub.gated = True
    message = refusal(REPO, OSError)
    assert f"it is gated; accept its terms at {hub.endpoint}/datasets/{REPO}, then run: hf auth login" in message


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["tiny.py", "README.md"], f"{REPO} is made by a program (tiny.py), which is not run; try its copy in Parquet"),
        (["a.arrow", "b.zip"], f"{REPO} has no files in JSON, CSV or Parquet; found .arrow, .zip"),
    ],
    ids=["program", "other formats"],
)
def test_a_data_set_without_readable_files_is_refused(hub: FakeHub, names: list[str], message: str) -> None:
    hub.files = dict.fromkeys(names, b"x")
    assert refusal(REPO, ValueError).startswith(message)
    assert not hub.content_requests()


def test_parquet_without_pyarrow_is_refused_before_the_download(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files = {"train.parquet": b"PAR1"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert refusal(REPO, ImportError) == f"{REPO} is in Parquet, which needs pyarrow; run: pip install pyarrow"
    assert not hub.content_requests()


def test_files_outside_the_cache_are_never_written(hub: FakeHub, tmp_path: Path) -> None:
    hub.files = {"../../../train.jsonl": lines("1"), "train.jsonl": lines("2")}
    assert answers(REPO) == ["2"]
    assert not list(tmp_path.rglob("../train.jsonl"))


def test_a_local_path_of_that_name_goes_first(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(REPO).parent.mkdir()
    Path(REPO).write_bytes(lines("local"))
    assert answers(REPO) == ["local"]
    assert not hub.requests


@pytest.mark.parametrize(
    ("source", "dataset"),
    [
        ("a/b", DatasetId("a/b", "main", None)),
        ("a-b/c.d_2@refs/convert/parquet:x/y", DatasetId("a-b/c.d_2", "refs/convert/parquet", "x/y")),
        ("https://huggingface.co/datasets/a/b", DatasetId("a/b", "main", None)),
        ("a/b.jsonl", None),
        ("a/b.json.gz", None),
        ("b", None),
        ("/a/b", None),
        ("./a/b", None),
        ("../a", None),
        ("a/b@../c", None),
        ("tests/none", None),
        ("a/b/c", None),
    ],
)
def test_ids_are_distinguished_from_paths(
    source: str, dataset: DatasetId | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert parse_dataset_id(source) == dataset


@pytest.mark.parametrize(
    ("names", "configs", "expected", "default"),
    [
        (["b.jsonl", "a.py"], [], {"default": {"train": ["b.jsonl"]}}, "default"),
        (
            ["x/train.jsonl.gz", "y/train.jsonl.gz", "x/test.jsonl.gz", "z/more.jsonl.gz"],
            [],
            {"default": {"train": ["x/train.jsonl.gz", "y/train.jsonl.gz"], "test": ["x/test.jsonl.gz"]}},
            "default",
        ),
        (
            ["all.jsonl", "data/train-00000-of-00001.parquet", "data/dev_2-00000-of-00001-ab.parquet"],
            [],
            {
                "default": {
                    "train": ["data/train-00000-of-00001.parquet"],
                    "dev_2": ["data/dev_2-00000-of-00001-ab.parquet"],
                }
            },
            "default",
        ),
        (
            ["m/a.csv", "s/a.csv", "s/b.csv"],
            [
                {"config_name": "m", "data_files": "m/*"},
                {"config_name": "s", "default": True, "data_files": [{"split": "dev", "path": ["s/b.csv", "s/c.csv"]}]},
            ],
            {"m": {"train": ["m/a.csv"]}, "s": {"dev": ["s/b.csv"]}},
            "s",
        ),
        (
            ["m/train.csv", "n/valid.csv"],
            [{"config_name": "m", "data_dir": "m"}, {"config_name": "n", "data_dir": "n"}],
            {"m": {"train": ["m/train.csv"]}, "n": {"validation": ["n/valid.csv"]}},
            None,
        ),
    ],
    ids=["one file", "folders", "shards", "card", "folders in the card"],
)
def test_splits_follow_the_card_or_the_names(
    names: list[str], configs: list[dict[str, object]], expected: dict[str, dict[str, list[str]]], default: str | None
) -> None:
    found = splits_by_config(names, configs)
    assert found == expected
    assert default_config(configs, found) == default
