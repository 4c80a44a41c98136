"""The server of an atlas: answers that are the engine's own, its files and no others, and a sentence for whatever is not so."""
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zfcore.atlas import PAGE
from zfcore.atlas import serve as serving
from zfcore.atlas.look import encoded, encoded_occlusion, look, occluded, projected, sheet
from zfcore.atlas.serve import MOST_BODY, RULES, Server, data_address
from zfcore.check import Expected
from zfcore.data.transforms import decode, square
from zfcore.models.zfnet import zfnet
from zfcore.trained import Trained

ROOT = Path(__file__).parents[2]
CROP, SIZE = 67, 73
CLASSES = ["<script>", 'a "b"', "дом"]
LAYERS = ["conv1", "conv5", "fc8"]
INDEX = (PAGE/"index.html").read_bytes()
LAYER = b'atlas.receive("layer-a%2Fb c",{"a":[1,null]});\n'
EVIL = {"index.html": "<title>evil", "page/start.js": "evil()", "page/more.js": "evil()", "page/more.css": "evil", "start.js": "evil()",
        "data/x.html": "evil", "data/y.JS": "evil()", "data/more/z.js": "evil()", "sheets/a.svg": "<svg>evil</svg>",
        "data/call.js": 'atlas.receive("call",evil());\n', "data/two.js": 'atlas.receive("two",{});evil();\n',
        "data/other.js": 'atlas.receive("two",{"evil": 1});\n', "data/y.js": 'atlas.receive("y",{});\n'}


@pytest.fixture(scope="module")
def model():
    network = zfnet(len(CLASSES), CROP, maps=(6, 8, 7, 5, 9), units=(11, 10)).init(3, "he")
    return Trained(network, np.random.default_rng(2).uniform(90, 150, (3, SIZE, SIZE)).astype(np.float32), CLASSES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An atlas with links that lead out of it, beside a file that is no part of it."""
    root = tmp_path_factory.mktemp("server")
    made = root/"atlas"
    (made/"data").mkdir(parents=True)
    (made/"data"/"layer-a%2Fb c.js").write_bytes(LAYER)
    for name, text in EVIL.items():
        (made/name).parent.mkdir(parents=True, exist_ok=True)
        (made/name).write_text(text)
    (made/".hidden.js").write_text("secret")
    (made/"pass.h5").write_text("secret")
    (made/"folder.js").mkdir()
    (root/"secret.js").write_text("secret")
    if hasattr(os, "symlink"):
        (made/"out.js").symlink_to(root/"secret.js")
        (made/"up").symlink_to(root)
    if hasattr(os, "mkfifo"):
        os.mkfifo(made/"fifo.js")
    return made


@pytest.fixture(scope="module")
def server(model, folder):
    with running(folder, model) as server:
        yield server


@pytest.fixture(scope="module")
def number(server):
    """Id of a picture that was shown."""
    return shown(server)


@contextmanager
def running(folder, model):
    with Server(folder, model, LAYERS) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def picture_file(seed=0, shape=(90, 81, 3), kind="PNG"):
    """Bytes of a picture in a file."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(file, kind)
    return file.getvalue()


def asked(server, path, body=None, method=None, **headers):
    """(status, headers, what came) of a request."""
    link = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    link.request(method or ("GET" if body is None else "POST"), path, body, headers)
    answer = link.getresponse()
    content = answer.read()
    link.close()
    is_json = answer.headers["Content-Type"] == "application/json"
    return answer.status, answer.headers, json.loads(content) if is_json else content


def refused(server, status, path, body=None, method=None, **headers):
    """The sentence of an answer with this status."""
    got, said, answer = asked(server, path, body, method, **headers)
    assert got == status and list(answer) == ["error"] and said["Cache-Control"] == "no-store", answer
    assert answer["error"] and "\n" not in answer["error"] and "Traceback" not in answer["error"]
    return answer["error"]


def sent(server, data):
    """What comes back on bytes that need not be a request."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as link:
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: link.recv(2**16), b""))


def status_of(answer):
    return int(answer.split()[1])


def shown(server, seed=0):
    """Show a picture: its id."""
    return asked(server, "/api/look", picture_file(seed))[2]["id"]


# ------------------------------------------------------------------------------------------------- what the network says
def test_it_says_what_it_serves(server):
    rules = ["deconvnet", "gradient", "guided"]
    assert asked(server, "/api")[2] == {"serves": True, "layers": LAYERS, "rules": rules, "classes": CLASSES}


@pytest.mark.parametrize("file", [picture_file(), picture_file(1, (800, 700, 3), "JPEG")], ids=("PNG", "JPEG at reduced scale"))
def test_a_picture_is_looked_at_as_the_runs_own_are(server, model, file):
    status, headers, answer = asked(server, "/api/look", file)
    assert status == 200 and headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    picture = square(decode("", file, SIZE), SIZE, CROP)
    assert answer.pop("id") and answer == encoded(look(model, picture, LAYERS, hide=False), "", -1, None, data_address)
    tile = Image.open(io.BytesIO(b64decode(answer["image"].removeprefix("data:image/webp;base64,"))))
    assert tile.format == "WEBP" and tile.size == (CROP, CROP) and answer["occlusion"] is None


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer, unit", [("conv2", 7), ("norm1", 0), ("fc8", 2)])
def test_any_unit_of_any_layer_is_projected_by_any_rule(server, number, model, layer, unit, rule):
    status, _, answer = asked(server, f"/api/project?id={number}&layer={layer}&unit={unit}&rule={rule}", b"")
    one = projected(model, square(decode("", picture_file(), SIZE), SIZE, CROP), layer, unit, RULES[rule])
    assert status == 200 and answer == {"value": pytest.approx(float(one.values[0]), rel=1e-6), "box": one.boxes[0].tolist(),
                                        "image": data_address(sheet(one.projections))}


@pytest.mark.parametrize("stride", [None, 9])
def test_the_occlusion_is_that_of_the_picture(server, number, model, stride):
    query = f"/api/occlusion?id={number}" + (f"&stride={stride}" if stride else "")
    status, _, answer = asked(server, query, b"")
    alone, _ = occluded(model, square(decode("", picture_file(), SIZE), SIZE, CROP), stride=stride)
    assert status == 200 and (answer.pop("finest"), len(answer["notes"])) == (2, stride is not None)
    assert not stride or "moves by 9 pixels instead of 2" in answer["notes"][0]
    assert answer == {**encoded_occlusion(alone, data_address, ""), "notes": answer["notes"]}


def test_pictures_turned_transparent_or_small_come_as_elsewhere(server):
    turned, upright, small = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pixels = Image.open(io.BytesIO(picture_file(3)))
    exif = Image.Exif()
    exif[0x0112] = 3
    pixels.rotate(180).save(turned, "PNG", exif=exif)
    pixels.putalpha(255)
    pixels.save(upright, "PNG")
    ids = [asked(server, "/api/look", file)[2]["id"] for file in (picture_file(3), turned.getvalue(), upright.getvalue())]
    assert len(set(ids)) == 1
    Image.new("L", (30, 20), 77).save(small, "BMP")
    answer = asked(server, "/api/look", small.getvalue())[2]
    assert answer["notes"] == ["30x20 pixels, enlarged for the network, which sees 67x67"] and answer["side"] == CROP


def test_many_at_once_are_answered_as_one_alone(server):
    numbers = [shown(server, seed) for seed in range(2)]
    queries = [(f"/api/project?id={number}&layer=conv5&unit=3&rule=guided", b"") for number in numbers]
    queries += [(f"/api/occlusion?id={number}&stride=22", b"") for number in numbers]
    queries += [("/api/look", picture_file(seed)) for seed in range(2)]
    alone = [asked(server, *query)[2] for query in queries]
    with ThreadPoolExecutor(12) as threads:
        assert [answer[2] for answer in threads.map(lambda query: asked(server, *query), queries*2)] == alone*2


def test_the_network_looks_at_one_picture_at_a_time(server, monkeypatch):
    inside, most = [], []

    def slow(query, body):
        inside.append(0)
        time.sleep(0.02)
        most.append(len(inside))
        inside.pop()
        return {}
    monkeypatch.setattr(server.desk, "look", slow)
    with ThreadPoolExecutor(5) as threads:
        assert [answer[0] for answer in threads.map(lambda _: asked(server, "/api/look", b""), range(5))] == [200]*5
    assert most == [1]*5


def test_the_last_pictures_are_kept_and_no_others(folder, model, monkeypatch):
    assert serving.KEPT == 16
    monkeypatch.setattr(serving, "KEPT", 3)
    with running(folder, model) as server:
        numbers = [shown(server, seed) for seed in range(3)]
        project = "/api/project?id={}&layer=conv1&unit=0&rule=gradient"
        assert len(set(numbers)) == 3 and asked(server, project.format(numbers[0]), b"")[0] == 200          # used last
        shown(server, 3)
        assert [number for number in numbers if number not in server.desk.pictures] == [numbers[1]]
        assert "not kept, only the last 3" in refused(server, 404, project.format(numbers[1]), b"")


# ----------------------------------------------------------------------------------------------------------------- files
def test_files_of_the_atlas_are_served_as_what_they_are(server):
    for path in ("/", "/index.html", "/?x=1", "/index.html#conv5"):
        status, headers, content = asked(server, path)
        assert (status, headers["Content-Type"], content) == (200, "text/html; charset=utf-8", INDEX)
    status, headers, content = asked(server, "/data/layer-a%252Fb%20c.js")
    assert (status, content) == (200, LAYER)
    assert headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers
    status, headers, content = asked(server, "/index.html", method="HEAD")
    assert (status, content, headers["Content-Length"]) == (200, b"", str(len(INDEX)))


@pytest.mark.parametrize("path", [
    *"/data /data/ /nothing.js /index.html/ /folder.js /pass.h5 /.hidden.js /fifo.js /out.js /up/secret.js".split(),
    *"/../secret.js /..%2fsecret.js /%2e%2e/secret.js /data/..%2f..%2fsecret.js /..%5csecret.js /data/../index.html".split(),
    *"/%2fetc%2fpasswd //etc/passwd /etc/passwd /index.html%00 /%00.js /index.html%0a /%ff.js /./index.html".split(),
    *"/data//x.js /C:/secret.js /index.html::$DATA".split(), "/" + "a"*5000 + ".js", "/" + "a/"*3000 + "b.js"])
def test_nothing_else_is_served(server, path):
    answer = sent(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert status_of(answer) == 404 and b"secret" not in answer.split(b"\r\n\r\n")[1] and answer.endswith(b'"}')


def test_no_program_of_the_folder_is_served(server, folder):
    """Nor what looks like data and is a program: what is served runs where the network answers."""
    served = {name: asked(server, f"/{name}")[::2] for name in EVIL}
    assert {name: answer for name, (status, answer) in served.items() if status == 200} == {
        "index.html": INDEX, "page/start.js": (PAGE/"start.js").read_bytes(), "data/y.js": EVIL["data/y.js"].encode()}
    assert {name for name, (status, _) in served.items() if status == 400} == {"data/call.js", "data/two.js", "data/other.js"}


def test_what_the_network_says_is_asked_for_by_post_and_no_other_method_is_taken(server):
    assert "POST" in refused(server, 405, "/api/look")
    assert refused(server, 404, "/index.html", b"")
    assert refused(server, 404, "/api/other", b"")
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"):
        assert refused(server, 501, "/api/look", b"", method)


# --------------------------------------------------------------------------------------------------------------- senders
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "", "0.0.0.0", "localhost:x",
                                  "user@localhost"])
def test_a_request_that_names_another_machine_is_refused(server, host):
    assert "127.0.0.1 and localhost only" in refused(server, 403, "/", Host=host)
    assert refused(server, 403, "/api/look", picture_file(), Host=host)


def test_a_request_without_its_machine_or_with_two_is_refused(server):
    for hosts in ("", "Host: localhost\r\nHost: evil.example\r\n"):
        assert status_of(sent(server, f"GET / HTTP/1.1\r\n{hosts}\r\n".encode())) == 403


def test_only_pages_of_its_own_may_post(server):
    own = f"127.0.0.1:{server.server_port}"
    for origin in ("null", "http://evil.example", "https://" + own, "http://" + own.replace("127.0.0.1", "localhost"),
                   "http://127.0.0.1:1", f"http://{own}/", ""):
        assert "own pages only" in refused(server, 403, "/api/look", picture_file(), Origin=origin)
    assert asked(server, "/api/look", picture_file(), Origin="http://" + own)[0] == 200
    far = {"Host": "localhost:8123", "Origin": "http://localhost:8123"}                            # through ssh -L 8123:...
    assert asked(server, "/api/look", picture_file(), **far)[0] == 200


# ---------------------------------------------------------------------------------------------------------------- bodies
@pytest.mark.parametrize("body", [b"", b"GIF89a", b"\xff\xd8\xff\xe0" + b"x"*99, picture_file()[:700], b"<svg/>", b"\0"*999])
def test_a_file_that_is_no_picture_is_refused(server, body):
    assert "picture" in refused(server, 400, "/api/look", body)


def test_a_picture_that_would_fill_the_memory_is_refused(server):
    bomb = bytearray(picture_file(shape=(1, 1, 3)))
    bomb[16:24] = (60000).to_bytes(4, "big")*2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    assert "pixels" in refused(server, 400, "/api/look", bytes(bomb))


@pytest.mark.parametrize("headers, status", [
    ("Content-Length: 99999999999", 413), (f"Content-Length: {MOST_BODY + 1}", 413), ("", 411),
    ("Transfer-Encoding: chunked", 411), ("Content-Length: 3\r\nTransfer-Encoding: chunked", 411),
    ("Content-Length: -1", 400), ("Content-Length: 1e3", 400), ("Content-Length: ", 400),
    ("Content-Length: 3\r\nContent-Length: 4", 400), ("Content-Length: " + "9"*99, 400)])
def test_a_body_of_no_known_or_too_great_a_length_is_refused_unread(server, headers, status):
    head = f"POST /api/look HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n".replace("\r\n\r\n\r\n", "\r\n\r\n")
    assert status_of(sent(server, head.encode() + b"3\r\nabc\r\n0\r\n\r\n")) == status


def test_a_large_file_that_is_refused_is_heard_to_be(server):
    assert "64 MiB" in refused(server, 413, "/api/look", b"x"*(MOST_BODY + 1))


@pytest.mark.parametrize("query, sentence", [
    ("layer=conv1&unit=0&rule=guided", "id: expected one value, got 0"),
    ("id=ID&id=ID&layer=conv1&unit=0&rule=guided", "id: expected one value, got 2"),
    ("id=ID&layer=conv9&unit=0&rule=guided", "layer: expected one of conv1"), ("id=ID&layer=<b>&unit=0&rule=guided", "layer"),
    ("id=ID&layer=%00&unit=0&rule=guided", "layer"), ("id=ID&unit=0&rule=guided", "layer"),
    ("id=ID&layer=conv1&unit=6&rule=guided", "unit of conv1: expected 0 to 5"),
    ("id=ID&layer=conv1&unit=-1&rule=guided", "unit: expected a whole number"),
    ("id=ID&layer=conv1&unit=1e9&rule=guided", "whole number"), ("id=ID&layer=conv1&unit=%D9%A3&rule=guided", "whole number"),
    ("id=ID&layer=conv1&unit=0&rule=lrp", "rule: expected one of deconvnet"),
    ("id=ID&layer=%ff&unit=0&rule=guided", "no query"), ("&".join(["x=1"]*20), "no query")])
def test_a_unit_that_there_is_not_is_refused(server, number, query, sentence):
    assert sentence in refused(server, 400, "/api/project?" + query.replace("ID", number), b"")


@pytest.mark.parametrize("stride, sentence", [("1", "expected 2 to 67"), ("68", "expected 2 to 67"), ("0", "expected 2 to 67"),
                                              ("x", "whole number")])
def test_a_stride_that_takes_for_ever_or_is_none_is_refused(server, number, stride, sentence):
    assert sentence in refused(server, 400, f"/api/occlusion?id={number}&stride={stride}", b"")


def test_an_id_that_nobody_got_is_unknown(server):
    for number in ("", "0", "../x", "%00"):
        assert "not kept" in refused(server, 404, f"/api/occlusion?id={number}", b"")


# ---------------------------------------------------------------------------------------------------------- what goes wrong
@pytest.mark.parametrize("data", [
    b"", b"\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/x\r\n\r\n", b"FOO / HTTP/1.1\r\n\r\n", b"GET /" + b"a"*70000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n"*200 + b"\r\n", b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /api/look HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc"])
def test_what_is_no_request_does_no_harm_and_says_nothing(server, capfd, data):
    answer = sent(server, data)
    assert answer == b"" or not data.startswith(b"POST")                   # who does not send all has gone away
    assert not answer or status_of(answer) >= 400 and b"Traceback" not in answer and b"<" not in answer
    assert asked(server, "/api")[0] == 200 and capfd.readouterr() == ("", "")


def test_a_browser_that_goes_away_is_no_event(server, capfd):
    file = picture_file()
    for _ in range(3):
        link = socket.create_connection(("127.0.0.1", server.server_port))
        link.sendall(b"POST /api/look HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(file) + file)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")                # reset, not closed
        link.close()
    assert asked(server, "/api/look", picture_file())[0] == 200 and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("data", [
    b"", b"GET / HT", b"POST /api/look HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc"])
def test_a_browser_that_falls_silent_is_left(server, monkeypatch, capfd, data):
    monkeypatch.setattr(serving.Request, "timeout", 0.05)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as link:
        link.sendall(data)
        assert link.recv(1) == b"" and capfd.readouterr() == ("", "")


def test_a_mistake_of_its_own_is_told_in_a_line_and_not_sent(server, monkeypatch, capfd):
    def broken(query, body):
        raise KeyError("at /home/somebody")
    monkeypatch.setattr(server.desk, "project", broken)
    assert refused(server, 500, "/api/project", b"") == "the server failed, KeyError"
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("error: /api/project: the server failed, KeyError")
    assert asked(server, "/api/look", picture_file())[0] == 200                     # the lock is free again


def test_a_port_that_is_taken_is_told(server, folder, model):
    with pytest.raises(Expected, match=rf"port: expected one that is free, got {server.server_port} \(another program"):
        Server(folder, model, LAYERS, server.server_port)


def test_it_listens_at_this_machine_alone(server):
    assert server.socket.getsockname()[0] == "127.0.0.1" and server.address == f"http://127.0.0.1:{server.server_port}/"


# ------------------------------------------------------------------------------------------------------------- as a command
COMMAND = """
import sys, numpy as np
from zfcore import check
from zfcore.atlas.serve import serve
from zfcore.models.zfnet import zfnet
from zfcore.trained import Trained

@check.exit_with_message
def main():
    network = zfnet(3, 67, maps=(6, 8, 7, 5, 9), units=(11, 10)).init(3, "he")
    model = Trained(network, np.zeros((3, 73, 73), np.float32))
    serve(sys.argv[1], model, ["conv1"], ready=lambda address: print("ready", address, flush=True))

main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_signal_ends_it_with_a_line(folder):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", COMMAND, folder], cwd=ROOT, **pipes) as process:
        lines = [process.stdout.readline() for _ in range(2)]
        address = lines[1].split()[1]
        assert lines[0] == f"the atlas is at {address} (Ctrl-C ends it)\n" and address.startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (out.split(), err, process.returncode) == (["ended"], "", 0)


def test_so_does_ctrl_c_and_the_port_is_free_again(folder, model, monkeypatch, capsys):
    def interrupted(server):
        raise KeyboardInterrupt
    monkeypatch.setattr(Server, "serve_forever", interrupted)
    told = []
    serving.serve(folder, model, LAYERS, ready=told.append)
    assert capsys.readouterr().out.split("\n") == [f"the atlas is at {told[0]} (Ctrl-C ends it)", "", "ended", ""]
    with Server(folder, model, LAYERS, int(told[0].split(":")[2].strip("/"))):
        pass
