"""Meeting of the ranks: rank 0 listens at a known place, the others call there, and each learns where all are.

Whoever connects proves first that it knows the job's token, and is shown the same (HMAC of both sides' random bytes): a process
of another job, or of somebody who only knows the port, is sent away. What follows is bytes with their length before them; no
object is ever unpickled. Nothing is encrypted: the network must be trusted to carry what it is given.
"""
import errno
import hashlib
import hmac
import secrets
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

from zfcore.check import Expected

JOIN = 60                        # seconds for all ranks to meet
ANSWER = 5                       # seconds for an answer of one that is connected
NONCE, HEAD = 32, struct.Struct(">I")
MOST = 2**20                     # bytes of a message here; the table of 10,000 ranks fits


@dataclass(frozen=True)
class Place:
    """Place of a process among the ranks, as what started it says: its rank, of how many, `local`: the how-manieth on its
    machine, where rank 0 listens, and the job's token."""
    rank: int
    size: int
    local: int
    host: str
    port: int
    token: bytes


@dataclass(frozen=True)
class Links:
    """Links of a rank to the others. `control` {rank: socket} holds those of the watch: of rank 0 to all, of the others to rank
    0; `data` those for rows and arrays. `names` and `hosts` are those of all ranks, in words."""
    rank: int
    names: list[str]
    hosts: list[str]
    control: dict[int, socket.socket]
    data: dict[int, socket.socket]


def listen(host: str, port: int = 0) -> socket.socket:
    """A socket that listens at the port, 0: at any that is free; from this machine alone if `host` names it by its loopback
    address. Raises Expected."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        here = address[0] in ("127.0.0.1", "::1")
        return socket.create_server((address[0] if here else "", port), family=family, backlog=1024)
    except socket.gaierror as error:
        raise Expected("MASTER_ADDR", "a machine's name or address", f"{host!r}: {error.strerror}") from None
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise Expected(f"port {port}", "a free one, for rank 0 to listen at", "one in use",
                       "end what an earlier job has left there, see that one process alone has RANK 0, or choose another with "
                       "MASTER_PORT") from None


def meet(place: Place, name: str, host: str, kind: str, listener: socket.socket | None = None, all_pairs: bool = True) -> Links:
    """Join the ranks, of which this one is called `name`, runs on the machine `host` and has a device of the `kind` "CPU" or
    "GPU", and return the Links to them; without `all_pairs` data goes to and from rank 0 alone. Rank 0 may hand over the socket
    that it listens with. Raises Expected where they do not all come within JOIN seconds, two say they were the same, or one has
    a device of another kind than rank 0: these neither exchange in the same way nor compute the same bits."""
    until = time.monotonic() + JOIN
    with listener or listen(place.host, place.port if place.rank == 0 else 0) as listener:
        mine = f"{name}\n{host}\n\n{listener.getsockname()[1]}\n{kind}"
        links = _await_all(place, mine, listener, until) if place.rank == 0 else _call_first(place, mine, until)
        if all_pairs and place.rank:
            _call_each_other(place, links, listener, until)
    for link in (*links.control.values(), *links.data.values()):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Links(place.rank, [about[0] for about in links.about], [about[1] for about in links.about], links.control,
                 links.data)


@dataclass
class _Joined:
    """`about` holds of each rank [name, host, address, port, kind]."""
    about: list[list[str]]
    control: dict[int, socket.socket]
    data: dict[int, socket.socket]


# ---------------------------------------------------------------------------------------------------------------- rank 0
def _await_all(place, mine, listener, until):
    joined = _Joined([[]]*place.size, {}, {})
    joined.about[0], strangers = mine.split("\n"), False
    try:
        while min(len(joined.control), len(joined.data)) < place.size - 1:
            if (link := _accepted(listener, until)) is None:
                break
            if not _welcome(link, place.token):
                strangers = True               # how many is not known: each calls again and again
                continue
            try:
                _enter(place, joined, link)
            except (OSError, EOFError, KeyError, IndexError):         # it has gone again, or speaks another language
                link.close()
            except Expected as refused:
                _refuse(link, refused)
                raise
        missing = [str(r) for r in range(1, place.size) if r not in joined.data or r not in joined.control]
        if missing:
            raise Expected("ranks", f"all {place.size} within {JOIN} s", f"no rank {', '.join(missing)}",
                           "one that called had another token; give all one ZFCORE_TOKEN" if strangers else
                           "see that they were started, each with a RANK of its own, and reach port "
                           f"{listener.getsockname()[1]} of this machine")
        _check_kinds(joined.about)             # when all are there to hear it
    except Expected as refused:
        for link in joined.control.values():
            _refuse(link, refused)
        raise
    for link in joined.control.values():
        _send(link, "\n".join(["met", *("\t".join(about) for about in joined.about)]))
    return joined


def _refuse(link, sentence):
    with suppress(OSError):
        _send(link, f"refused\n{sentence}")


def _check_kinds(about):
    """Raise Expected where one has a device of another kind than rank 0."""
    first, *_, wanted = about[0]
    for name, *_, kind in about:
        if kind != wanted:
            raise Expected(name, f"a {wanted}, as {first} has", f"a {kind}",
                           "see that each rank finds a GPU that works, or let all take --device cpu")


def _enter(place, joined, link):
    """Enter a connection by what it says of itself: rank, size, which link, name, host, address (empty), port, kind."""
    rank, size, which, *about = _receive(link).split("\n")
    rank = int(rank)
    if int(size) != place.size:
        raise Expected(about[0], f"one of {place.size} ranks, as rank 0 knows them", f"one of {size}",
                       "start all with the same WORLD_SIZE")
    of = {"control": joined.control, "data": joined.data}[which]
    if rank not in range(1, place.size):
        raise Expected(about[0], f"a rank from 1 to {place.size - 1}, beside rank 0", rank)
    if rank in of:
        raise Expected(f"rank {rank}", "one process", f"two, on {joined.about[rank][1]} and {about[1]}",
                       "give each a RANK of its own")
    address = link.getpeername()[0]
    joined.about[rank] = [about[0], about[1], "" if address in ("127.0.0.1", "::1") else address, about[3], about[4]]
    of[rank] = link


def _accepted(listener, until):
    """The next connection, None after `until`."""
    with suppress(TimeoutError):
        if (left := until - time.monotonic()) > 0:
            listener.settimeout(left)
            link, _ = listener.accept()
            link.settimeout(ANSWER)
            return link
    return None


def _welcome(link, token):
    """Return whether the one that has connected knows the token, after it was shown that this one does."""
    try:
        asked = secrets.token_bytes(NONCE)
        link.sendall(asked)
        answer = _exactly(link, 2*NONCE)
        both = asked + answer[:NONCE]
        if hmac.compare_digest(answer[NONCE:], _proof(token, b"calls", both)):
            link.sendall(_proof(token, b"listens", both))
            return True
    except (OSError, EOFError):
        pass
    link.close()
    return False


# ------------------------------------------------------------------------------------------------------------- the others
def _call_first(place, mine, until):
    """Join rank 0, which may be a while in coming."""
    links, is_unknown = {}, False
    while len(links) < 2:
        which = ("control", "data")[len(links)]
        try:
            links[which] = _call(place.host, place.port, place.token, until)
            _send(links[which], f"{place.rank}\n{place.size}\n{which}\n{mine}")
        except (OSError, EOFError) as error:
            if which == "data":                            # why rank 0 has closed comes by the other one
                break
            links.pop(which, None)
            is_unknown |= isinstance(error, EOFError)      # one with another token hangs up, and then perhaps goes
            if time.monotonic() > until:
                got, advice = getattr(error, "strerror", None) or "no answer", "that its machine lets others reach this port"
                if is_unknown:
                    got, advice = "one that does not know its token", "that ZFCORE_TOKEN is the same for all"
                raise Expected(f"rank {place.rank}", f"rank 0 at {place.host}, port {place.port}, within {JOIN} s", got,
                               f"see that it was started, and {advice}") from None
            time.sleep(0.1)
    links["control"].settimeout(max(until - time.monotonic(), 0) + ANSWER)
    try:
        verdict, *rows = _receive(links["control"]).split("\n")
    except (OSError, EOFError):
        raise Expected(f"rank {place.rank}", "rank 0 to wait for all", "one that has gone") from None
    if verdict != "met":
        raise Expected(f"rank {place.rank}", "to be let in by rank 0", "\n".join(rows))
    return _Joined([row.split("\t") for row in rows], {0: links["control"]}, {0: links["data"]})


def _call_each_other(place, joined, listener, until):
    """Connect to the ranks below this one, and let those above connect."""
    for rank in range(1, place.rank):
        name, _, address, port, _ = joined.about[rank]
        try:
            joined.data[rank] = _call(address or place.host, int(port), place.token, until)
            _send(joined.data[rank], str(place.rank))
        except (OSError, EOFError):
            raise Expected(joined.about[place.rank][0], f"a way to {name} at {address or place.host}, port {port}", "none",
                           "see that the machines let each other's processes reach all ports") from None
    while len(joined.data) < place.size - 1:
        if (link := _accepted(listener, until)) is None:
            missing = [joined.about[r][0] for r in range(place.size) if r != place.rank and r not in joined.data]
            raise Expected(joined.about[place.rank][0], f"all ranks within {JOIN} s", f"nothing from {', '.join(missing)}")
        if _welcome(link, place.token):
            with suppress(OSError, EOFError):
                joined.data[int(_receive(link))] = link


def _call(host, port, token, until):
    """A connection to one that knows the token. Raises OSError, EOFError; Expected where it is somebody else who listens
    there."""
    link = socket.create_connection((host, port), timeout=max(min(ANSWER, until - time.monotonic()), 0.1))
    try:
        asked, mine = _exactly(link, NONCE), secrets.token_bytes(NONCE)
        link.sendall(mine + _proof(token, b"calls", asked + mine))
        if not hmac.compare_digest(_exactly(link, NONCE), _proof(token, b"listens", asked + mine)):
            raise EOFError
        link.settimeout(ANSWER)
        return link
    except BaseException:
        link.close()
        raise


# -------------------------------------------------------------------------------------------------------------- messages
def _proof(token, who, both):
    return hmac.digest(token, who + both, hashlib.sha256)


def _exactly(link, size):
    """`size` bytes. Raises EOFError where the other end has closed before."""
    found = b""
    while len(found) < size:
        if not (more := link.recv(size - len(found))):
            raise EOFError
        found += more
    return found


def _send(link, text):
    link.sendall(HEAD.pack(len(raw := text.encode())) + raw)


def _receive(link):
    (size,) = HEAD.unpack(_exactly(link, HEAD.size))
    if size > MOST:
        raise OSError("a message that is too long")
    return _exactly(link, size).decode()
