"use strict";
/* The units of a layer as a map: near each other where their projections are alike. Zooming spreads it. */
(() => {
  const {make, put, link} = atlas.dom;
  const NEAREST = 8, LARGEST = 56, SMALLEST = 24, ROOM = 600;

  /** Side in pixels of the tiles of so many units: many are small, until they are spread. */
  const side = (many, zoom) => Math.round(Math.min(Math.max(ROOM / Math.sqrt(many), SMALLEST) * Math.sqrt(zoom), LARGEST));

  function place(layer, position, kind, told) {
    const [x, y] = layer.map[position], unit = layer.units[position];
    const anchor = link(atlas.route.unitAddress(layer.name, unit), atlas.tile.ofUnit(layer, position, kind));
    anchor.style.setProperty("--x", x);
    anchor.style.setProperty("--y", y);
    anchor.title = `unit ${unit}`;
    for (const kind of ["mouseenter", "focus"]) anchor.addEventListener(kind, () => told(position));
    return anchor;
  }

  /** Spread the map so many times, with what is in the middle of the window staying there. */
  function zoomTo(frame, land, zoom) {
    const x = (frame.scrollLeft + frame.clientWidth / 2) / frame.scrollWidth;
    const y = (frame.scrollTop + frame.clientHeight / 2) / frame.scrollHeight;
    land.style.setProperty("--zoom", zoom);
    land.style.setProperty("--size", `${side(land.children.length, zoom)}px`);
    frame.scrollLeft = x * frame.scrollWidth - frame.clientWidth / 2;
    frame.scrollTop = y * frame.scrollHeight - frame.clientHeight / 2;
  }

  /** Does the map of a layer have a place for the unit? */
  const has = (layer, position) => layer.map[position][0] !== null;

  /** Map of the units at `positions`, for which it has a place; `about` gives the text beside a hovered one. */
  function show(layer, positions, kind, about) {
    const told = make("p", {class: "told", "aria-live": "polite"}, "Units whose projections are alike lie near each other.");
    const tell = position => put(told, about(position));
    const land = make("div", {class: "land", "--zoom": 1, "--size": `${side(positions.length, 1)}px`},
      positions.map(position => place(layer, position, kind, tell)));
    const frame = make("div",
      {class: "frame", tabindex: "0", role: "region", "aria-label": "map of the units", "data-keys": "own"}, land);
    let zoom = 1;
    const step = factor => { zoom = Math.min(Math.max(zoom * factor, 1), NEAREST); zoomTo(frame, land, zoom); };
    frame.addEventListener("wheel", event => {
      if (!event.ctrlKey) return;                    // without it, the wheel scrolls
      event.preventDefault();
      step(event.deltaY < 0 ? 1.25 : 0.8);
    }, {passive: false});
    const buttons = [["−", "Zoom out", 2 / 3], ["+", "Zoom in", 1.5]].map(([text, label, factor]) =>
      make("button", {type: "button", "aria-label": label, onclick: () => step(factor)}, text));
    return make("div", {class: "map"}, make("div", {class: "bar"}, told, make("div", {class: "choice"}, buttons)), frame);
  }

  atlas.map = {has, show};
})();
