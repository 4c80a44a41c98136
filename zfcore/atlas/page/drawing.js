"use strict";
/* The layers as a picture: maps drawn to scale as slabs, and below each how much of the picture one of its units sees. */
(() => {
  const {draw} = atlas.dom;
  const LIFT = 0.6, LARGEST = 132, GAP = 22, NARROWEST = 84, OUTLINE = 40, MOST = 40;

  const size = shape => shape.reduce((product, one) => product * one, 1);

  /** Rows of the table worth a slab: those with pages, and those that change how many numbers there are, while they are few. */
  function slabs(network) {
    const input = {name: "picture", shape: network.input, page: null, field: 1, input: true};
    let before = size(network.input);
    const rows = network.table.filter(row => {
      const differs = size(row.shape) !== before;
      before = size(row.shape);
      return row.page || differs;
    });
    return [input, ...rows.length > MOST ? rows.filter(row => row.page) : rows];
  }

  /** Width, height and depth of a slab in pixels: maps to scale; by the logarithm of how many, depth or a vector's height. */
  function measure({shape}, scale) {
    const [many, height, width] = [shape[0], shape[1] || 1, shape[2] || 1], depth = Math.log2(Math.max(many, 1));
    if (height * width === 1) return {width: 9, height: 9 * depth + 6, depth: 3};
    return {width: Math.max(width * scale, 3), height: Math.max(height * scale, 3), depth: 2.4 * depth + 2};
  }

  /** A slab that stands on the line `floor`. */
  function slab(x, floor, {width, height, depth}, kind) {
    const y = floor - height, lift = LIFT * depth, [near, far] = [x + width, x + width + depth];
    const points = list => list.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ");
    return draw("g", {class: `slab ${kind}`},
      draw("polygon", {class: "side", points: points([[near, y], [far, y - lift], [far, floor - lift], [near, floor]])}),
      draw("polygon", {class: "top", points: points([[x, y], [x + depth, y - lift], [far, y - lift], [near, y]])}),
      draw("rect", {class: "face", x, y, width, height}));
  }

  /** The picture's outline, and in its middle what one unit sees of it. */
  function seen(x, floor, row, [, height, width]) {
    const scale = OUTLINE / Math.max(height, width), y = floor + 52;
    const [w, h] = row.field === null ? [width, height] : [Math.min(row.field, width), Math.min(row.field, height)];
    const [cx, cy] = [x + width * scale / 2, y + height * scale / 2];
    return draw("g", {class: "seen"},
      draw("rect", {class: "outline", x, y, width: width * scale, height: height * scale}),
      draw("rect", {class: "field", x: cx - w * scale / 2, y: cy - h * scale / 2,
        width: Math.max(w * scale, 1), height: Math.max(h * scale, 1)}));
  }

  const short = text => text.length > 11 ? text.slice(0, 10) + "…" : text;

  function column(row, x, floor, size, room, network) {
    const sees = row.field && !row.input ? `, sees ${row.field} × ${row.field} pixels` : "";
    const about = `${row.name}: ${row.shape.join(" × ")}${sees}`;
    const inside = [draw("title", {}, about), draw("rect", {class: "hit", x: x - 8, y: 0, width: room, height: floor + 100}),
      slab(x, floor, size, row.input ? "input" : row.page ? "paged" : "plain"),
      draw("text", {class: "name", x, y: floor + 20}, short(row.name)),
      draw("text", {class: "shape", x, y: floor + 37}, row.shape.join("×")),
      row.input ? null : seen(x, floor, row, network.input)];
    if (!row.page) return draw("g", {}, inside);
    return draw("a", {href: atlas.route.layerAddress(row.name), "aria-label": about}, inside);
  }

  /** SVG of the network; its slabs with pages are links. */
  function show(network) {
    const scale = LARGEST / Math.max(network.input[1] || 1, network.input[2] || 1);
    const rows = slabs(network).map(row => [row, measure(row, scale)]);
    const floor = 6 + Math.max(...rows.map(([, {height, depth}]) => height + LIFT * depth));
    let x = 10;
    const columns = rows.map(([row, size]) => {
      const room = Math.max(size.width + size.depth + GAP, NARROWEST), here = x;
      x += room;
      return column(row, here, floor, size, room, network);
    });
    return draw("svg", {class: "drawing", role: "group", "aria-label": "the layers, drawn to scale", width: x,
      height: floor + 104,
      viewBox: `0 0 ${x} ${floor + 104}`}, columns);
  }

  atlas.drawing = {show};
})();
