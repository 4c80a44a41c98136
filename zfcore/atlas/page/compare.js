"use strict";
/* Two networks side by side: each unit beside the unit of the other that fires at the same pictures. */
(() => {
  const {make, link, name, section} = atlas.dom, {cosine} = atlas.words;

  const means = compare => atlas.bars.shares("mean correlation of each layer", compare.layers.map(layer => ({
    name: link(atlas.route.compareAddress(layer.name), name(layer.name),
      layer.other === layer.name ? null : [" ↔ ", name(layer.other)]),
    share: Math.max(layer.mean ?? 0, 0), text: cosine(layer.mean)})));

  function side(tiles, position, label) {
    const at = [position % tiles.columns, Math.floor(position / tiles.columns)];
    const cut = (kind, what) => atlas.tile.cut(tiles[kind], tiles.columns, ...at, `${what} of ${label}`);
    return make("span", {class: "two"}, cut("strongest", "projection"), cut("patch", "patch"));
  }

  function pair(found, position, compare) {
    const unit = found.units[position], match = found.matches[position];
    return make("li", {}, link(atlas.route.unitAddress(found.name, unit), side(found.tiles, position, `unit ${unit}`)),
      make("span", {class: "verdict"}, make("strong", {}, match ? cosine(match[1]) : "–"),
        found.control ? make("span", {class: "faint"}, `control ${cosine(found.control[position])}`) : null),
      match ? side(found.others, position, `unit ${match[0]} of ${compare.name}`)
        : make("span", {class: "two faint"}, "no match"),
      [`unit ${unit}`, "", match ? `unit ${match[0]}` : ""].map(text => make("span", {class: "line"}, text)));
  }

  const size = found => atlas.tile.size(found.tiles.side, 96);

  function pairs(found, compare) {
    const value = p => found.matches[p] ? found.matches[p][1] : -Infinity;
    const order = found.units.map((_, p) => p).sort((a, b) => value(b) - value(a) || a - b);
    return make("ul", {class: "matches", "--size": size(found)},
      order.map(p => pair(found, p, compare)));
  }

  /** After which epoch of which run a network is: two may have one name. */
  const whose = ({run, epoch}) => `epoch ${epoch} of ${run}`;

  const introduction = (network, compare) => make("p", {class: "lead"},
    "Units of ", make("strong", {}, name(network.name)), ` (${whose(network)}) beside those of `,
    make("strong", {}, name(compare.name)), ` (${whose(compare)}). The number is the correlation of their activations over the `,
    "same pictures: 1 where they fire alike. The control is what the best of so many units reaches by chance: the same with the ",
    "activations of the other network permuted among the pictures.");

  const titled = network => [name(network.name), make("small", {class: "line"}, whose(network))];
  const sides = (network, compare, size) => make("p", {class: "sides", "--size": size},
    [titled(network), "correlation", titled(compare)].map(text => make("span", {}, text)));

  async function show(layer) {
    const network = atlas.store.network, {compare} = network;
    if (!compare) throw new Error("This atlas compares with no other network: `zfcore atlas --help` says how one does.");
    const at = compare.layers.findIndex(one => one.name === layer);
    const address = k => compare.layers[k] ? atlas.route.compareAddress(compare.layers[k].name) : null;
    if (layer !== undefined && at < 0) throw new Error("That layer is not compared: choose one under Compare.");
    const found = layer === undefined ? null : await atlas.store.comparison(layer);
    return {title: layer === undefined ? "Compare" : `Compare ${layer}`, back: layer === undefined ? "#" : "#compare",
      search: at < 0 ? null : atlas.route.pageOf(layer),
      up: at < 0 ? null : address(at + 1), down: at < 0 ? null : address(at - 1),
      node: [make("h1", {}, "Compare", layer === undefined ? null : [" / ", name(layer)]), introduction(network, compare),
        section("Mean of each layer", means(compare)),
        found ? section("Unit by unit, the likest first", sides(network, compare, size(found)),
          pairs(found, compare)) : make("p", {class: "faint"}, "Choose a layer to see its units.")]};
  }

  atlas.comparePage = {show};
})();
