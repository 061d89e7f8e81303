"""A storage behind a proxy: who may use it, its locks, and what it says when it cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path

import pytest

from parefront.errors import StorageError, StorageVersionError, UsageError
from parefront.search.patience import Patience
from parefront.search.storage import home_of, kind_of, open_storage
from tests.search.conftest import free_port
from tests.search.trials import create, ledger, propose, proposer, search
from tests.waiting import until

grpc = pytest.importorskip("grpc", reason="needs gRPC")

from parefront.search import leases  # noqa: E402
from parefront.search.leases import SERVICE, LeasedLock, Leases  # noqa: E402
from parefront.search.locks import lock_of  # noqa: E402
from parefront.search.serve_storage import refuse_open, served  # noqa: E402


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/studies.db"


@pytest.fixture
def proxy(file: str) -> Iterator[str]:
    with served(file, "127.0.0.1", free_port()) as url:
        yield url


def test_what_is_told_through_the_proxy_is_in_the_storage(proxy: str, file: str) -> None:
    ids = search(ledger(proxy), proposer(), 4)
    assert [entry.record.candidate_id for entry in ledger(file).entries()] == ids
    assert kind_of(proxy) == "grpc"
    assert home_of(proxy) == Path(".parefront")


def test_the_lock_holds_against_those_who_use_the_storage_directly(proxy: str, file: str) -> None:
    through, direct = lock_of(proxy, "s"), lock_of(file, "s")
    assert direct.take()
    assert not through.take()
    direct.release()
    until(through.take)
    assert not direct.take()
    through.release()
    assert direct.take()
    direct.release()


def test_a_lock_is_free_again_when_nobody_says_that_it_is_wanted(file: str) -> None:
    with served(file, "127.0.0.1", free_port(), expire=0.5) as url:
        kept = LeasedLock(url, "kept", "", Patience(), renew=0.05)
        left = LeasedLock(url, "left", "", Patience(), renew=1000.0)  # as if its machine were gone
        assert kept.take()
        assert left.take()
        until(lock_of(file, "left").take)
        assert not lock_of(file, "kept").take()
        kept.release()
        left.release()


def test_a_proxy_that_ends_gives_all_locks_back(file: str) -> None:
    with served(file, "127.0.0.1", free_port()) as url:
        held = lock_of(url, "s")
        assert held.take()
    assert lock_of(file, "s").take()
    held.release()


def test_a_token_takes_its_lock_again_and_no_other(file: str) -> None:
    kept = Leases(file)
    assert kept.take("s", "", "a")
    assert kept.take("s", "", "a")
    assert not kept.take("s", "", "b")
    kept.give("s", "", "b")
    assert not kept.take("s", "", "b")
    kept.give("s", "", "a")
    assert kept.take("s", "", "b")
    kept.sweep()
    assert not kept.take("s", "", "c")
    kept.sweep(every=True)


@pytest.mark.parametrize(
    "words",
    [
        {"study": "../../etc/x", "what": "", "token": "t"},
        {"study": "s", "what": "../x", "token": "t"},
        {"study": "s", "what": ""},
        ["s"],
        {"study": 1, "what": "", "token": "t"},
    ],
)
def test_a_lock_is_no_way_to_write_elsewhere(proxy: str, tmp_path: Path, words: object) -> None:
    with grpc.insecure_channel(proxy.removeprefix("grpc://")) as channel:
        ask = channel.unary_unary(f"/{SERVICE}/Take")
        with pytest.raises(grpc.RpcError) as refused:
            ask(json.dumps(words).encode())
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert not (tmp_path / "locks").exists()


def test_nobody_there_another_server_and_another_version_are_told_apart(
    file: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    with pytest.raises(StorageError, match="nothing answers at .*parefront serve-storage"):
        open_storage(f"grpc://127.0.0.1:{port}")
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    with pytest.raises(StorageError, match="is not parefront's proxy"):
        open_storage(f"grpc://127.0.0.1:{port}")
    server.stop(None).wait()
    monkeypatch.setattr(leases, "about", lambda: {"optuna": "99.1.0"})
    with pytest.raises(StorageVersionError, match="install the same on both sides"):
        leases.check_server(proxy)  # this thread asks with one version, and the proxy has another


def test_other_machines_are_let_in_only_when_told_so() -> None:
    refuse_open("127.0.0.1", insecure=False)
    refuse_open("192.0.2.1", insecure=True)
    with pytest.raises(UsageError, match="no passwords and no TLS.*ssh -L.*--insecure"):
        refuse_open("192.0.2.1", insecure=False)


def test_a_port_that_is_taken_and_a_proxy_of_a_proxy_are_refused(file: str, proxy: str) -> None:
    taken = int(proxy.rpartition(":")[2])
    with pytest.raises(UsageError, match="cannot listen at"), served(file, "127.0.0.1", taken):
        pytest.fail("two proxies share a port")
    with pytest.raises(UsageError, match="which is a proxy"), served(proxy, "127.0.0.1", taken):
        pytest.fail("a proxy was served")


def test_the_command_serves_until_ctrl_c(file: str) -> None:
    port = free_port()
    words = [sys.executable, "-m", "parefront", "serve-storage", "--storage", file]
    with subprocess.Popen(
        [*words, "--port", f"{port}"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    ) as process:
        assert process.stdout is not None
        assert "without passwords" in process.stdout.readline()
        into = ledger(f"grpc://127.0.0.1:{port}")
        create(into, propose(proposer(), into))
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
    with pytest.raises(StorageError, match="the storage failed"):
        into.entries()
    assert len(ledger(file).entries()) == 1


def test_a_proxy_that_is_begun_again_is_waited_for(file: str) -> None:
    port, said = free_port(), list[str]()
    with ExitStack() as later:

        def phase(text: str) -> None:
            said.append(text)
            if "does not answer" in text:
                later.enter_context(served(file, "127.0.0.1", port))

        with served(file, "127.0.0.1", port) as url:
            into = ledger(url, Patience(seconds=120, phase=phase))
            create(into, propose(proposer(), into))
        create(into, propose(proposer(1), into))
        assert said == [
            "the storage does not answer; trying for 120 s",
            "the storage answers again",
        ]
    assert len(ledger(file).entries()) == 2
