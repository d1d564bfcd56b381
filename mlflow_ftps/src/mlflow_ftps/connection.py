"""One logged-in FTP connection: what the store needs of RFC 959, RFC 3659 (SIZE, MLSD) and RFC 4217 (TLS)."""

# ruff: noqa: S321 -- FTP is what this is about
import ftplib
import functools
import posixpath
import re
import selectors
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from mlflow_ftps.settings import Settings, login, tls_context

BLOCK = 1 << 20  # bytes sent at a time
_RECEIVE_BLOCK = 1 << 18  # bytes received at a time; a socket does not hold much more
_UNCONFIRMED = 1 << 15  # bytes sent before the server has accepted the upload; sockets hold them if it does not

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


class Target(Protocol):
    """Where a download goes. Both methods may raise what they like, in an attempt that then is the last."""

    def begin(self, size: int | None) -> None:
        """Forget what an earlier attempt has written: ``size`` bytes will come, if the server has told."""

    def write(self, data: memoryview) -> object: ...


class Connection:
    """A control connection in binary mode, for one thread at a time. Paths are absolute.

    Every method raises ftplib.error_perm (5xx) or ftplib.error_temp (4xx) with the server's answer, OSError or EOFError
    if the connection breaks, and TimeoutError if the server is silent for longer than the settings allow.
    """

    def __init__(self, settings: Settings) -> None:
        """Connect and log in.

        Also raises ssl.SSLCertVerificationError, and MlflowException if the netrc or CA file is wrong.
        """
        self._settings = settings
        self._buffer = memoryview(bytearray(_RECEIVE_BLOCK))
        self._reserving = False  # whether the server owes an answer to ``reserve``
        self._port: int | None = None  # where it waits for the next data channel, if it does already
        user, password = login(settings)
        # Latin-1 carries bytes unchanged both ways; names are UTF-8 inside it, and a server's odd byte breaks nothing.
        if settings.tls:
            self._ftp: ftplib.FTP = ftplib.FTP_TLS(context=tls_context(settings), encoding="latin-1")
        else:
            self._ftp = ftplib.FTP(encoding="latin-1")
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
        """Whether the server has left this idle connection open, and has given what ``reserve`` has asked for."""
        if self._reserving:
            try:
                self._port = self._passive_port(self._only_answer())
            except ftplib.all_errors:
                return False
            self._reserving = False
        # Had the server closed the connection, there would be something to read.
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            return not selector.select(0)

    def reserve(self) -> None:
        """Have the server open the port of the next transfer, and do not wait for it; ``usable`` must follow.

        This spares the next transfer a round trip.
        """
        if self._port is None:
            self._send(self._passive_command)
            self._reserving = True

    def close(self, *, politely: bool = False) -> None:
        """Close without waiting; ``politely`` takes leave first, so that the server's log shows no broken session."""
        if politely:
            with suppress(*ftplib.all_errors):
                self._control.settimeout(_LAST_WORDS_TIMEOUT)
                if self.usable():
                    self._ftp.sendcmd("QUIT")
        self._ftp.close()

    def store(self, path: str, blocks: Iterable[bytes], *, eagerly: bool) -> int:
        """Upload ``blocks`` as the file ``path`` and return the number of bytes sent.

        ``eagerly`` begins before the server has accepted the upload, which saves a round trip; otherwise nothing of
        ``blocks`` is taken if it refuses. Raises LocalError if ``blocks`` raises: the server then holds a part.
        """
        sent = 0
        with self._data(f"STOR {path}") as transfer:
            if not eagerly:
                transfer.confirm()
            iterator = iter(blocks)
            while True:
                with _local_side():
                    block = next(iterator, b"")
                if not block:
                    break
                if sent + len(block) > _UNCONFIRMED:
                    transfer.confirm()
                transfer.channel.sendall(block)
                sent += len(block)
        return sent

    def publish(self, source: str, target: str, size: int) -> None:
        """Give the file ``source`` the name ``target``, replacing what has it, if ``source`` has ``size`` bytes.

        Raises IncompleteError if it has not.
        """
        _check_size(size, _size(self._ask(*self._if_it_has_size(f"SIZE {source}"), f"RNFR {source}")))
        self._ask(f"RNTO {target}")

    def retrieve(self, path: str, target: Target) -> None:
        """Download the file ``path`` into ``target``.

        Raises LocalError if ``target`` raises, IncompleteError if fewer bytes arrive than the file has.
        """
        received = 0
        with self._data(*self._if_it_has_size(f"SIZE {path}"), f"RETR {path}") as transfer:
            size = _size(transfer.confirm())
            with _local_side():
                target.begin(size)
            while count := transfer.channel.recv_into(self._buffer):
                with _local_side():
                    target.write(self._buffer[:count])
                received += count
        _check_size(received, size)

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
        with self._data("MLSD" if self._has_mlsd else "LIST -a") as transfer:
            transfer.confirm()
            while block := transfer.channel.recv(_RECEIVE_BLOCK):
                listing += block
        lines = listing.decode("utf-8", "surrogateescape").split("\n")
        parse = _parse_mlsd if self._has_mlsd else _parse_list
        return [entry for line in lines if (entry := parse(line.removesuffix("\r")))]

    def find(self, path: str) -> Entry | None:
        """What its parent's listing says of ``path``, even if it may not be read or entered; None if nothing."""
        parent, name = posixpath.split(path)
        entries = self.entries(parent) if self.is_directory(parent) else []
        return next((entry for entry in entries if entry.name == name), None)

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
        self._send(*commands)
        return self._answers(len(commands))

    def _send(self, *commands: str) -> None:
        self._control.sendall("".join(f"{_wire(command)}\r\n" for command in commands).encode("latin-1"))

    def _answers(self, count: int) -> list[str]:
        """The answers to the ``count`` commands sent last."""
        answers, refusals = [], []
        for _ in range(count):
            try:
                answers.append(self._ftp.getresp())
            except (ftplib.error_perm, ftplib.error_temp) as refusal:
                refusals.append(refusal)
        if refusals:
            # Of a transfer that has begun all the same, more answers would follow: that connection is lost.
            begun = any(answer.startswith("1") for answer in answers)
            raise ftplib.error_reply(*refusals[0].args) if begun else refusals[0]
        return answers

    def _if_it_has_size(self, command: str) -> list[str]:
        return [command] if self._has_size else []

    def _features(self) -> set[str]:
        """The names of the server's extensions (RFC 2389)."""
        try:
            lines = self._ask("FEAT")[0].split("\n")[1:-1]
        except ftplib.error_perm:
            return set()
        return {line.split()[0].upper() for line in lines if line.strip()}

    @functools.cached_property
    def _session(self) -> ssl.SSLSession | None:
        return self._control.session if isinstance(self._control, ssl.SSLSocket) else None

    def _only_answer(self) -> str:
        """The next answer. Raises ftplib.error_reply if there is more, which ftplib would keep where nobody sees it."""
        received = b""
        while not received.endswith(b"\n"):
            block = self._control.recv(_RECEIVE_BLOCK)
            if not block:
                raise EOFError
            received += block
        answer = received.decode("latin-1")
        if answer.count("\n") > 1:
            raise ftplib.error_reply(answer)
        return answer

    @property
    def _passive_command(self) -> str:
        return "EPSV" if self._ftp.af == socket.AF_INET6 else "PASV"

    def _passive_port(self, answer: str) -> int:
        """The port that the ``answer`` to ``_passive_command`` tells."""
        if self._ftp.af == socket.AF_INET6:
            return ftplib.parse229(answer, self._control.getpeername())[1]
        return ftplib.parse227(answer)[1]

    def _begin(self, *commands: str) -> "_Transfer":
        """A data channel, and on it what the last of ``commands`` begins."""
        port = self._port or self._passive_port(*self._ask(self._passive_command))
        self._port = None
        # The host that we know, whatever the server says: behind NAT it often is wrong, and it may be a lie.
        channel = socket.create_connection((self._control.getpeername()[0], port), self._settings.connect_timeout)
        try:
            # Else each small file waits for the server's delayed acknowledgement of the TLS handshake, 40 ms.
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._send(*commands)
            transfer = _Transfer(channel, functools.partial(self._answers, len(commands)))
            if isinstance(self._ftp, ftplib.FTP_TLS):
                transfer.confirm()
                # Resumes the control channel's session: that is faster, and vsftpd insists on it.
                context, host = self._ftp.context, self._settings.host
                transfer.channel = context.wrap_socket(channel, server_hostname=host, session=self._session)
        except BaseException:
            channel.close()
            raise
        return transfer

    @contextmanager
    def _data(self, *commands: str) -> Iterator["_Transfer"]:
        """What ``_begin`` begins. On leaving, waits until the server has confirmed the end of the transfer."""
        transfer = self._begin(*commands)
        try:
            with transfer.channel as channel:
                channel.settimeout(self._settings.data_timeout)
                yield transfer
                if isinstance(channel, ssl.SSLSocket):
                    # vsftpd takes a TLS stream that ends without this farewell for a broken one; others just hang up.
                    with suppress(OSError):
                        channel.unwrap()
        except OSError:
            self._control.settimeout(_LAST_WORDS_TIMEOUT)
            transfer.confirm()
            self._ftp.voidresp()  # raises the server's reason, if it has given one
            raise
        finally:
            self._control.settimeout(self._settings.reply_timeout)
        transfer.confirm()
        self._ftp.voidresp()


class _Transfer:
    """A transfer that was asked for: its data channel, and the answers of the server."""

    def __init__(self, channel: socket.socket, answers: Callable[[], list[str]]) -> None:
        self.channel = channel
        self._await = answers
        self._answers: list[str] = []

    def confirm(self) -> list[str]:
        """Wait, once, until the server has begun the transfer. Its answers; raises its refusal."""
        if not self._answers:
            self._answers = self._await()
            if not self._answers[-1].startswith("1"):
                raise ftplib.error_reply(self._answers[-1])
        return self._answers


def _wire(line: str) -> str:
    """``line`` such that ftplib's Latin-1 makes UTF-8 of it. Raises ValueError if it would be more than one line."""
    if any(character in line for character in "\r\n\0"):
        raise ValueError("a name with a line break or NUL in it cannot be sent")
    return line.encode("utf-8", "surrogateescape").decode("latin-1")


@contextmanager
def _local_side() -> Iterator[None]:
    """Tells faults of our own files and streams from those of the server."""
    try:
        yield
    except Exception as fault:
        raise LocalError from fault


def _size(answers: list[str]) -> int | None:
    """The size in bytes that one of ``answers`` tells, "213 20480"."""
    return next((int(answer[3:]) for answer in answers if answer.startswith("213")), None)


def _check_size(transferred: int, size: int | None) -> None:
    """Raise IncompleteError if the server tells another ``size`` than ``transferred``, in bytes."""
    if size not in (None, transferred):
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
