"use strict";
/* The network page: what this network is, and the ways into it. */
(() => {
  const {make, link, name, coded, section} = atlas.dom, {count, plural, number, field} = atlas.words;

  const GREY = "It was made for grey pictures: what its first layer sees of red, green and blue is their grey, so there it has " +
    "three times the weights, and light and dark are green and violet in its projections. ";

  function what(network) {
    const [channels, height, width] = network.input;
    const kind = {1: "grey pictures", 3: `${network.grey ? "the grey of " : ""}colour pictures`}[channels]
      || `pictures of ${channels} channels`;
    const layers = network.table.filter(row => row.parameters > 0);
    const weights = layers.reduce((sum, row) => sum + row.parameters, 0), classes = network.outputs;
    return [make("strong", {}, name(network.name)),
      ` looks at ${kind} of ${height} × ${width} pixels through ${plural(layers.length, "layer")}`,
      ` with ${count(weights)} weights`,
      classes > 1 ? `, and says which of ${count(classes)} classes it sees` : "", ". ", network.grey ? GREY : ""];
  }

  function errors({errors}) {
    if (!errors) return null;
    const guesses = {[null]: "", 0: "; the right class is always among its first five guesses"}[errors.top5]
      ?? `; on ${number(errors.top5)} % the right class is not among its first five guesses`;
    return `It is wrong on ${number(errors.top1)} % of ${errors.on}${guesses}. `;
  }

  const introduction = network => make("p", {class: "lead"}, what(network), errors(network),
    network.layers.length ? "Choose a layer, then one of its units, to see what excites it: the pictures, " +
      "what in them, and what feeds it." : "");

  const fact = (label, value) => value === null || value === undefined ? null
    : make("div", {}, make("dt", {}, label), make("dd", {}, value));

  function statistics(layer, row) {
    return make("dl", {class: "facts"},
      fact("units", layer.shown === layer.units ? count(layer.units) : `${count(layer.units)}, ${count(layer.shown)} shown`),
      fact("each sees", field(layer)), fact("never fire", layer.dead ? count(layer.dead) : "none"),
      fact("selectivity", layer.selectivity === null ? null : number(layer.selectivity)),
      fact("dominance", layer.dominance === null ? null : number(layer.dominance)),
      fact("weights", row && row.parameters ? count(row.parameters) : null));
  }

  function strip(network, layer, k) {
    const {cover} = network, units = cover && cover.units[layer.name];
    if (!units) return null;
    return make("div", {class: "strip", "--size": "96px"}, units.slice(0, cover.columns).map((unit, column) => {
      const label = atlas.words.alt("projection", unit, layer.name);
      const anchor = link(atlas.route.unitAddress(layer.name, unit),
        atlas.tile.cut(cover.file, cover.columns, column, k, label));
      anchor.title = `unit ${unit}`;
      return anchor;
    }));
  }

  function rows(network) {
    return make("div", {class: "layers"}, network.layers.map((layer, k) => {
      const row = network.table.find(row => row.name === layer.name);
      return make("article", {class: atlas.tile.crisp(layer)},
        make("h3", {}, link(atlas.route.layerAddress(layer.name), name(layer.name)),
          row ? make("small", {}, [row.kind, row.settings].filter(Boolean).join(", ")) : null),
        make("div", {}, strip(network, layer, k), statistics(layer, row)));
    }));
  }

  const meanings = () => make("details", {}, make("summary", {}, "What the numbers mean"), make("dl", {class: "meanings"},
    [["each sees", "the part of the picture that can change a unit: its receptive field."],
     ["never fire", "units that no picture of this part of the data excites: dead ones."],
     ["selectivity", "of the up to 100 pictures that excite a unit most, the share of the commonest class, less that class's " +
       "share of all pictures, less what this difference is on average for as many pictures drawn at random, as some class is " +
       "always the commonest; the median of the layer. 0 is chance."],
     ["dominance", "largest RMS of a filter over the median of the layer: a few strong filters drown the others."]]
      .map(([term, text]) => make("div", {}, make("dt", {}, term), make("dd", {}, text)))));

  const table = network => make("details", {}, make("summary", {}, `All ${plural(network.table.length, "layer")} in order`),
    make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "table of layers"}, make("table", {},
      make("thead", {}, make("tr", {}, ["layer", "kind", "settings", "shape", "weights", "sees"].map(text =>
        make("th", {scope: "col"}, text)))),
      make("tbody", {}, network.table.map(row => make("tr", {}, make("th", {scope: "row"},
        row.page ? link(atlas.route.layerAddress(row.name), name(row.name)) : name(row.name)),
        make("td", {}, row.kind), make("td", {}, row.settings),
        make("td", {}, row.shape.join(" × ")), make("td", {}, row.parameters ? count(row.parameters) : ""),
        make("td", {}, row.field === null ? "all" : String(row.field))))))));

  /** The network's own classes, and those that only the pictures have. */
  function classes({classes, outputs}) {
    const list = names => make("ul", {class: "names"}, names.map(text => make("li", {}, name(text))));
    const few = (title, names) => names.length ? section(title, list(names.slice(0, 30)),
      names.length > 30 ? atlas.dom.later(`${count(names.length - 30)} more`, () => list(names.slice(30))) : null) : null;
    const others = classes.slice(outputs);
    return [few(plural(outputs, "class", "classes"), classes.slice(0, outputs)),
      few(`${plural(others.length, "class", "classes")} of the pictures that the network does not know`, others)];
  }

  const curves = ({curves}) => curves && section("Learning curves",
    make("img", {class: "curves", src: atlas.store.file(curves.file), alt: curves.alt, loading: "lazy"}));

  const notes = network => network.notes.length ? section("What is not here",
    make("ul", {class: "notes"}, network.notes.map(note => make("li", {}, coded(note))))) : null;

  function show() {
    const network = atlas.store.network;
    return {title: "", node: [make("h1", {}, "Atlas of ", name(network.name)), introduction(network),
      make("figure", {class: "panel"},
        make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "drawing of the layers"},
          atlas.drawing.show(network)),
        make("figcaption", {}, "Height and width of the maps are drawn to scale, their number by its logarithm. ",
          "Below: how much of the picture one unit sees.")),
      network.layers.length ? section("Layers, from the pixels up", rows(network), meanings()) : null,
      table(network), atlas.live.invitation(), curves(network), classes(network), notes(network)]};
  }

  atlas.networkPage = {show};
})();
