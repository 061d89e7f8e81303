"""The command `parefront agent`: tokens, addresses, certificates, options."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from parefront.errors import AgentError, CertificateError, MeasurementError
from parefront.objectives.targets.agent.remote import RemoteDevice
from parefront.objectives.targets.agent.settings import Settings, is_loopback
from parefront.objectives.targets.agent.sizes import size_of, size_text
from parefront.objectives.targets.agent.token import read_token, write_token
from tests.objectives.agent.models import ORT, X, linear
from tests.objectives.agent.process import AgentProcess


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "parefront", "agent", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    write_token(tmp_path / "token")
    return tmp_path / "token"


def test_a_new_token_is_long_random_and_for_its_user_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "deep" / "first", tmp_path / "second"
    for path in (first, second):
        write_token(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_token(first) != read_token(second)
    assert len(read_token(first)) >= 40
    with pytest.raises(AgentError, match="there already; leave out --new-token"):
        write_token(first)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620])
def test_a_token_that_others_can_read_is_refused(
    mode: int, token_file: Path, tmp_path: Path
) -> None:
    token_file.chmod(mode)
    with pytest.raises(AgentError, match=rf"mode {mode:o}; try: chmod 600 {token_file}"):
        read_token(token_file)
    if mode == 0o644:
        done = command("--token-file", str(token_file), "--folder", str(tmp_path / "files"))
        assert done.returncode == 2
        assert "only you can read" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_token_of_another_user_is_refused(token_file: Path) -> None:
    os.chown(token_file, 12345, 12345)
    with pytest.raises(AgentError, match="to be yours, got one of another user"):
        read_token(token_file)


@pytest.mark.parametrize("text", ["", "short", "with a space in it, though long", "größe" * 9])
def test_what_is_no_token_is_refused(text: str, token_file: Path) -> None:
    token_file.write_text(text)
    with pytest.raises(AgentError, match="visible ASCII characters|cannot read the token file"):
        read_token(token_file)


def test_a_token_file_that_is_not_there(tmp_path: Path) -> None:
    done = command("--token-file", str(tmp_path / "token"))
    assert done.returncode == 2
    assert "there is no token file" in done.stderr
    assert "--new-token" in done.stderr


def test_sizes_are_written_and_read() -> None:
    for text, size in (("1", 1), ("512M", 512 << 20), ("1.5 GiB", 3 << 29), ("2kb", 2048)):
        assert size_of(text) == size
        assert size_of(size_text(size).replace(" bytes", "")) == size
    for text in ("", "0", "M", "-1M", "1X", "lots"):
        with pytest.raises(ValueError, match="expected a size such as 512M"):
            size_of(text)


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("192.168.0.7", False)],  # noqa: S104
)  # fmt: skip
def test_without_tls_only_this_machine_is_listened_to(host: str, alone: bool) -> None:
    assert is_loopback(host) == alone
    if alone:
        Settings(host=host)
    else:
        with pytest.raises(AgentError, match="expected --certificate .* give --insecure"):
            Settings(host=host)
        Settings(host=host, insecure=True)
        Settings(host=host, certificate=Path("certificate.pem"))


def test_wrong_options_are_the_users_mistake(token_file: Path, tmp_path: Path) -> None:
    token = ("--token-file", str(token_file))
    (tmp_path / "file").write_text("")
    for words, reason in (
        (("--host", "0.0.0.0"), "everyone on the network can read the token"),  # noqa: S104
        (("--host", "no.such.host.invalid"), "cannot listen at no.such.host.invalid"),
        (("--memory", "lots"), "--memory: expected a size such as 512M or 4G, got 'lots'"),
        (("--key", str(token_file)), "--key needs the --certificate"),
        (("--certificate", str(token_file)), "cannot use the certificate"),
        (("--certificate", str(tmp_path / "absent")), "cannot use the certificate"),
        (("--folder", str(tmp_path / "file")), "cannot use the folder"),
        (("--host", "203.0.113.9", "--insecure"), "cannot listen at 203.0.113.9, port 8765"),
    ):
        folder = () if "--folder" in words else ("--folder", str(tmp_path / "files"))
        done = command(*token, *folder, *words)
        assert done.returncode == 2, done.stderr
        assert reason in done.stderr
        assert "Traceback" not in done.stderr


def test_two_agents_do_not_share_a_folder_or_a_port(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "agent")
    token = ("--token-file", str(agent.token_file))
    done = command(*token, "--folder", str(agent.folder), "--port", "0")
    assert (done.returncode, "another agent uses the folder" in done.stderr) == (2, True)
    done = command(*token, "--folder", str(tmp_path / "other"), "--port", str(agent.port))
    assert (done.returncode, "Address already in use" in done.stderr) == (2, True)
    agent.assert_well()
    agent.stop()


def test_a_token_is_never_printed(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "agent")
    agent.device().fingerprint("onnxruntime", 1)
    arguments = Path(f"/proc/{agent.process.pid}/cmdline").read_text()
    agent.stop()
    assert "--token-file" in arguments
    assert agent.token not in arguments + agent.log()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    found = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=agent", "-addext", "subjectAltName=IP:127.0.0.1",
            "-out", str(found[0]), "-keyout", str(found[1]),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return found


def test_an_agent_with_a_certificate(
    certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine, key = certificate
    agent = AgentProcess(tmp_path / "agent", "--certificate", str(mine), "--key", str(key))
    assert agent.url.startswith("https://")
    model = linear(tmp_path / "model.onnx")
    (output,) = agent.device(certificate=mine).run(model, {"input": X}, **ORT, batch_size=4)
    assert np.shape(output) == (23, 8)
    with pytest.raises(CertificateError, match="is not trusted: self-signed certificate.*name the"):
        agent.device(patience=600).fingerprint("onnxruntime", 1)
    plain = agent.url.replace("https", "http")
    with pytest.raises(MeasurementError, match="if it has a certificate, use https://"):
        RemoteDevice(plain, agent.token, patience=0.5).fingerprint("onnxruntime", 1)
    named = agent.url.replace("127.0.0.1", "localhost")
    with pytest.raises(CertificateError, match=r"is not trusted: .*localhost"):
        RemoteDevice(named, agent.token, certificate=mine).fingerprint("onnxruntime", 1)
    with pytest.raises(CertificateError, match="cannot read the certificate"):
        RemoteDevice(agent.url, agent.token, certificate=key.with_name("absent.pem"))
    assert agent.process.poll() is None
    agent.stop()


def test_tls_to_an_agent_without_a_certificate(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "agent")
    url = agent.url.replace("http", "https")
    with pytest.raises(CertificateError, match=r"does not speak TLS; use http://"):
        RemoteDevice(url, agent.token, patience=600).fingerprint("onnxruntime", 1)
    agent.assert_well()
    agent.stop()


ABSENT = """
import sys
for name in {absent!r}:
    sys.modules[name] = None
import parefront.__main__ as command
import parefront
sys.argv = ["parefront", *{words!r}]
command.main()
"""
SEARCH = ("torch", "torch_pruning", "onnx", "onnxscript", "optuna", "pandas", "plotly", "jinja2",
          "markupsafe", "moocore", "httpx", "psutil", "zstandard")  # fmt: skip


def without(absent: tuple[str, ...], *words: str) -> subprocess.CompletedProcess[str]:
    """The command line where some packages are not installed."""
    program = ABSENT.format(absent=absent, words=words)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("words", [("launch", "study.toml"), ("studies",), ("front", "mine")])
def test_a_search_without_its_packages_says_what_to_install(words: tuple[str, ...]) -> None:
    done = without(SEARCH, *words)
    assert done.returncode == 2, done.stderr
    said = " ".join(done.stderr.split())
    assert re.fullmatch(
        r"error: this needs the package \w+; try: pip install 'parefront\[search\]'", said
    )


def test_an_agent_without_its_packages_says_what_to_install(token_file: Path) -> None:
    done = without(("fastapi", "uvicorn"), "agent", "--token-file", str(token_file))
    assert done.returncode == 2
    assert "pip install 'parefront[agent]'" in done.stderr


def test_the_agent_needs_no_packages_of_a_search(tmp_path: Path) -> None:
    done = without(SEARCH, "agent", "--help")
    assert done.returncode == 0
    assert "--token-file" in done.stdout
    done = without(SEARCH, "agent", "--token-file", str(tmp_path / "absent"))
    assert "there is no token file" in done.stderr


def test_a_name_of_the_library_says_what_to_install_too() -> None:
    program = f"import sys\nfor name in {SEARCH!r}: sys.modules[name] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", program + "import parefront as pf\npf.Bound\npf.Study"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == "pip install 'parefront[search]'"
