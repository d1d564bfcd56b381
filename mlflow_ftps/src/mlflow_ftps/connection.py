"""One logged-in FTP connection: what the store needs of RFC 959, RFC 3659 (SIZE, MLSD) and RFC 4217 (TLS)."""

import ftplib
import posixpath
import re
import selectors
import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from mlflow_ftps.settings import Settings, login

BLOCK = 1 << 20  # bytes moved at a time

_LAST_WORDS_TIMEOUT = 2.0  # seconds to wait for the reason after the server has broken off a transfer
_NOT_IMPLEMENTED = ("500", "502", "504")
# "-rw-r--r--    1 1000     1000         20480 Nov 23 20:48 a name": one blank before the name, the rest belongs to it.
_LIST_LINE = re.compile(r"([-a-z])\S{9,}\s+\d+\s+\S+\s+\S+\s+(\d+)\s+\w{3}\s+\d+\s+[\d:]+ (.*)", re.DOTALL)


class LocalError(Exception):
    """This side's file or stream failed in mid-transfer; ``__cause__`` is its error. The server is not at fault."""


@dataclass(frozen=True)
class Entry:
    """One name in a directory. ``kind`` is "file", "dir" or "link"; ``size`` is in bytes, None if not told."""

    name: str
    kind: str
    size: int | None


class Connection:
    """A control connection in binary mode, for one thread at a time. Paths are absolute.

    Every method raises ftplib.error_perm (5xx) or ftplib.error_temp (4xx) with the server's answer, OSError or EOFError
    if the connection breaks, and TimeoutError if the server is silent for longer than the settings allow.
    """

    def __init__(self, settings: Settings) -> None:
        """Connect and log in. Also raises ssl.SSLCertVerificationError, and MlflowException if there is no login."""
        self._settings = settings
        user, password = login(settings)
        # Latin-1 carries bytes unchanged both ways; names are UTF-8 inside it, and a server's odd byte breaks nothing.
        if settings.tls:
            context = ssl.create_default_context(cafile=settings.ca_file or None)
            self._ftp: ftplib.FTP = _ReusingFtpTls(context=context, encoding="latin-1")
        else:
            self._ftp = ftplib.FTP(encoding="latin-1")  # noqa: S321 -- the scheme ftp:// asks for it
        try:
            self._ftp.connect(settings.host, settings.port, timeout=settings.connect_timeout)
            self._ftp.login(_wire(user), _wire(password))
            if settings.tls:
                self._ftp.voidcmd("PBSZ 0")
                self._ftp.voidcmd("PROT P")
            self._ftp.voidcmd("TYPE I")
            self._has_mlsd = "MLST" in self._features()
        except BaseException:
            self._ftp.close()
            raise
        self._control.settimeout(settings.reply_timeout)

    def usable(self) -> bool:
        """Whether the server has left this idle connection open: had it closed it, there would be something to read."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            return not selector.select(0)

    def close(self, *, politely: bool = False) -> None:
        """Close without waiting; ``politely`` takes leave first, so that the server's log shows no broken session."""
        if politely:
            with suppress(OSError, EOFError, ftplib.Error):
                self._control.settimeout(_LAST_WORDS_TIMEOUT)
                self._ftp.sendcmd("QUIT")
        self._ftp.close()

    def store(self, path: str, blocks: Iterable[bytes]) -> int:
        """Upload ``blocks`` as the file ``path`` and return the number of bytes sent.

        Raises LocalError if ``blocks`` raises: the server then holds a part of the file.
        """
        sent = 0
        with self._data(f"STOR {path}") as channel:
            for block in _local(blocks):
                channel.sendall(block)
                sent += len(block)
        return sent

    def retrieve(self, path: str, target: IO[bytes]) -> int:
        """Download the file ``path`` into ``target`` and return the number of bytes received.

        Raises LocalError if writing to ``target`` fails.
        """
        received = 0
        buffer = memoryview(bytearray(BLOCK))
        with self._data(f"RETR {path}") as channel:
            while count := channel.recv_into(buffer):
                try:
                    target.write(buffer[:count])
                except OSError as fault:
                    raise LocalError from fault
                received += count
        return received

    def size(self, path: str) -> int | None:
        """Size in bytes of the file ``path``, None if the server cannot tell sizes."""
        try:
            answer = self._command(f"SIZE {path}")
        except ftplib.error_perm as refusal:
            if str(refusal)[:3] in _NOT_IMPLEMENTED:
                return None
            raise
        return int(answer[3:])

    def is_directory(self, path: str) -> bool:
        """Whether ``path`` is a directory that can be entered."""
        try:
            self._command(f"CWD {path}")
        except ftplib.error_perm:
            return False
        return True

    def entries(self, path: str) -> list[Entry]:
        """What is in the directory ``path``, dotfiles included."""
        # Listing the current directory spares us what servers make of blanks, wildcards and a leading '-' in a name.
        self._command(f"CWD {path}")
        listing = bytearray()
        with self._data("MLSD" if self._has_mlsd else "LIST -a") as channel:
            while block := channel.recv(BLOCK):
                listing += block
        lines = listing.decode("utf-8", "surrogateescape").split("\n")
        parse = _parse_mlsd if self._has_mlsd else _parse_list
        return [entry for line in lines if (entry := parse(line.removesuffix("\r")))]

    def exists(self, path: str) -> bool:
        """Whether ``path`` is in its parent's listing, even if it can be neither read nor entered."""
        parent, name = posixpath.split(path)
        return self.is_directory(parent) and any(entry.name == name for entry in self.entries(parent))

    def make_directories(self, path: str) -> None:
        """Make the directory ``path`` and its parents, if they are missing."""
        missing = []
        while not self.is_directory(path) and path != "/":
            missing.append(path)
            path = posixpath.dirname(path)
        for directory in reversed(missing):
            try:
                self._command(f"MKD {directory}")
            except ftplib.error_perm:
                if not self.is_directory(directory):  # else someone else was faster
                    raise

    def rename(self, source: str, target: str) -> None:
        """Give the file ``source`` the name ``target``, replacing what has it."""
        self._command(f"RNFR {source}")
        self._command(f"RNTO {target}")

    def delete(self, path: str) -> None:
        """Delete the file ``path``."""
        self._command(f"DELE {path}")

    def delete_tree(self, path: str) -> None:
        """Delete the file or directory ``path``, with all that is in it."""
        try:
            self.delete(path)  # first, for links to directories: servers list them as directories, but must not follow
        except ftplib.error_perm:
            if not self.is_directory(path):
                raise
            for entry in self.entries(path):
                self.delete_tree(posixpath.join(path, entry.name))
            self._command(f"RMD {path}")

    @property
    def _control(self) -> socket.socket:
        if self._ftp.sock is None:
            raise EOFError
        return self._ftp.sock

    def _command(self, line: str) -> str:
        return self._ftp.sendcmd(_wire(line))

    def _features(self) -> set[str]:
        """The names of the server's extensions (RFC 2389)."""
        try:
            lines = self._command("FEAT").split("\n")[1:-1]
        except ftplib.error_perm:
            return set()
        return {line.split()[0].upper() for line in lines if line.strip()}

    @contextmanager
    def _data(self, command: str) -> Iterator[socket.socket]:
        """The data channel of ``command``. On leaving, waits until the server has confirmed the transfer."""
        channel = self._ftp.transfercmd(_wire(command))
        try:
            with channel:
                channel.settimeout(self._settings.data_timeout)
                yield channel
                if isinstance(channel, ssl.SSLSocket):
                    # vsftpd takes a TLS stream that ends without this farewell for a broken one; others just hang up.
                    with suppress(OSError):
                        channel.unwrap()
        except OSError:
            self._control.settimeout(_LAST_WORDS_TIMEOUT)
            self._ftp.voidresp()  # raises the server's reason, if it has given one
            raise
        finally:
            self._control.settimeout(self._settings.reply_timeout)
        self._ftp.voidresp()


class _ReusingFtpTls(ftplib.FTP_TLS):
    """TLS on both channels. The data channel resumes the control channel's session, as vsftpd insists."""

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        channel, size = ftplib.FTP.ntransfercmd(self, cmd, rest)  # noqa: S321 -- made secure below
        session = self.sock.session if isinstance(self.sock, ssl.SSLSocket) else None
        return self.context.wrap_socket(channel, server_hostname=self.host, session=session), size


def _wire(line: str) -> str:
    """``line`` such that ftplib's Latin-1 makes UTF-8 of it."""
    return line.encode("utf-8", "surrogateescape").decode("latin-1")


def _local(blocks: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from blocks
    except Exception as fault:
        raise LocalError from fault


def _parse_mlsd(line: str) -> Entry | None:
    """One line of MLSD, "type=file;size=20480;modify=20261123204800; a name"; None for the directory and its parent."""
    facts_text, separator, name = line.partition(" ")
    facts = dict(fact.lower().split("=", 1) for fact in facts_text.split(";") if "=" in fact)
    kind = facts.get("type", "")
    if not separator or kind in ("cdir", "pdir"):
        return None
    size = facts.get("size", "")
    return Entry(name, kind if kind in ("file", "dir") else "link", int(size) if size.isdigit() else None)


def _parse_list(line: str) -> Entry | None:
    """One line of LIST in the form of ``ls -l``; None for the directory, its parent and what is no entry."""
    match = _LIST_LINE.fullmatch(line)
    if match is None or match[3] in (".", ".."):
        return None
    letter, size, name = match.groups()
    if letter == "l":
        return Entry(name.partition(" -> ")[0], "link", None)
    return Entry(name, "dir", None) if letter == "d" else Entry(name, "file", int(size))
