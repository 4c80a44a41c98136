"use strict";
/* The page of a layer: all its units as tiles or as a map, sorted, and searched by class. */
(() => {
  const {make, put, name, choice, trouble} = atlas.dom, {plural, number, cosine, percent, className, field} = atlas.words;
  const states = new Map();              // name of a layer -> how it was looked at; for coming back from a unit

  const fresh = layer => ({kind: "strongest", order: "number", find: "", view: "tiles",
    like: layer.units.find((_, p) => !layer.dead[p]) ?? layer.units[0]});

  const falling = values => (a, b) => (values[b] ?? -Infinity) - (values[a] ?? -Infinity) || a - b;

  /** Class that a unit speaks of: its own in the last layer, else the commonest among its strongest pictures; -1: none. */
  const classOf = (layer, position) => layer.class ? layer.class[position] : layer.common ? layer.common[position] : -1;

  /** Share of the class `k` among the strongest pictures of a unit, or null where that is not known. */
  function share(layer, position, k) {
    const row = layer.histogram && layer.histogram[position], found = row && row.find(([one]) => one === k);
    return found && layer.counted && layer.counted[position] ? found[1] / layer.counted[position] : null;
  }

  /** Cosines, of which the unit's own with itself is above all. */
  const nearness = (layer, {like}, cosines) => cosines.map((value, p) => layer.units[p] === like ? Infinity : value);

  // `cosines` are those with the unit that others are to be like
  const ORDERS = {
    number: {text: "number", by: () => (a, b) => a - b,
      line: (layer, p) => layer.class ? className(layer.class[p]) : null},
    selectivity: {text: "selectivity", by: layer => falling(layer.selectivity),
      line: (layer, p) => number(layer.selectivity[p])},
    strength: {text: "strongest activation", by: layer => falling(layer.strength),
      line: (layer, p) => number(layer.strength[p])},
    class: {text: "class", by: layer => byClass(layer), line: (layer, p) => className(classOf(layer, p))},
    likeness: {text: "likeness to a unit",
      by: (layer, state, cosines) => falling(nearness(layer, state, cosines)),
      line: (layer, p, state, cosines) => layer.units[p] === state.like ? "this one" : cosine(cosines[p])}};

  const mapped = (layer, state) => state.view === "map" && Boolean(layer.map);

  /** Do units stand in the order of the choice? A map has places, and a search puts those first that are most of the class. */
  const sorts = (layer, state) => !mapped(layer, state) && !state.find;

  function byClass(layer) {
    const key = layer.units.map((_, p) => className(classOf(layer, p))), {compare} = new Intl.Collator("en");
    return (a, b) => (key[a] === null) - (key[b] === null) || compare(key[a], key[b]) || a - b;
  }

  function orders(layer) {
    const known = {selectivity: Boolean(layer.selectivity?.some(one => one !== null)), class: hasClasses(layer)};
    return Object.keys(ORDERS).filter(order => known[order] !== false);
  }

  /** Is there a unit that speaks of a class? */
  const hasClasses = layer => layer.units.some((_, p) => classOf(layer, p) >= 0);

  /** Does the class's name hold the text, whatever the case? */
  const matches = (text, k) => className(k) !== null && className(k).toLowerCase().includes(text.toLowerCase());

  /** Positions to show, in order. */
  function chosen(layer, state, cosines) {
    const all = layer.units.map((_, p) => p).filter(p => !mapped(layer, state) || atlas.map.has(layer, p));
    if (sorts(layer, state)) return all.sort(ORDERS[state.order].by(layer, state, cosines));
    if (!state.find) return all;
    const shares = layer.units.map((_, p) => share(layer, p, classOf(layer, p)));
    return all.filter(p => matches(state.find, classOf(layer, p))).sort(falling(shares));
  }

  function lineOf(layer, p, state, cosines) {
    if (layer.dead[p]) return "dead";
    if (!state.find) return ORDERS[state.order].line(layer, p, state, cosines);
    const part = share(layer, p, classOf(layer, p));
    return [className(classOf(layer, p)), part === null ? null : percent(part)].filter(Boolean).join(" ");
  }

  function tileOf(layer, p, state, cosines) {
    const line = lineOf(layer, p, state, cosines);
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
    const all = plural(layer.units.length, "unit");
    if (!state.find && positions.length === layer.units.length) return all;
    if (!state.find) return `${positions.length} of ${all}: the others have no projection`;
    return [`${positions.length} of ${all}: the class has “`, name(state.find),
      "” in its name"];
  }

  /** Controls, and the tiles or the map that they change. */
  async function browser(layer, state) {
    const told = make("p", {class: "told", role: "status"}), grid = make("div", {class: "grid"});
    let turns = 0;
    function show(cosines) {
      const positions = chosen(layer, state, cosines), map = mapped(layer, state);
      put(told, said(layer, state, positions));
      grid.className = map ? "mapped" : "grid";
      put(grid, map ? atlas.map.show(layer, positions, state.kind, p => about(layer, p))
        : positions.map(p => tileOf(layer, p, state, cosines)));
    }
    function tell(error) {
      put(told);
      grid.className = "";
      put(grid, trouble(error));
    }
    async function fill() {
      const turn = ++turns;
      if (state.order !== "likeness" || !sorts(layer, state)) return show();
      const why = atlas.likeness.why(layer, state.like);
      try {
        if (why) throw new Error(why);
        const cosines = await atlas.likeness.cosines(layer, layer.units.indexOf(state.like));
        if (turn === turns) show(cosines);
      } catch (error) {
        if (turn === turns) tell(error);
      }
    }
    const set = (key, value) => { state[key] = value; return fill(); };
    await fill();
    return [make("div", {class: "controls"}, controls(layer, state, set)), told, grid];
  }

  function controls(layer, state, set) {
    const change = (key, value) => { set(key, value); fit(); };
    const like = make("label", {}, "Unit ", make("input", {type: "number", id: "like", min: 0, value: state.like,
      oninput: event => change("like", event.target.valueAsNumber)}));
    const order = make("select", {id: "order", onchange: event => change("order", event.target.value)},
      orders(layer).map(one => make("option", {value: one, selected: one === state.order}, ORDERS[one].text)));
    const fit = () => {
      order.disabled = !sorts(layer, state);
      like.hidden = order.disabled || state.order !== "likeness";
    };
    fit();
    const search = make("label", {}, "Class ", make("input", {
      type: "search", id: "search", value: state.find, placeholder: "dog", autocomplete: "off",
      oninput: event => change("find", event.target.value.trim())}));
    const kinds = [["strongest", "Projection"], ["mean", "Mean"], ["patch", "Patch"]].filter(([kind]) => layer.tiles[kind]);
    return [choice("Shown", kinds, state.kind, kind => change("kind", kind)),
      make("label", {}, "Sort by ", order), like, hasClasses(layer) ? search : null,
      layer.map ? choice("Arranged", [["tiles", "Tiles"], ["map", "Map"]], state.view, view => change("view", view)) : null];
  }

  function describe(entry, layer) {
    const dead = layer.dead.filter(Boolean).length;
    const all = plural(layer.shown_of, "unit"), {length} = layer.units;
    const shown = length === layer.shown_of ? all : `${length} of ${all}`;
    return make("p", {class: "lead"}, `${shown}; each sees ${field(entry)}. `,
      dead ? `${dead === 1 ? "One" : dead} of them never ${dead === 1 ? "fires" : "fire"}. ` : "",
      hasClasses(layer) ? "" : `${layer.common ? "Too few pictures make a unit fire to say of which class they are"
        : "The pictures carry no classes"}, so units cannot be searched by class. `);
  }

  async function show(entry) {
    const layer = await atlas.store.layer(entry.name);
    if (!states.has(layer.name)) states.set(layer.name, fresh(layer));
    const inside = await browser(layer, states.get(layer.name));
    return {title: layer.name, back: "#", up: atlas.route.pageOf(layer.above), down: atlas.route.pageOf(layer.below),
      node: make("div", {"--size": atlas.tile.size(layer.tiles.side, 96), class: atlas.tile.crisp(entry)},
        make("h1", {}, name(layer.name)), describe(entry, layer), inside)};
  }

  /** Sort a layer by likeness to a unit when it is next shown. */
  const likenessTo = (layer, unit) => states.set(layer.name, {...fresh(layer), order: "likeness", like: unit});

  atlas.layerPage = {show, classOf, share, likenessTo};
})();
