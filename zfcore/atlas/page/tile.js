"use strict";
/* Tiles: cuttings of sprite sheets, shown by CSS alone; a sheet is loaded when the first of its tiles comes near the screen. */
(() => {
  const {make, link, name} = atlas.dom;
  const SMALL = 24;                      // pixels of the picture
  const sheets = new WeakMap();
  const near = new IntersectionObserver(entries => {
    for (const {target, isIntersecting} of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      paint(target);
    }
  }, {rootMargin: "400px"});

  function paint(tile) {
    tile.style.backgroundImage = `url("${atlas.store.file(sheets.get(tile))}")`;
  }

  /** The tile at (column, row) of the sheet `file` with so many columns; `label` is its text for those who do not see it. */
  function cut(file, columns, column, row, label) {
    const tile = make("span",
      {class: "tile", role: "img", "aria-label": label, "--columns": columns, "--column": column, "--row": row});
    sheets.set(tile, file);
    near.observe(tile);
    return tile;
  }

  /** Another sheet for a tile, of the same places. */
  function change(tile, file, label) {
    sheets.set(tile, file);
    tile.setAttribute("aria-label", label);
    if (tile.style.backgroundImage) paint(tile);
  }

  /** Tile of the unit at `position` of a layer: strongest, mean or patch. */
  function ofUnit(layer, position, kind = "strongest") {
    const {columns} = layer.tiles;
    return cut(layer.tiles[kind], columns, position % columns, Math.floor(position / columns), label(layer, position, kind));
  }

  const KINDS = {strongest: "projection", mean: "mean projection", patch: "patch"};
  const label = (layer, position, kind) => atlas.words.alt(KINDS[kind], layer.units[position], layer.name) +
    (layer.dead[position] ? ", which never fires" : `, strongest activation ${atlas.words.number(layer.strength[position])}`);

  /** Tile of one of the sheets that hold a few rows each: {rows, columns} and their files. */
  const ofRow = (files, {rows, columns}, position, column, label) =>
    cut(files[Math.floor(position / rows)], columns, column, position % rows, label);

  /** A unit as a link: its tile, or its number alone where the layer does not show it; with lines of text below. */
  function unitLink(layer, unit, ...lines) {
    const position = layer ? layer.units.indexOf(unit) : -1;
    const seen = position < 0 ? make("span", {class: "tile empty"}) : ofUnit(layer, position);
    const text = [make("span", {class: "number"}, String(unit)), ...lines.map(line => make("span", {class: "line"}, line))];
    return toUnit(layer && layer.name, unit, seen, text);
  }

  /** What stands for a unit, as a link where the unit has a page. */
  function toUnit(layer, unit, ...inside) {
    if (!atlas.store.shows(layer, unit)) {
      return make("span", {class: "unit", tabindex: "0", title: "This unit has no page in this atlas"}, inside);
    }
    const anchor = link(atlas.route.unitAddress(layer, unit), inside);
    anchor.className = "unit";
    return anchor;
  }

  /** Side in CSS pixels of tiles of `side` that are to be about `wanted`: whole multiples, for even pixels. */
  const size = (side, wanted) => `${side * Math.max(1, Math.round(wanted / side))}px`;

  /** Class of tiles whose pixels are to be seen as squares: those of small fields, which are enlarged. */
  const crisp = entry => entry.field !== null && entry.field < SMALL ? "crisp" : null;

  atlas.tile = {cut, change, label, ofUnit, ofRow, unitLink, toUnit, size, crisp};
})();
