"""One logged-in FTP connection: what the store needs of RFC 959, RFC 3659 (SIZE, MLSD) and RFC 4217 (TLS)."""

import ftplib
import functools
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

BLOCK = 1 << 20  # bytes sent at a time
_RECEIVE_BLOCK = 1 << 18  # bytes received at a time; a socket does not hold much more

_LAST_WORDS_TIMEOUT = 2.0  # seconds to wait for the reason after the server has broken off a transfer
# "-rw-r--r--    1 1000     1000         20480 Nov 23 20:48 a name": one blank before the name, the rest belongs to it.
_LIST_LINE = re.compile(r"([-a-z])\S{9,}\s+\d+\s+\S+\s+\S+\s+(\d+)\s+\w{3}\s+\d+\s+[\d:]+ (.*)", re.DOTALL)


class IncompleteError(Exception):
    """A transfer ended without an error, but not all bytes arrived."""


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
            features = self._features()
            self._has_mlsd, self._has_size = "MLST" in features, "SIZE" in features
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

    def publish(self, source: str, target: str, size: int) -> None:
        """Give the file ``source`` the name ``target``, replacing what has it, if ``source`` has ``size`` bytes.

        Raises IncompleteError if it has not.
        """
        answers = self._ask(*([f"SIZE {source}"] if self._has_size else []), f"RNFR {source}")
        if self._has_size:
            _check_size(size, answers[0])
        self._ask(f"RNTO {target}")

    def has_file(self, path: str, size: int) -> bool:
        """Whether ``path`` is a file of ``size`` bytes."""
        directory, name = posixpath.split(path)
        return Entry(name, "file", size) in self.entries(directory)

    def retrieve(self, path: str, target: IO[bytes]) -> None:
        """Download the file ``path`` into ``target``.

        Raises LocalError if writing to ``target`` fails, IncompleteError if fewer bytes arrive than the file has.
        """
        received = 0
        buffer = memoryview(bytearray(_RECEIVE_BLOCK))
        with self._data(f"RETR {path}") as channel:
            while count := channel.recv_into(buffer):
                try:
                    target.write(buffer[:count])
                except OSError as fault:
                    raise LocalError from fault
                received += count
        if self._has_size:
            _check_size(received, *self._ask(f"SIZE {path}"))

    def is_directory(self, path: str) -> bool:
        """Whether ``path`` is a directory that can be entered."""
        try:
            self._ask(f"CWD {path}")
        except ftplib.error_perm:
            return False
        return True

    def entries(self, path: str) -> list[Entry]:
        """What is in the directory ``path``, dotfiles included."""
        # Listing the current directory spares us what servers make of blanks, wildcards and a leading '-' in a name.
        self._ask(f"CWD {path}")
        listing = bytearray()
        with self._data("MLSD" if self._has_mlsd else "LIST -a") as channel:
            while block := channel.recv(_RECEIVE_BLOCK):
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
                self._ask(f"MKD {directory}")
            except ftplib.error_perm:
                if not self.is_directory(directory):  # else someone else was faster
                    raise

    def delete(self, path: str) -> None:
        """Delete the file ``path``."""
        self._ask(f"DELE {path}")

    def delete_tree(self, path: str) -> None:
        """Delete the file or directory ``path``, with all that is in it."""
        try:
            self.delete(path)  # first, for links to directories: servers list them as directories, but must not follow
        except ftplib.error_perm:
            if not self.is_directory(path):
                raise
            for entry in self.entries(path):
                self.delete_tree(posixpath.join(path, entry.name))
            self._ask(f"RMD {path}")

    @property
    def _control(self) -> socket.socket:
        if self._ftp.sock is None:
            raise EOFError
        return self._ftp.sock

    def _ask(self, *commands: str) -> list[str]:
        """The answers to ``commands``, which are sent at once: that saves a round trip for each but the first."""
        self._control.sendall("".join(f"{_wire(command)}\r\n" for command in commands).encode("latin-1"))
        answers, refusals = [], []
        for _ in commands:
            try:
                answers.append(self._ftp.getresp())
            except (ftplib.error_perm, ftplib.error_temp) as refusal:
                refusals.append(refusal)
        if refusals:
            raise refusals[0]
        return answers

    def _features(self) -> set[str]:
        """The names of the server's extensions (RFC 2389)."""
        try:
            lines = self._ask("FEAT")[0].split("\n")[1:-1]
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
        # Else each small file waits for the server's delayed acknowledgement of the handshake, 40 ms.
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.context.wrap_socket(channel, server_hostname=self.host, session=self._session), size

    @functools.cached_property
    def _session(self) -> ssl.SSLSession | None:
        return self.sock.session if isinstance(self.sock, ssl.SSLSocket) else None


def _wire(line: str) -> str:
    """``line`` such that ftplib's Latin-1 makes UTF-8 of it."""
    return line.encode("utf-8", "surrogateescape").decode("latin-1")


def _local(blocks: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from blocks
    except Exception as fault:
        raise LocalError from fault


def _check_size(transferred: int, answer: str) -> None:
    """``answer`` is the server's to SIZE, "213 20480"."""
    size = int(answer[3:])
    if size != transferred:
        raise IncompleteError(f"{transferred} bytes were transferred, but the file there has {size}")


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
