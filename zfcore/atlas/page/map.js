"use strict";
/* The units of a layer as a map: near each other, where their projections are alike. Zooming spreads it; it is moved as any page is. */
(() => {
  const {make, link} = atlas.dom;
  const NEAREST = 8;

  function place(layer, position, told) {
    const [x, y] = layer.map[position], unit = layer.units[position];
    const anchor = link(atlas.route.unitAddress(layer.name, unit), atlas.tile.ofUnit(layer, position));
    anchor.style.setProperty("--x", x);
    anchor.style.setProperty("--y", y);
    anchor.title = `unit ${unit}`;
    for (const kind of ["mouseenter", "focus"]) anchor.addEventListener(kind, () => told(position));
    return anchor;
  }

  /** Spread the map so many times, with what is in the middle of the window staying there. */
  function zoomTo(frame, land, zoom) {
    const [x, y] = [(frame.scrollLeft + frame.clientWidth / 2) / frame.scrollWidth, (frame.scrollTop + frame.clientHeight / 2) / frame.scrollHeight];
    land.style.setProperty("--zoom", zoom);
    frame.scrollLeft = x * frame.scrollWidth - frame.clientWidth / 2;
    frame.scrollTop = y * frame.scrollHeight - frame.clientHeight / 2;
  }

  /** Map of the units at `positions`; `about` gives the text beside a hovered one. */
  function show(layer, positions, about) {
    const told = make("p", {class: "told", "aria-live": "polite"}, "Units whose projections are alike lie near each other.");
    const tell = position => told.replaceChildren(...[about(position)].flat(9));
    const land = make("div", {class: "land", "--zoom": 1}, positions.map(position => place(layer, position, tell)));
    const frame = make("div", {class: "frame", tabindex: "0", role: "region", "aria-label": "map of the units", "data-keys": "own"}, land);
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

  atlas.map = {show};
})();
