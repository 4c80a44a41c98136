"use strict";
/* Figure 2 of the paper for one unit: its strongest pictures, each a projection over the patch that it is of, and the place. */
(() => {
  const {make, put, name} = atlas.dom, {number, className} = atlas.words;
  let mix = 0;                          // 0: projections, 1: patches; kept from unit to unit

  /** What is known of the picture of this rank. */
  function about(layer, position, rank, whole) {
    const picture = layer.pictures[position][rank], label = whole ? whole.labels[picture] : undefined;
    return {picture, value: layer.values[position][rank], box: layer.boxes[position][rank],
      name: whole ? whole.names[picture] : undefined, class: label === undefined ? null : className(label)};
  }

  function pair(layer, position, rank, one, choose) {
    const unit = layer.units[position], {sheets} = layer, title = one.name || `number ${one.picture}`;
    const half = kind => make("span", {class: `half ${kind}`}, atlas.tile.ofRow(sheets[kind], sheets, position, rank,
      atlas.words.alt(kind, unit, layer.name, title, one.value)));
    const button = make("button", {type: "button", class: "pair", "aria-pressed": "false", onclick: () => choose(rank)},
      half("patch"), half("projection"));
    for (const kind of ["mouseenter", "focus"]) button.addEventListener(kind, () => choose(rank));
    return button;
  }

  /** The whole picture with the box of what the unit sees in it, cut at the border. */
  function picture(layer, position, rank, one, whole) {
    const tile = wholeTile(layer, position, rank, one, whole);
    if (!tile) return make("p", {class: "faint"}, "The whole picture is not kept in this atlas.");
    const [, height, width] = atlas.store.network.input, [top, left, bottom, right] = one.box;
    const inside = (x, most) => Math.min(Math.max(x, 0), most);
    const all = top <= 0 && left <= 0 && bottom >= height && right >= width;
    const box = all ? null : make("span", {class: "box",
      "--top": inside(top, height) / height, "--left": inside(left, width) / width,
      "--bottom": 1 - inside(bottom, height) / height, "--right": 1 - inside(right, width) / width});
    return make("span", {class: "whole"}, tile, box);
  }

  function wholeTile(layer, position, rank, one, whole) {
    const label = `the whole picture ${one.name || one.picture}`;
    if (layer.whole) return atlas.tile.ofRow(layer.sheets.patch, layer.sheets, position, rank, label);
    const place = whole && whole.place[one.picture];
    if (place === undefined || place === null) return null;
    const each = whole.columns * whole.rows, within = place % each;
    const [column, row] = [within % whole.columns, Math.floor(within / whole.columns)];
    return atlas.tile.cut(whole.files[Math.floor(place / each)], whole.columns, column, row, label);
  }

  const told = (rank, one) => make("p", {class: "told"}, make("strong", {}, `${rank + 1}. ${number(one.value)}`), " ",
    one.class === null ? null : [name(one.class), " "],
    make("span", {class: "faint"}, name(one.name || `picture ${one.picture}`)));

  function slider(set) {
    return make("label", {class: "slider"}, make("span", {}, "Projection"),
      make("input", {type: "range", id: "mix", min: 0, max: 100, step: 5, value: 100 * mix,
        "aria-label": "from projection to patch",
        oninput: event => { mix = event.target.value / 100; set(); }}), make("span", {}, "Patch"));
  }

  /** The pairs of the unit at `position`, with slider and picture. */
  function show(layer, position, whole) {
    const ranks = [...layer.pictures[position].keys()].filter(rank => layer.pictures[position][rank] >= 0);
    const all = new Map(ranks.map(rank => [rank, about(layer, position, rank, whole)]));
    const beside = make("figure", {class: "beside", "aria-live": "polite"}), buttons = new Map();
    function choose(rank) {
      for (const [one, button] of buttons) button.setAttribute("aria-pressed", String(one === rank));
      put(beside, picture(layer, position, rank, all.get(rank), whole),
        make("figcaption", {}, told(rank, all.get(rank))));
    }
    for (const rank of ranks) buttons.set(rank, pair(layer, position, rank, all.get(rank), choose));
    const grid = make("div", {class: "pairs", "--mix": mix}, [...buttons.values()]);
    if (ranks.length) choose(ranks[0]);
    return make("div", {class: "figure2", "--size": atlas.tile.size(layer.sheets.side, 180)},
      make("div", {}, slider(() => grid.style.setProperty("--mix", mix)), grid), beside);
  }

  atlas.pairs = {show};
})();
