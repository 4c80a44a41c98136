"use strict";
/* The page of a layer: all its units as tiles or as a map, sorted, and searched by class. */
(() => {
  const {make, put, name, choice} = atlas.dom, {plural, number, percent, className, field} = atlas.words;
  const states = new Map();              // name of a layer -> how it was looked at; for coming back from a unit

  const fresh = layer => ({kind: "strongest", order: "number", find: "", like: layer.units[0], view: "tiles"});

  const falling = values => (a, b) => (values[b] ?? -Infinity) - (values[a] ?? -Infinity) || a - b;

  /** Class that a unit speaks of: its own in the last layer, else the commonest among its strongest pictures; -1: none. */
  const classOf = (layer, position) => layer.class ? layer.class[position] : layer.common ? layer.common[position] : -1;

  /** Share of the class `k` among the strongest pictures of a unit, or null where that is not known. */
  function share(layer, position, k) {
    const row = layer.histogram && layer.histogram[position], found = row && row.find(([one]) => one === k);
    return found && layer.counted && layer.counted[position] ? found[1] / layer.counted[position] : null;
  }

  /** Distance of two units on the map, or more than any where it does not show them. */
  function distance(layer, p, q) {
    if (!layer.map || layer.map[p][0] === null || layer.map[q][0] === null) return 2;
    return Math.hypot(layer.map[p][0] - layer.map[q][0], layer.map[p][1] - layer.map[q][1]);
  }

  /** How near a unit is to the one at `goal`: by the cosines that are kept, then by the distance on the map. */
  function nearness(layer, goal) {
    const near = new Map(layer.alike[goal]);
    return layer.units.map((_, p) => {
      if (p === goal) return 9;
      if (near.has(p)) return 2 + near.get(p);
      const back = layer.alike[p].find(([one]) => one === goal);
      return back ? 2 + back[1] : -distance(layer, p, goal);
    });
  }

  const ORDERS = {
    number: {text: "number", by: () => (a, b) => a - b,
      line: (layer, p) => layer.class ? className(layer.class[p]) : null},
    selectivity: {text: "selectivity", by: layer => falling(layer.selectivity),
      line: (layer, p) => number(layer.selectivity[p])},
    strength: {text: "strongest activation", by: layer => falling(layer.strength),
      line: (layer, p) => number(layer.strength[p])},
    class: {text: "class", by: layer => byClass(layer), line: (layer, p) => className(classOf(layer, p))},
    likeness: {text: "likeness to a unit",
      by: (layer, state) => falling(nearness(layer, Math.max(layer.units.indexOf(state.like), 0))),
      line: (layer, p, state) => {
        const found = layer.alike[Math.max(layer.units.indexOf(state.like), 0)].find(([one]) => one === p);
        return found ? number(found[1]) : null;
      }}};

  function byClass(layer) {
    const key = layer.units.map((_, p) => className(classOf(layer, p))), {compare} = new Intl.Collator("en");
    return (a, b) => (key[a] === null) - (key[b] === null) || compare(key[a], key[b]) || a - b;
  }

  function orders(layer) {
    const known = {selectivity: Boolean(layer.selectivity), class: hasClasses(layer)};
    return Object.keys(ORDERS).filter(order => known[order] !== false);
  }

  const hasClasses = layer => Boolean(layer.common || layer.class);

  /** Does the class's name hold the text, whatever the case? */
  const matches = (text, k) => className(k) !== null && className(k).toLowerCase().includes(text.toLowerCase());

  /** Positions to show, in order. */
  function chosen(layer, state) {
    const all = layer.units.map((_, p) => p);
    if (!state.find) return all.sort(ORDERS[state.order].by(layer, state));
    const shares = all.map(p => share(layer, p, classOf(layer, p)) ?? (layer.selectivity ? layer.selectivity[p] : 0));
    return all.filter(p => matches(state.find, classOf(layer, p))).sort(falling(shares));
  }

  function lineOf(layer, p, state) {
    if (layer.dead[p]) return "dead";
    if (!state.find) return ORDERS[state.order].line(layer, p, state);
    const part = share(layer, p, classOf(layer, p));
    return [className(classOf(layer, p)), part === null ? null : percent(part)].filter(Boolean).join(" ");
  }

  function tileOf(layer, p, state) {
    const line = lineOf(layer, p, state);
    const anchor = atlas.dom.link(atlas.route.unitAddress(layer.name, layer.units[p]), atlas.tile.ofUnit(layer, p, state.kind),
      make("span", {class: "number"}, String(layer.units[p])), line ? make("span", {class: "line"}, name(line)) : null);
    anchor.className = layer.dead[p] ? "unit dead" : "unit";
    return anchor;
  }

  /** Text beside a unit of the map. */
  function about(layer, p) {
    const k = className(classOf(layer, p));
    return [`Unit ${layer.units[p]}`, layer.dead[p] ? ", never fires" : `, strongest activation ${number(layer.strength[p])}`,
      k === null ? null : [", mostly ", name(k)]];
  }

  function said(layer, state, positions) {
    if (!state.find) return plural(positions.length, "unit");
    return [`${positions.length} of ${plural(layer.units.length, "unit")}: the class has “`, name(state.find),
      "” in its name"];
  }

  /** Controls, and the tiles or the map that they change. */
  function browser(layer, state) {
    const told = make("p", {class: "told", role: "status"}), grid = make("div", {class: "grid"});
    function fill() {
      const positions = chosen(layer, state);
      put(told, said(layer, state, positions));
      const map = state.view === "map" && layer.map;
      grid.className = map ? "mapped" : "grid";
      put(grid, map ? atlas.map.show(layer, positions, p => about(layer, p)) : positions.map(p => tileOf(layer, p, state)));
    }
    const set = (key, value) => { state[key] = value; fill(); };
    fill();
    return [make("div", {class: "controls"}, controls(layer, state, set)), told, grid];
  }

  function controls(layer, state, set) {
    const like = make("label", {hidden: state.order !== "likeness"}, "Unit ", make("input", {
      type: "number", id: "like", min: 0, value: state.like,
      oninput: event => set("like", Number(event.target.value))}));
    const order = make("label", {}, "Sort by ", make("select", {id: "order", onchange: event => {
      like.hidden = event.target.value !== "likeness";
      set("order", event.target.value);
    }}, orders(layer).map(one => make("option", {value: one, selected: one === state.order}, ORDERS[one].text))));
    const search = make("label", {}, "Class ", make("input", {
      type: "search", id: "search", value: state.find, placeholder: "dog", autocomplete: "off",
      oninput: event => set("find", event.target.value.trim())}));
    const kinds = [["strongest", "Projection"], ["mean", "Mean"], ["patch", "Patch"]].filter(([kind]) => layer.tiles[kind]);
    return [choice("Shown", kinds, state.kind, kind => set("kind", kind)),
      order, like, hasClasses(layer) ? search : null,
      layer.map ? choice("Arranged", [["tiles", "Tiles"], ["map", "Map"]], state.view, view => set("view", view)) : null];
  }

  function describe(entry, layer) {
    const dead = layer.dead.filter(Boolean).length;
    const all = plural(layer.shown_of, "unit"), {length} = layer.units;
    const shown = length === layer.shown_of ? all : `${length} of ${all}`;
    return make("p", {class: "lead"}, `${shown}; each sees ${field(entry)}. `,
      dead ? `${dead === 1 ? "One" : dead} of them never ${dead === 1 ? "fires" : "fire"}. ` : "",
      hasClasses(layer) ? "" : "The pictures carry no classes, so units cannot be searched by class. ");
  }

  async function show(entry) {
    const layer = await atlas.store.layer(entry.name);
    if (!states.has(layer.name)) states.set(layer.name, fresh(layer));
    return {title: layer.name, back: "#", up: atlas.route.pageOf(layer.above), down: atlas.route.pageOf(layer.below),
      node: make("div", {"--size": atlas.tile.size(layer.tiles.side, 96), class: atlas.tile.crisp(entry)},
        make("h1", {}, name(layer.name)), describe(entry, layer), browser(layer, states.get(layer.name)))};
  }

  /** Sort a layer by likeness to a unit when it is next shown. */
  const likenessTo = (layer, unit) => states.set(layer.name, {...fresh(layer), order: "likeness", like: unit});

  atlas.layerPage = {show, classOf, share, likenessTo};
})();
