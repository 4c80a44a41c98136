"""The server of an atlas: its files, and what needs the network: a picture of one's own, any unit of any layer, by any rule.

    GET  /...                                                           the files of the atlas
    GET  /api                                                           what is served: layers, rules, classes
    POST /api/look          a picture's file                            its classes and strongest units, and the id it has now
    POST /api/occlusion     ?id=ID[&stride=PIXELS]                      its occlusion, by default with `look.quick_stride`
    POST /api/project       ?id=ID&layer=conv5&unit=31&rule=deconvnet   one unit projected back to it

Answers of /api are JSON; of what cannot be done {"error": "a sentence"} with a status of 400 or more. It listens at 127.0.0.1
alone. At a machine far away it is reached through `ssh -L 8000:127.0.0.1:8000 HOST`, and then at the same address here.

What runs in the browser is zfcore's own, not the folder's: of that come pictures, texts, and data that are looked at before.

Other pages that are open in the browser can send requests to 127.0.0.1 as well. So a request must name this machine as the one
it is for, which a foreign name that was made to point here does not; a POST must come from these pages themselves; and no other
page may load files of the atlas as scripts or pictures.
"""
import errno
import hashlib
import json
import os
import re
import shutil
import threading
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from zfcore import check
from zfcore.analysis.occlusion import check_square
from zfcore.atlas import PAGE
from zfcore.atlas.look import encoded, encoded_occlusion, look, occluded, projected, quick_stride, sheet
from zfcore.atlas.sheets import Folder
from zfcore.data.transforms import CorruptImage, decode, square
from zfcore.deconvnet import DECONVNET, GRADIENT, GUIDED
from zfcore.files import inside, opener
from zfcore.hints import FilePath
from zfcore.terminal import printable, refusal, say, warn
from zfcore.trained import Trained

HOST = "127.0.0.1"
RULES = {"deconvnet": DECONVNET, "gradient": GRADIENT, "guided": GUIDED}
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".json": "application/json", ".txt": "text/plain; charset=utf-8", ".md": "text/plain; charset=utf-8",
         ".webp": "image/webp", ".png": "image/png", ".svg": "image/svg+xml"}                        # no other file is served
ALWAYS = {"Connection": "close", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin",
          "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'"}
PROGRAMS = {".html", ".js", ".css", ".svg"}
OURS = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?", re.I)       # any port: `ssh -L` may have another at its end
MOST_BODY = 2**26                 # bytes of a picture's file
MOST_DRAINED = 2**28              # bytes of a refused one that are taken, so that the browser hears why
PATIENCE = 30                     # seconds that a connection may be silent
KEPT = 16                         # pictures


class Refusal(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        self.status, self.sentence = status, sentence
        super().__init__(status, sentence)


# ------------------------------------------------------------------------------------------------------------ the network
class Desk:
    """A network that looks at one picture at a time, and the pictures it was shown last."""

    def __init__(self, model: Trained, layers: Sequence[str]) -> None:
        self.model, self.layers = model, list(layers)
        self.pictures = OrderedDict()                      # {id: uint8 (s,s,3)}, the longest unused first
        self.at_work = threading.Lock()

    def about(self):
        """Tell what is served."""
        return {"serves": True, "layers": self.layers, "rules": list(RULES), "classes": list(self.model.classes)}

    def look(self, query, body):
        """The picture of a file, brought to the model's size as those it was trained on, and what the network sees in it."""
        model = self.model
        opened = decode("the picture", body, model.size)
        picture = square(opened, model.size, model.crop, upscale=True)
        notes = [f"{opened.width}x{opened.height} pixels, enlarged for the network, which sees {model.crop}x{model.crop}"]
        number = hashlib.sha256(picture.tobytes()).hexdigest()[:16]
        found = encoded(look(model, picture, self.layers, hide=False), "", -1, None, data_address)
        self.pictures[number] = picture
        self.pictures.move_to_end(number)
        while len(self.pictures) > KEPT:
            self.pictures.popitem(last=False)
        return {"id": number, **found, "notes": found["notes"] + notes*(min(opened.size) < model.crop)}

    def occlusion(self, query, body):
        """The occlusion of a kept picture."""
        picture, stride = self.kept(query), quick_stride(self.model)
        finest = check_square(self.model.network).stride                                    # as in the paper
        if "stride" in query:
            stride = whole(query, "stride")
            if not finest <= stride <= self.model.crop:
                raise check.Expected("stride", f"{finest} to {self.model.crop} pixels", stride)
        note = f"The square moves by {stride} pixels instead of {finest}, so that the answer comes within seconds"
        return {**encoded_occlusion(occluded(self.model, picture, stride=stride)[0], data_address, ""),
                "finest": finest, "notes": [note]*(stride > finest)}

    def project(self, query, body):
        """One unit projected back to a kept picture."""
        picture, rule = self.kept(query), only(query, "rule")
        check.one_of("rule", rule, RULES)
        found = projected(self.model, picture, only(query, "layer"), whole(query, "unit"), RULES[rule])
        return {"value": float(str(found.values[0])), "box": found.boxes[0].tolist(),
                "image": data_address(sheet(found.projections))}

    def kept(self, query):
        """The picture of the id that is asked for."""
        if (number := only(query, "id")) not in self.pictures:
            raise Refusal(HTTPStatus.NOT_FOUND, f"This picture is not kept, only the last {KEPT} are: show it once again")
        self.pictures.move_to_end(number)
        return self.pictures[number]


def data_address(file: bytes, name: str = "") -> str:
    """A WebP file as a data: address."""
    return "data:image/webp;base64," + b64encode(file).decode("ascii")


def only(query, name):
    """The one value that a query has for a name."""
    values = query.get(name, [])
    if len(values) != 1:
        raise check.Expected(name, "one value", f"{len(values)}")
    return values[0]


def whole(query, name):
    """The same as a number."""
    if not re.fullmatch("[0-9]{1,9}", text := only(query, name)):
        raise check.Expected(name, "a whole number", repr(text[:40]))
    return int(text)


# ----------------------------------------------------------------------------------------------------------------- requests
class Request(BaseHTTPRequestHandler):
    """A connection of a browser; one request each."""
    server: "Server"
    protocol_version, default_request_version, timeout = "HTTP/1.1", "HTTP/1.0", PATIENCE

    def do_GET(self) -> None:
        self.answer(self.get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.answer(self.post)

    def answer(self, work):
        """Answer with what `work` writes, or with the sentence that tells why there is nothing. Who has gone hears neither."""
        self.close_connection = True                       # so what is left of a body is never taken for a request
        with suppress(ConnectionError, TimeoutError):
            try:
                work()
            except (ConnectionError, TimeoutError):
                raise
            except Refusal as found:
                self.refuse(found.status, found.sentence)
            except (check.Expected, CorruptImage) as sentence:
                self.refuse(HTTPStatus.BAD_REQUEST, str(sentence))
            except Exception as error:
                sentence = refusal(error) if check.of_the_system(error) else f"the server failed, {type(error).__name__}"
                warn(f"error: {printable(self.path[:80])}: {sentence}: {printable(error)}")
                self.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, sentence)

    def get(self):
        """Send a file of the atlas, or tell what is served."""
        self.check_sender()
        path = self.address().path
        if path == "/api":
            return self.send_json(HTTPStatus.OK, self.server.desk.about())
        if path.startswith("/api/"):
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "This is asked for by POST")
        self.send_file(file_of(self.server.folder, path))

    def post(self):
        """Send what the network says."""
        self.check_sender()
        address, desk = self.address(), self.server.desk
        work = {"/api/look": desk.look, "/api/occlusion": desk.occlusion, "/api/project": desk.project}.get(address.path)
        if work is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "There is no such thing to ask for")
        query = self.query(address)
        body = self.body()
        with desk.at_work:
            found = work(query, body)
        self.send_json(HTTPStatus.OK, found)

    # ------------------------------------------------------------------------------------------------ what is asked for
    def check_sender(self):
        """Refuse what is for another machine, or sent by another page."""
        host, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if len(host) != 1 or not OURS.fullmatch(host[0].strip()):
            raise Refusal(HTTPStatus.FORBIDDEN, f"This server answers at {HOST} and localhost only")
        if self.command == "POST" and any(origin.lower() != f"http://{host[0].strip().lower()}" for origin in origins):
            raise Refusal(HTTPStatus.FORBIDDEN, "This server answers its own pages only")

    def address(self):
        """The parts of the address that is asked for."""
        try:
            return urlsplit(self.path)
        except ValueError:
            raise Refusal(HTTPStatus.BAD_REQUEST, "This is no address") from None

    def query(self, address):
        """{name: values} behind the question mark."""
        try:
            return parse_qs(address.query, keep_blank_values=True, errors="strict", max_num_fields=8)
        except ValueError:
            raise Refusal(HTTPStatus.BAD_REQUEST, "This is no query") from None

    def body(self):
        """The bytes that are sent along, refused before they are read where they are too many."""
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "The length of what is sent must be told")
        if len(lengths) > 1 or not re.fullmatch("[0-9]{1,18}", lengths[0].strip()):
            raise Refusal(HTTPStatus.BAD_REQUEST, "The length of what is sent is no number")
        if (length := int(lengths[0])) > MOST_BODY:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A picture's file may have {MOST_BODY//2**20} MiB")
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionAbortedError
        return body

    # --------------------------------------------------------------------------------------------------------- answers
    def refuse(self, status, sentence):
        """Send the sentence; then take what is still sent, since a browser that cannot send on would not read the answer."""
        self.send_json(status, {"error": sentence})
        left = MOST_DRAINED
        self.connection.settimeout(1)
        while left > 0 and (piece := self.rfile.read1(2**16)):
            left -= len(piece)

    def send_json(self, status, value):
        """Send an answer of /api."""
        text = json.dumps(value, ensure_ascii=True, allow_nan=False).encode("ascii")
        self.head(status, "application/json", len(text), "no-store")
        if self.command != "HEAD":
            self.wfile.write(text)

    def send_file(self, path):
        """Send a file; its kind is that of its ending."""
        try:
            with open(path, "rb", opener=opener) as file:
                self.head(HTTPStatus.OK, TYPES[path.suffix.lower()], os.fstat(file.fileno()).st_size, "no-cache")
                if self.command != "HEAD":
                    shutil.copyfileobj(file, self.wfile)
        except (ConnectionError, TimeoutError):
            raise
        except OSError:
            raise NOTHING from None

    def head(self, status, kind, length, caching):
        """Send the status and the headers of every answer."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(length), "Cache-Control": caching, **ALWAYS}.items():
            self.send_header(name, value)
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no HTTP, or a method that there is not: called by the base class."""
        self.close_connection, self.command = True, self.command or "GET"
        with suppress(ConnectionError, TimeoutError):
            self.refuse(HTTPStatus(code), f"This cannot be answered: {HTTPStatus(code).phrase}")

    def version_string(self) -> str:
        """The name in the header Server."""
        return "zfcore"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


NOTHING = Refusal(HTTPStatus.NOT_FOUND, "There is no such file in this atlas")


def file_of(folder: Path, path: str) -> Path:
    """The file of an atlas that the path of an address means, of pages that which zfcore has. Raises Refusal for other kinds,
    for what lies elsewhere and for other programs; Expected for data that are none."""
    try:
        names = unquote(path, errors="strict").removeprefix("/").split("/") if path != "/" else ["index.html"]
    except UnicodeDecodeError:
        raise NOTHING from None
    if not all(name and name.isprintable() and name[0] != "." and not set(name) & set("\\:") for name in names):
        raise NOTHING
    if not path.startswith("/") or PurePosixPath(names[-1]).suffix.lower() not in TYPES:
        raise NOTHING
    if names == ["index.html"] or names[0] == "page":
        return PAGE.joinpath(*names[names[0] == "page":])
    try:
        found = inside(folder, "/".join(names))
    except (check.Expected, OSError):
        raise NOTHING from None
    is_data = names[:-1] == ["data"] and found.suffix == ".js"
    if found.suffix.lower() in PROGRAMS and not (is_data and Folder(folder).known(found.stem) is not None):
        raise NOTHING
    return found


# --------------------------------------------------------------------------------------------------------------- the server
class Server(ThreadingHTTPServer):
    """`with Server(folder, model, layers) as server: server.serve_forever()`, a thread for each connection.

    folder     of an atlas          layers   that a picture is looked at through
    port       0: any that is free

    Raises Expected where the port cannot be had."""
    daemon_threads, request_queue_size = True, 64
    allow_reuse_address = os.name == "posix"               # elsewhere it lets two programs share a port

    def __init__(self, folder: FilePath, model: Trained, layers: Sequence[str], port: int = 0) -> None:
        self.folder, self.desk = Path(folder), Desk(model, layers)
        try:
            super().__init__((HOST, port), Request)
        except OSError as error:
            why = "another program listens there" if error.errno == errno.EADDRINUSE else error.strerror
            raise check.Expected("--port", "one that is free", f"{port} ({why})", "--port 0 takes any") from None

    def server_bind(self) -> None:
        """Take the port. The base class would ask the network for this machine's name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.socket.getsockname()[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: what fails outside `Request.answer` is a connection that has gone."""

    @property
    def address(self) -> str:
        """Address for a browser."""
        return f"http://{HOST}:{self.server_port}/"


def serve(folder: FilePath, model: Trained, layers: Sequence[str], port: int = 0,
          ready: Callable[[str], object] | None = None) -> None:
    """Serve an atlas at 127.0.0.1 until Ctrl-C or SIGTERM. `ready` is called with the address once it listens:
    `webbrowser.open`, say. Raises Expected where the port cannot be had."""
    with Server(folder, model, layers, port) as server:
        say(f"the atlas is at {server.address} (Ctrl-C ends it)")
        try:
            if ready is not None:
                ready(server.address)
            server.serve_forever()
        except KeyboardInterrupt:
            say("\nended")
