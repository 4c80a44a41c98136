"""An atlas of a network that never was: random numbers and drawn shapes in the folder's format, for the tests of its pages.

    python -m tests.atlas.example DIR"""
import json
import shutil
import sys
from base64 import b64encode
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from zfcore.files import file_names

PAGE = Path(__file__).parents[2]/"zfcore/atlas/page"
INPUT = 48
HOSTILE = ["<script>alert(1)</script>", "owl", "Hot dog", "\" onerror=\"alert(2)", "' & </b>", "قطة", "猫と犬",
           "🐕‍🦺 dog", "${alert(3)}",
           "--><img src=x onerror=alert(4)>", "a very long name of a class " * 6, "</script><script>alert(5)</script>"]
LAYERS = [("conv1", 12, 23, 5, 2), ("block/conv2", 40, 11, 15, 4), ("conv3", 20, 5, 39, 8), ("fc", None, 1, None, None)]
MOST = 12                                          # sheets of a kind
EPOCHS, J, TOP = [1, 2, 5, 9], 4, 9
INK = ["#e8b04a", "#5aa0d8", "#d86a5a", "#6ab87a", "#b07ac8", "#e8e8e8"]


def write(root, classes=HOSTILE, layers=LAYERS, pictures=3, nulls=False, compare=True, seed=0):
    """Write the atlas into the folder `root` and return it. nulls: everything that may be missing is."""
    root, random = Path(root), np.random.default_rng(seed)
    for folder in ("data", "sheets", "pictures", "page"):
        (root/folder).mkdir(parents=True, exist_ok=True)
    for path in PAGE.iterdir():
        shutil.copy(path, root if path.suffix == ".html" else root/"page")
    layers = [(name, units or max(len(classes), 1), *rest) for name, units, *rest in layers]
    pages = file_names([name for name, *_ in layers])
    receive(root, "network", network(root, random, classes, layers, pages, pictures, nulls, compare))
    for k, page in enumerate(pages):
        found = layer(root, random, classes, layers, k, nulls)
        described = random.normal(0, 1, (len(found["units"]), 12))*~np.array(found["dead"])[:, None]
        described /= np.maximum(np.linalg.norm(described, axis=1, keepdims=True), 1e-9)
        receive(root, f"layer-{page}", found | {"alike": alike(described, found["dead"])})
        receive(root, f"likeness-{page}", {"length": 12, "described": b64encode(
            np.rint(32767*described).astype("<i2").tobytes()).decode()})
        if compare and not nulls:
            receive(root, f"compare-{page}", other(root, random, layers[k]))
    numbers = range(200)
    receive(root, "whole", {
        "side": 48, "columns": 8, "rows": 8, "files": sheets(root, "whole", random, 200, 8, 8, photo, 48),
        "place": {str(n): n for n in numbers if n % 7}, "names": {str(n): f"val/<b>{n % 5}</b>/{n}.png" for n in numbers},
        "labels": {str(n): n % max(len(classes), 1) for n in numbers}})
    for number in range(3, 3 + pictures):
        receive(root, f"picture-{number}", picture(root, random, classes, layers, number, nulls))
    return root


def receive(root, name, content):
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    (root/"data"/f"{name}.js").write_text(f"atlas.receive({json.dumps(name)}, {text});\n", encoding="ascii")


def network(root, random, classes, layers, pages, pictures, nulls, compare):
    table = []
    for (name, units, size, field, jump), page in zip(layers, pages):
        shape = [units] if field is None else [units, size, size]
        kind = "Conv" if field else "Linear"
        table += [{"name": name, "kind": kind, "settings": "5x5, stride 2, padding 1" if field else "", "shape": shape,
                   "parameters": int(random.integers(100, 9999)), "field": field, "jump": jump, "page": page},
                  {"name": name + "_relu", "kind": "ReLU", "settings": "", "shape": shape, "parameters": 0, "field": field,
                   "jump": jump,
                   "page": None}]
    if not nulls:
        curves = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 150"><rect width="400" height="150" fill="#fff"/>' \
                 '<path d="M20 20 Q 60 120 380 130" fill="none" stroke="#c8442d" stroke-width="2"/></svg>'
        (root/"curves.svg").write_text(curves)
        rows = [random.permutation(units)[:8].tolist() for _, units, *_ in layers]
        sheets(root, "cover", random, 8*len(layers), 8, len(layers), projection, 64, name="sheets/cover.webp")
    label = (lambda n: n % len(classes)) if classes else (lambda n: -1)
    return {
        "format": "zfcore atlas", "version": 4, "made": "2026-11-29", "zfcore": "0.1.0", "name": "small <i>net</i>",
        "run": "runs/small",
        "epoch": 9, "input": [3, INPUT, INPUT], "grey": False,
        "data": None if nulls else "drawn:combinations", "part": "val", "total": 200,
        "classes": classes, "outputs": len(classes), "shares": [1/len(classes)]*len(classes) if classes and not nulls else None,
        "labelled": bool(classes) and not nulls,
        "errors": None if nulls else {"top1": 1.5, "top5": None, "on": "200 pictures of the val part"},
        "notes": ["No evolution: the run kept no epochs; `python -m train --keep-epochs 1 2 5` keeps them"] if nulls else [],
        "table": table,
        "layers": [{"name": name, "units": units, "shown": units, "dead": 0 if nulls else 1, "field": field,
                    "whole": field is None, "dominance": None if nulls else 2.1,
                    "selectivity": None if nulls else 0.41} for name, units, _, field, _ in layers],
        "cover": None if nulls else {"file": "sheets/cover.webp", "side": 64, "columns": 8,
                                     "units": {name: row for (name, *_), row in zip(layers, rows)}},
        "curves": None if nulls else {"file": "curves.svg", "alt": "loss falls over nine epochs"},
        "pictures": [{"number": n, "name": f"val/<b>{n}</b>.png", "label": label(n)} for n in range(3, 3 + pictures)],
        "compare": {"name": "small, untrained", "run": "runs/other", "epoch": 0,
                    "layers": [{"name": name, "other": name, "mean": 0.83 - k/10} for k, (name, *_) in enumerate(layers)]}
                   if compare and not nulls else None}


def layer(root, random, classes, layers, k, nulls):
    name, U, _, field, _ = layers[k]
    page = file_names([name for name, *_ in layers])[k]
    below, above = (layers[k - 1] if k else None), (layers[k + 1] if k + 1 < len(layers) else None)
    side, C = field or INPUT, len(classes)
    values = -np.sort(-random.gamma(2, 3, (U, TOP)), axis=1).round(2)
    dead = np.arange(U) == (U - 1 if U > 1 else -1)
    values[dead] = 0
    numbers = random.integers(0, 200, (U, TOP))
    numbers[dead] = -1
    corner = random.integers(-3, INPUT - side + 4, (U, TOP, 2)) if field else np.zeros((U, TOP, 2), int)
    common = random.integers(0, C, U) if C else None
    tile = max(48//side, 1)*side if side < 48 else 48
    wide = max(96//side, 1)*side if side < 96 else 96

    def net(layer):
        if layer is None or nulls:
            return None
        chosen = [random.permutation(layer[1])[:8] for _ in range(U)]
        ordered = [sorted(random.normal(0, 0.1, len(row)), key=abs, reverse=True) for row in chosen]
        return [[[int(u), round(float(w), 4)] for u, w in zip(row, weights)] for row, weights in zip(chosen, ordered)]

    labelled = bool(C) and not nulls
    return {
        "name": name, "below": below and below[0], "above": above and above[0], "shown_of": U, "whole": field is None,
        "units": list(range(U)), "dead": dead.tolist(), "strength": values[:, 0].tolist(),
        "selectivity": [round(0.3 - 1/C, 3)]*U if labelled else None,
        "common": np.where(dead, -1, common).tolist() if labelled else None,
        "histogram": [[[int((c + i) % C), 30//(i + 1)] for i in range(min(C, 10))] for c in common] if labelled else None,
        "counted": [100]*U if labelled else None, "class": list(range(U)) if C and above is None else None,
        "values": values.tolist(), "pictures": numbers.tolist(),
        "boxes": np.concatenate([corner, corner + side], axis=2).tolist(),
        "tiles": {"side": tile, "columns": 16,
                  **{kind: sheets(root, f"{page}-{kind}", random, U, 16, -(-U//16), draw, tile)[0]
                     for kind, draw in (("strongest", projection), ("mean", projection), ("patch", photo))}},
        "sheets": {"side": wide, "rows": 8, "columns": TOP,
                   "projection": sheets(root, f"{page}-projection", random, U*TOP, TOP, 8, projection, wide),
                   "patch": sheets(root, f"{page}-patchs", random, U*TOP, TOP, 8, photo, wide)},
        "map": None if nulls else [[None, None] if d else random.uniform(0, 1, 2).round(3).tolist() for d in dead],
        "inputs": net(below), "outputs": net(above),
        "checks": None if nulls else {
            "conditions": ["as trained", "another unit", "weights of the start", "untrained"],
            "cosine": [None if d else [1, 0.12, 0.31, -0.04] for d in dead.tolist()], "rows": 8, "columns": J,
            "sheets": sheets(root, f"{page}-checks", random, U*J, J, 8, projection, wide)},
        "evolution": None if nulls else {
            "epochs": EPOCHS, "values": random.gamma(2, 3, (U, len(EPOCHS))).round(2).tolist(),
            "rows": 8, "columns": len(EPOCHS),
            "sheets": sheets(root, f"{page}-evolution", random, U*len(EPOCHS), len(EPOCHS), 8, projection, wide)}}


def alike(described, dead):
    """Of each unit the eight with the largest cosines."""
    cosines, found = described @ described.T, []
    for p, of_unit in enumerate(cosines):
        near = [] if dead[p] else sorted((-of_unit[q], q) for q in range(len(dead)) if q != p and not dead[q])
        found.append([[q, round(-minus, 5)] for minus, q in near[:8]])
    return found


def other(root, random, layer):
    name, U, *_ = layer
    page = file_names([name])[0]
    tiles = {f"{side}-{kind}": sheets(root, f"{page}-{side}-{kind}", random, U, 16, -(-U//16), draw, 48)[0]
             for side in ("one", "other") for kind, draw in (("strongest", projection), ("patch", photo))}
    return {"name": name, "other": name, "units": list(range(U)), "control": [0.2]*U,
            "matches": [[(p + 1) % U, round(float(random.uniform(0, 1)), 3)] if p != 1 else None for p in range(U)],
            **{key: {"side": 48, "columns": 16, **{kind: tiles[f"{side}-{kind}"] for kind in ("strongest", "patch")}}
               for key, side in (("tiles", "one"), ("others", "other"))}}


def picture(root, random, classes, layers, number, nulls):
    label, tops = number % max(len(classes), 1), list(range(-4, 40, 4))
    canvas(photo, random, 4*INPUT).save(root/f"pictures/{number}.webp")
    canvas(projection, random, INPUT).save(root/f"pictures/{number}-map.webp")
    top = min(len(classes), 10)
    p = random.uniform(0.1, 1, (len(tops), len(tops))).round(3)
    occlusion = {"layer": layers[-2 if len(layers) > 1 else 0][0], "unit": 3, "size": 12, "grey": 128,
                 "tops": tops, "lefts": tops, "projection": f"pictures/{number}-map.webp",
                 "label": label, "clean": {"p": 0.99, "class": label, "sum": 31.2}, "p": p.tolist(),
                 "class": np.where(p < 0.3, 0, label).tolist(), "sums": (30*p**2).round(2).tolist()}
    found = []
    for name, units, *_ in layers:
        page = file_names([name])[0]
        count = min(units, 6)
        found.append({"name": name, "units": random.permutation(units)[:count].tolist(), "side": 48,
                      "values": sorted(random.gamma(2, 3, count).round(2).tolist(), reverse=True),
                      "boxes": [[4, 6, 30, 32]]*count,
                      "sheet": f"pictures/{number}-{page}.webp"})
        sheets(root, "", random, count, count, 1, projection, 48, name=found[-1]["sheet"])
    share = -np.sort(-random.dirichlet([0.3]*top)) if top else []
    return {"number": number, "name": f"val/<b>{number}</b>.png", "label": label if classes else -1,
            "image": f"pictures/{number}.webp",
            "side": INPUT,
            "probabilities": [[int((label + i) % len(classes)), round(float(s), 4)] for i, s in enumerate(share)],
            "layers": found, "occlusion": None if nulls or not classes else occlusion}


def sheets(root, stem, random, count, columns, rows, draw, side, name=None):
    """Write `count` drawings to sheets of rows x columns, a few different ones over and over, and return the files' names."""
    few = [canvas(draw, random, side) for _ in range(7)]
    files = []
    for first in range(0, max(count, 1), columns*rows):
        here = min(columns*rows, count - first)
        sheet = Image.new("RGB", (columns*side, max(-(-here//columns), 1)*side), "#808080")
        for k in range(here):
            sheet.paste(few[(first + k)*5 % 7], (k % columns*side, k//columns*side))
        if len(files) == MOST:                     # and from there on the same ones again
            return [files[k % MOST] for k in range(-(-count//(columns*rows)))]
        files.append(name or f"sheets/{stem}-{len(files):02}.webp")
        sheet.save(root/files[-1], quality=80, method=0)
    return files


def canvas(draw, random, side):
    image = Image.new("RGB", (side, side), "#808080")
    draw(ImageDraw.Draw(image), random, side)
    return image


def projection(pen, random, side):
    for _ in range(4):
        x, y, r = random.uniform(0, side, 3)
        start, end = sorted(random.uniform(0, 360, 2))
        pen.arc((x - r/2, y - r/2, x + r/2, y + r/2), start, end, fill=INK[random.integers(6)], width=max(side//24, 1))


def photo(pen, random, side):
    pen.rectangle((0, 0, side, side), fill=INK[random.integers(6)])
    for _ in range(5):
        x, y, r = random.uniform(0, side, 3)
        pen.ellipse((x - r/3, y - r/3, x + r/3, y + r/3), fill=INK[random.integers(6)])


if __name__ == "__main__":
    write(sys.argv[1])
