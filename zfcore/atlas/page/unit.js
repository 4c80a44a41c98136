"use strict";
/* The page of a unit: what excites it, of which classes that is, how it came about, what feeds it, whether to believe it. */
(() => {
  const {make, link, name, section} = atlas.dom, {number, cosine, percent, className, alt} = atlas.words;

  const step = (layer, position) => position < 0 || position >= layer.units.length ? null
    : atlas.route.unitAddress(layer.name, layer.units[position]);

  function heading(layer, position) {
    const arrow = (address, text, label) => address ? make("a", {href: address, class: "step", "aria-label": label}, text)
      : make("span", {class: "step"}, text);
    const above = link(atlas.route.layerAddress(layer.name), name(layer.name));
    const title = make("h1", {}, above, ` / unit ${layer.units[position]}`);
    return make("div", {class: "heading"}, title,
      make("nav", {"aria-label": "Units", class: "steps"}, arrow(step(layer, position - 1), "←", "unit before"),
        make("span", {class: "faint"}, `${position + 1} of ${layer.units.length}`),
        arrow(step(layer, position + 1), "→", "unit after")));
  }

  function lead(entry, layer, position) {
    if (layer.dead[position]) {
      return make("p", {class: "lead"}, "This unit never fires: no picture excites it, so there is nothing to show.");
    }
    const k = className(layer.common ? layer.common[position] : -1), own = className(layer.class ? layer.class[position] : -1);
    return make("p", {class: "lead"}, own === null ? null : ["It stands for the class ", make("strong", {}, name(own)), ". "],
      `It sees ${atlas.words.field(entry)}; strongest activation ${number(layer.strength[position])}. `,
      k === null ? null : ["Most common among its strongest pictures: ", make("strong", {}, name(k)),
        layer.selectivity ? `, selectivity ${number(layer.selectivity[position])}. ` : ". "]);
  }

  /** Classes of the strongest pictures, with the share that each has of all pictures. */
  function histogram(layer, position) {
    const row = layer.histogram && layer.histogram[position], all = layer.counted && layer.counted[position];
    if (!row || !row.length || !all) return null;
    const {shares} = atlas.store.network;
    const rows = row.map(([k, count]) => ({
      name: name(className(k) ?? `class ${k}`), share: count / all, text: percent(count / all), mark: shares ? shares[k] : undefined}));
    return section(`Classes of its ${all} strongest pictures`, atlas.bars.shares("classes of the strongest pictures", rows),
      shares ? make("p", {class: "faint"}, "The stroke: the share that the class has of all pictures.") : null);
  }

  function evolution(layer, position) {
    const {evolution} = layer;
    if (!evolution) return null;
    const label = epoch => alt(`projection after epoch ${epoch}`, layer.units[position], layer.name);
    return section("How it came about",
      make("p", {class: "faint"}, "Projection of its strongest picture after these epochs of training, with the activation."),
      make("div", {class: "row"}, evolution.epochs.map((epoch, k) => make("figure", {},
        atlas.tile.ofRow(evolution.sheets, evolution, position, k, label(epoch)),
        make("figcaption", {}, `epoch ${epoch}`, make("span", {class: "line"}, number(evolution.values[position][k])))))));
  }

  /** Units of another layer with their weights, each by its own tile. */
  function weights(title, text, list, other) {
    if (!list || !list.length) return null;
    const most = Math.max(...list.map(([, weight]) => Math.abs(weight)));
    const tiles = list.map(([unit, weight]) => atlas.tile.unitLink(other, unit, atlas.bars.signed(weight, most)));
    return section(title, make("p", {class: "faint"}, text), make("div", {class: "row units", ...size(other)}, tiles));
  }

  const size = layer => layer ? {"--size": atlas.tile.size(layer.tiles.side, 96)} : {};

  function alike(layer, position) {
    const list = layer.alike[position];
    if (!list.length) return null;
    const again = () => atlas.layerPage.likenessTo(layer, layer.units[position]);
    const sorted = make("a", {href: atlas.route.layerAddress(layer.name), onclick: again},
      "the whole layer by likeness to this unit");
    const tiles = list.map(([one, value]) => atlas.tile.unitLink(layer, layer.units[one], cosine(value)));
    return section("Units that look alike",
      make("p", {class: "faint"}, "Cosine of their projections and this one's; ", sorted, "."),
      make("div", {class: "row units", ...size(layer)}, tiles));
  }

  function checks(layer, position) {
    const {checks} = layer, values = checks && checks.cosine[position];
    if (!values) return null;
    const label = condition => alt(`projection, ${condition},`, layer.units[position], layer.name);
    return section("Is it the unit, or only the picture?", make("p", {class: "faint"},
      "The projection as trained, and of the same picture by controls that know less of this unit. A control that looks the " +
      "same (cosine near 1) would mean that the projection shows the picture's edges and not what the unit learnt; the " +
      "nearer to 0, the more of it is the unit's own."),
      make("div", {class: "row"}, checks.conditions.map((condition, k) => make("figure", {},
        atlas.tile.ofRow(checks.sheets, checks, position, k, label(condition)),
        make("figcaption", {}, condition, make("span", {class: "line"}, k ? `cosine ${cosine(values[k])}` : ""))))));
  }

  /** Data that a page can do without: null where they are missing. */
  const perhaps = promise => promise.catch(() => null);
  const beside = other => other && atlas.store.entry(other) ? perhaps(atlas.store.layer(other)) : null;

  async function show(entry, unit) {
    const layer = await atlas.store.layer(entry.name), position = /^\d+$/.test(unit) ? layer.units.indexOf(Number(unit)) : -1;
    if (position < 0) throw new Error(`${layer.name} shows no unit ${unit}: choose one of its ${layer.units.length}.`);
    const [below, above, whole] = await Promise.all([beside(layer.below), beside(layer.above), perhaps(atlas.store.whole())]);
    const at = list => list && list[position], dead = layer.dead[position];
    return {title: `${layer.name}/${unit}`, back: atlas.route.layerAddress(layer.name), search: atlas.route.layerAddress(layer.name),
      left: step(layer, position - 1), right: step(layer, position + 1),
      up: atlas.route.pageOf(layer.above), down: atlas.route.pageOf(layer.below),
      node: make("div", {class: atlas.tile.crisp(entry), "--size": atlas.tile.size(layer.sheets.side, 96)},
        heading(layer, position), lead(entry, layer, position), dead ? null : atlas.pairs.show(layer, position, whole),
        make("div", {class: "halves"}, dead ? null : histogram(layer, position), dead ? null : evolution(layer, position),
        weights("What feeds it", `Units of ${layer.below} with the largest weights into it: blue to the right excites, ` +
          "orange to the left inhibits.", at(layer.inputs), below),
        weights("What it feeds", `Units of ${layer.above} with the largest weights from it.`, at(layer.outputs), above),
        dead ? null : alike(layer, position), checks(layer, position)))};
  }

  atlas.unitPage = {show};
})();
