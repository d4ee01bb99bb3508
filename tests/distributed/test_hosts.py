"""A run on two hosts survives a cut of the network between them. The hosts are network namespaces of this machine."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import main
from src.checkpoint import read_checkpoint
from tests.distributed.launch import TRAIN, read_until, started, write_text
from tests.repository import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.root]

STEPS, TOLERANCE = 160, 3e-4
ARGUMENTS = [
    *TRAIN[1:],
    "--optimizer",
    "adamw",
    "--max-lr",
    "1e-4",
    "--max-steps",
    str(STEPS),
    "--eval-every",
    str(STEPS),
    "--save-every",
    "20",
]


def ip(*arguments: str) -> str:
    assert shutil.which("ip"), "this test needs the command ip: apt-get install iproute2"
    return subprocess.run(["ip", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


@dataclass(frozen=True)
class Host:
    """A network namespace with one network device."""

    name: str  # as the processes see it
    namespace: str
    address: str
    device: str

    def command(self, *options: str) -> list[str]:
        """torchrun on this host, with the host's name."""
        script = [str(ROOT / TRAIN[0]), *ARGUMENTS]
        inside = ["sh", "-c", 'hostname "$0" && exec torchrun "$@"', self.name, *options, *script]
        return ["ip", "netns", "exec", self.namespace, "unshare", "--uts", *inside]

    def link(self, state: str) -> None:
        ip("-n", self.namespace, "link", "set", self.device, state)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts, joined by a virtual cable. Nothing is left of them, nor of what runs there."""
    unique = os.getpid()
    a, b = (Host(name, f"gpt2-{unique}-{name}", f"10.77.0.{i}", f"{name}{unique}") for i, name in ((1, "a"), (2, "b")))
    try:
        for host in (a, b):
            ip("netns", "add", host.namespace)
        ip("-n", a.namespace, "link", "add", a.device, "type", "veth", "peer", b.device, "netns", b.namespace)
        for host in (a, b):
            ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", host.device)
            ip("-n", host.namespace, "link", "set", "lo", "up")
            host.link("up")
        yield a, b
    finally:
        for namespace in {a.namespace, b.namespace} & {line.split()[0] for line in ip("netns", "list").splitlines()}:
            for process in ip("netns", "pids", namespace).split():
                os.kill(int(process), signal.SIGKILL)
            ip("netns", "delete", namespace)


def test_a_run_on_two_hosts_survives_a_cut_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path)
    with two_hosts() as (a, b), ExitStack() as stack:
        processes = []
        for host in (a, b):
            rendezvous = ["--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={a.address}:29400", "--max-restarts=3"]
            command = host.command(*rendezvous, f"--local-addr={host.address}", f"--rdzv-conf=is_host={int(host is a)}")
            variables = {
                "GLOO_SOCKET_IFNAME": host.device,
                "GPT2_TIMEOUT_S": "50",
                "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
                "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "2",
            }
            processes.append(stack.enter_context(started(command, tmp_path, **variables)))
        first, second = processes
        read_until(first, rf"^step +[3-9]\d/{STEPS}")
        b.link("down")
        assert re.search(
            "^error: no heartbeat from rank 1 on b for 5 s; torchrun starts", read_until(first, "^error"), re.M
        )
        assert re.search(rf"^error: no answer from rank 0 on {a.address} for 5 s", read_until(second, "^error"), re.M)
        b.link("up")
        output = read_until(first, "$^")
        assert (first.wait(), second.wait()) == (0, 0)
    [resumed] = re.findall(r"^resuming .*step (\d+)", output, re.MULTILINE)
    assert int(resumed) >= 20
    monkeypatch.chdir(tmp_path)
    assert main.main([*ARGUMENTS, "--out", "undisturbed"]) == 0
    found, expected = (read_checkpoint(tmp_path / out / "latest_model.pt") for out in ("out", "undisturbed"))
    assert found["step"] == expected["step"] == STEPS
    largest = max(float((found["model"][name] - weight).abs().max()) for name, weight in expected["model"].items())
    assert largest < TOLERANCE


def test_hosts_are_removed_after_an_error() -> None:
    with pytest.raises(RuntimeError), two_hosts() as hosts:
        subprocess.Popen(["ip", "netns", "exec", hosts[0].namespace, "sleep", "60"])
        raise RuntimeError
    assert not [host for host in hosts if host.namespace in ip("netns", "list")]
