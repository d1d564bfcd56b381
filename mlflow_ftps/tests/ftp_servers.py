"""The three FTP servers that the store is tested on, each as a process of its own on a free port of loopback."""

import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

USER = "ftp"  # the one name that vsftpd takes without an account on the machine
PASSWORD = "secret-of-the-tests"
_PASSWORD_HASH = (
    "$6$7Xo2T0f/HV17Xkhj$J/zUulzLOCV99QkdRTKi9OAePeknilOVzNnDM1YuztQm6jmHX5WNRCNAkpaEaAsSw/ZGTDhFC3JuX5pEwaj6.0"
)


@dataclass(frozen=True)
class Certificate:
    """Paths of PEM files: the authority's certificate, and certificate and key of the server."""

    authority: Path
    certificate: Path
    key: Path


def free_port(host: str = "127.0.0.1") -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as free:
        return int(free.getsockname()[1])


def process_tree(pid: int) -> list[int]:
    """The process and its descendants, as far as they are running."""
    pids = [pid]
    for process in pids:
        with suppress(FileNotFoundError):
            pids += map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
    return pids


class FtpServer(ABC):
    """A server that keeps its files under ``directory``. ``limit``: connections it accepts at once, 0 for no limit."""

    binary: str
    host = "127.0.0.1"

    def __init__(self, base: Path, certificate: Certificate | None, *, limit: int = 0) -> None:
        self.base = base
        self.certificate = certificate
        self.limit = limit
        self.directory = base / "data" / "store"
        self.directory.mkdir(parents=True)
        self.directory.parent.chmod(0o755)
        self.port = free_port(self.host)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """The artifact URI of ``directory``."""
        scheme = "ftps" if self.certificate else "ftp"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{USER}@{host}:{self.port}{self.path}"

    @property
    def path(self) -> str:
        """``directory`` as the server's clients see it."""
        return "/store"

    @classmethod
    def is_installed(cls) -> bool:
        return cls._executable() is not None

    @classmethod
    def _executable(cls) -> str | None:
        return shutil.which(cls.binary, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")

    @abstractmethod
    def _command(self) -> list[str]:
        """Write the configuration, and return the command that runs the server in the foreground."""

    def start(self) -> None:
        """Start, or start again, and wait until it answers."""
        with (self.base / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)
        give_up = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{self.binary} did not start:\n{(self.base / 'log').read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End the server and all its sessions at once, without a farewell."""
        if self._process:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let the server and its sessions stall: connections stay open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def passive_ports(self) -> int:
        """On how many ports the server waits for data channels."""
        listening = "0A"
        table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = {f"socket:[{columns[9]}]" for columns in table if columns[3] == listening}
        open_files = set()
        for pid in self._processes():
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):  # closed meanwhile
                    open_files.add(str(descriptor.readlink()))
        return len(sockets & open_files) - 1  # one is for control connections

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes():
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def _processes(self) -> list[int]:
        """The server and its sessions, which may be in process groups of their own."""
        return process_tree(self._process.pid) if self._process and self._process.poll() is None else []

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                connection.settimeout(5)
                answered = connection.recv(3) == b"220"
                connection.sendall(b"QUIT\r\n")
                while connection.recv(1024):
                    pass
                return answered
        except OSError:
            return False


class Pyftpdlib(FtpServer):
    binary = "pyftpdlib"

    @classmethod
    def is_installed(cls) -> bool:
        return True

    def _command(self) -> list[str]:
        script = Path(__file__).with_name("pyftpdlib_server.py")
        pem = self.base / "server.pem"
        if self.certificate:
            pem.write_text(self.certificate.certificate.read_text() + self.certificate.key.read_text())
        return [
            *(sys.executable, str(script), self.host, str(self.port), USER, PASSWORD, str(self.directory.parent)),
            *(str(self.limit or 512), str(pem) if self.certificate else ""),
        ]


class Pyftpdlib6(Pyftpdlib):
    """Speaks IPv6."""

    host = "::1"


class FaultyPyftpdlib(Pyftpdlib):
    """With a fault, one of pyftpdlib_server.HANDLERS, and without TLS."""

    def __init__(self, base: Path, fault: str) -> None:
        super().__init__(base, None)
        self._fault = fault

    def _command(self) -> list[str]:
        return [*super()._command(), self._fault]


class Vsftpd(FtpServer):
    """Without accounts of the machine: by its anonymous user, who needs a password from a list here."""

    binary = "vsftpd"

    @property
    def path(self) -> str:
        return str(self.directory)

    def _command(self) -> list[str]:
        passwords = self.base / "passwords"
        passwords.write_text(PASSWORD + "\n")
        settings = {
            "listen": "YES",
            "listen_address": "127.0.0.1",
            "listen_port": self.port,
            "background": "NO",
            "run_as_launching_user": "YES",
            "seccomp_sandbox": "NO",
            "anonymous_enable": "YES",
            "local_enable": "NO",
            "anon_root": "/",
            "ftp_username": pwd.getpwuid(os.getuid()).pw_name,
            "secure_chroot_dir": self.base,
            "secure_email_list_enable": "YES",
            "email_password_file": passwords,
            "write_enable": "YES",
            "anon_upload_enable": "YES",
            "anon_mkdir_write_enable": "YES",
            "anon_other_write_enable": "YES",
            "anon_world_readable_only": "NO",
            "anon_umask": "022",
            "connect_from_port_20": "NO",
            "max_clients": self.limit,
            "xferlog_enable": "NO",
            "dual_log_enable": "NO",
            "vsftpd_log_file": self.base / "vsftpd.log",
            "delay_failed_login": 0,
        }
        if self.certificate:
            settings |= {
                "ssl_enable": "YES",
                "allow_anon_ssl": "YES",
                "force_anon_logins_ssl": "YES",
                "force_anon_data_ssl": "YES",
                "rsa_cert_file": self.certificate.certificate,
                "rsa_private_key_file": self.certificate.key,
            }
        configuration = self.base / "vsftpd.conf"
        configuration.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        return [str(self._executable()), str(configuration)]


class Proftpd(FtpServer):
    binary = "proftpd"

    def _command(self) -> list[str]:
        executable = Path(str(self._executable()))
        users = self.base / "users"
        users.write_text(f"{USER}:{_PASSWORD_HASH}:{os.getuid()}:{os.getgid()}::{self.directory.parent}:/bin/sh\n")
        users.chmod(0o600)
        lines = [
            "ServerType standalone",
            "DefaultAddress 127.0.0.1",
            f"Port {self.port}",
            "SocketBindTight on",
            "UseIPv6 off",
            "UseReverseDNS off",
            f"User {pwd.getpwuid(os.getuid()).pw_name}",
            f"Group {grp.getgrgid(os.getgid()).gr_name}",
            f"ModulePath {executable.parent.parent / 'lib' / 'proftpd'}",
            f"PidFile {self.base / 'pid'}",
            f"ScoreboardFile {self.base / 'scoreboard'}",
            f"SystemLog {self.base / 'proftpd.log'}",
            "TransferLog none",
            "WtmpLog off",
            "AuthOrder mod_auth_file.c",
            f"AuthUserFile {users}",
            "RequireValidShell off",
            "RootLogin on",
            f"DefaultRoot {self.directory.parent}",
            "AllowOverwrite on",
            "MaxInstances none",
            *([f"MaxClients {self.limit}"] if self.limit else []),
        ]
        if self.certificate:
            lines += [
                "LoadModule mod_tls.c",
                "TLSEngine on",
                "TLSRequired on",
                "TLSVerifyClient off",
                f"TLSRSACertificateFile {self.certificate.certificate}",
                f"TLSRSACertificateKeyFile {self.certificate.key}",
            ]
        configuration = self.base / "proftpd.conf"
        configuration.write_text("\n".join(lines) + "\n")
        configuration.chmod(0o600)
        return [str(executable), "--nodaemon", "--config", str(configuration)]


SERVERS: dict[str, type[FtpServer]] = {"pyftpdlib": Pyftpdlib, "vsftpd": Vsftpd, "proftpd": Proftpd}
