"""The checkpoints of a run: no best model is ever lost, whatever moment a run is killed at."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from src.checkpoint import read_checkpoint
from src.model.gpt import GPTModel
from src.training import checkpoints
from tests.training.small_run import CONFIG, Interrupt, flags, run


class Killed(BaseException):
    """Ends a run as `kill -9` would: nothing catches it."""


def kill_at_call(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the run just before the given one of its calls that change the folder, counted from 0."""
    calls = iter(range(1000))

    def counted(function):
        def call(*args, **kwargs):
            if next(calls) == number:
                raise Killed
            return function(*args, **kwargs)

        return call

    for name in ("link", "replace", "fsync"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


def best_weights(path: Path) -> torch.Tensor:
    return read_checkpoint(path)["model"]["wte.weight"]


def test_a_kill_at_any_moment_loses_no_best_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"max_steps": 1}
    run(flags(tmp_path / "earlier", **settings))
    earlier = (tmp_path / "earlier/out/best_model.pt").read_bytes()
    run(flags(tmp_path / "undisturbed", seed=2, **settings))
    expected = best_weights(tmp_path / "undisturbed/out/best_model.pt")
    killed = True
    number = 0
    while killed:
        folder = tmp_path / str(number)
        out = folder / "out"
        shutil.copytree(tmp_path / "earlier/out", out)
        with monkeypatch.context() as patch:
            kill_at_call(number, patch)
            try:
                run(flags(folder, seed=2, **settings))
                killed = False
            except Killed:
                number += 1
        best_weights(out / "best_model.pt")  # whole, and in its place
        assert earlier in [path.read_bytes() for path in out.glob("best_model*.pt")], number
        run(flags(folder, seed=2, **settings))
        assert torch.equal(best_weights(out / "best_model.pt"), expected), number
        assert (out / "best_model.previous.pt").read_bytes() == earlier, number
        assert len(list(out.glob("*.previous*"))) == 1, number
    assert number == 7  # two calls for each of three saves, and the second name of the earlier best model


def test_no_earlier_best_model_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, models = tmp_path / "out", []
    for seed in range(4):
        run(flags(tmp_path, seed=seed, max_steps=1))
        models.append((out / "best_model.pt").read_bytes())
    names = ["best_model.previous.pt", "best_model.previous-2.pt", "best_model.previous-3.pt", "best_model.pt"]
    assert [(out / name).read_bytes() for name in names] == models
    assert f"{out}/best_model.pt: the best model of an earlier run is now best_model.previous-3.pt" in (
        capsys.readouterr().out.replace("\\", "/")
    )


def test_a_full_disk_leaves_the_best_model_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(flags(tmp_path, max_steps=1))
    best = tmp_path / "out/best_model.pt"
    before = best.read_bytes()

    def full(path, content):
        if path == best:
            raise OSError(f"{path} needs 1 MB, but the disk has only 0 MB free; nothing was overwritten")
        return save(path, content)

    save = checkpoints.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_checkpoint", full)
        with pytest.raises(OSError, match="nothing was overwritten"):
            run(flags(tmp_path, seed=2, max_steps=1))
    assert best.read_bytes() == before
    run(flags(tmp_path, seed=2, max_steps=1))
    assert [path.name for path in tmp_path.glob("out/*.previous*")] == ["best_model.previous.pt"]
    assert best.read_bytes() != before


def test_a_disk_that_fills_up_while_the_best_model_is_set_aside(tmp_path: Path, monkeypatch) -> None:
    run(flags(tmp_path, max_steps=1))
    out = tmp_path / "out"
    before = (out / "best_model.pt").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        patch.setattr(shutil, "copyfileobj", full)
        with pytest.raises(OSError) as error:
            run(flags(tmp_path, seed=2, max_steps=1))
    line = f"{out / 'best_model.previous.pt'}: could not be written (No space left on device); nothing was overwritten"
    assert str(error.value) == line
    assert (out / "best_model.pt").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["best_model.pt", "latest_model.pt"]
    run(flags(tmp_path, seed=2, max_steps=1))  # resumes
    assert (out / "best_model.previous.pt").read_bytes() == before


def test_a_disk_without_room_for_a_run_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil._ntuple_diskusage(10**6, 10**6, 50_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="out.*needs.*only 50.0 kB free; a run saves its weights and its optimizer state"):
        run(flags(tmp_path))
    assert not (tmp_path / "logs").exists()


def test_without_hard_links_the_best_model_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", unsupported)
    run(flags(tmp_path, max_steps=1))
    before = (tmp_path / "out/best_model.pt").read_bytes()
    run(flags(tmp_path, seed=2, max_steps=1))
    assert (tmp_path / "out/best_model.previous.pt").read_bytes() == before


def test_keep_holds_the_most_recent_saves_of_this_run(tmp_path: Path) -> None:
    settings = {"save_every": "1", "keep": 2, "max_steps": 4, "eval_every": 4}
    run(flags(tmp_path, **settings))
    saves = sorted((tmp_path / "out").glob("step-*.pt"))
    assert [path.name[:12] for path in saves] == ["step-000003-", "step-000004-"]
    assert [read_checkpoint(path)["step"] for path in saves] == [3, 4]
    run(flags(tmp_path, seed=2, **settings))
    assert {*saves} < {*(tmp_path / "out").glob("step-*.pt")}  # those of another run stay
    assert len([*(tmp_path / "out").glob("step-*.pt")]) == 4


def test_a_run_resumes_from_an_earlier_save(tmp_path: Path) -> None:
    settings = {"save_every": "1", "keep": 3, "max_steps": 4, "eval_every": 2}
    _, expected = run(flags(tmp_path, **settings), dropout=0.2)
    [second] = (tmp_path / "out").glob("step-000002-*.pt")
    shutil.copy(second, tmp_path / "out/latest_model.pt")
    code, resumed = run(flags(tmp_path, **settings), dropout=0.2)
    assert code == 0
    assert torch.equal(resumed.wte.weight, expected.wte.weight)
    assert len([*(tmp_path / "out").glob("step-*.pt")]) == 3
    assert not [*(tmp_path / "out").glob("*.previous*")]


def test_a_run_started_over_by_mistake_can_be_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(flags(tmp_path, max_steps=2))
    latest = tmp_path / "out/latest_model.pt"
    before = latest.read_bytes()
    assert run(flags(tmp_path, max_steps=4, max_lr=2e-2), loss_fn=Interrupt(1))[0] == 130
    assert "latest_model.pt: the earlier run is now latest_model.previous.pt" in capsys.readouterr().out
    os.replace(tmp_path / "out/latest_model.previous.pt", latest)
    assert latest.read_bytes() == before
    assert run(flags(tmp_path, max_steps=4))[0] == 0
    assert "continuing the finished run at step 2 of 4" in capsys.readouterr().out


def test_a_lost_best_model_is_not_reported_as_saved(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    best = tmp_path / "out/best_model.pt"
    run(flags(tmp_path, max_steps=2))
    best.unlink()
    with pytest.raises(
        ValueError, match=r"best_model.pt: missing, damaged, or from another run, and this run is finished"
    ):
        run(flags(tmp_path, max_steps=2))
    assert run(flags(tmp_path, max_steps=4))[0] == 0
    assert (
        "best_model.pt: missing, damaged, or from another run; the next evaluation saves a new one"
        in capsys.readouterr().out
    )
    assert read_checkpoint(best)["step"] == 4


def test_a_damaged_best_model_is_noticed_on_resume(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(flags(tmp_path, max_steps=2))
    best = tmp_path / "out/best_model.pt"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(content)
    with pytest.raises(ValueError, match=r"best_model.pt: missing, damaged, .* this run is finished"):
        run(flags(tmp_path, max_steps=2))
    assert run(flags(tmp_path, max_steps=4))[0] == 0
    assert "damaged, or from another run; the next evaluation saves a new one" in capsys.readouterr().out


def test_going_back_to_an_earlier_save_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(flags(tmp_path, eval_every=2, keep=5))
    saves = sorted((tmp_path / "out").glob("step-*.pt"))
    newest, best = saves[-1].read_bytes(), (tmp_path / "out/best_model.pt").read_bytes()
    (tmp_path / "out/latest_model.pt").write_bytes(saves[0].read_bytes())  # as `cp` does
    assert saves[-1].read_bytes() == newest
    assert run(flags(tmp_path, eval_every=2, max_steps=4))[0] == 0
    assert (tmp_path / "out/best_model.previous.pt").read_bytes() == best
    assert "best_model.pt: the best model of a later step is now best_model.previous.pt" in capsys.readouterr().out


def test_the_room_for_all_checkpoints_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_bytes = sum(tensor.nbytes for tensor in GPTModel(CONFIG).state_dict().values())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=13 * n_bytes - 1))
    with pytest.raises(OSError, match=r"out needs .* free some space, or pass --out on another disk, or lower --keep"):
        run(flags(tmp_path, keep=2))
    assert not (tmp_path / "out").exists()
