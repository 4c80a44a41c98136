"use strict";
/* Pages of pictures: all that have one, and one of them with what the network says of it. */
(() => {
  const {make, link, name, section} = atlas.dom, {number, percent, className} = atlas.words;

  function card({number: one, name: file, label}) {
    const seat = make("span", {class: "thumb"});
    atlas.store.picture(one).then(picture => seat.append(make("img", {src: atlas.store.file(picture.image), alt: "", loading: "lazy"})), () => {});
    const anchor = link(atlas.route.pictureAddress(one), seat, make("span", {class: "line"}, name(className(label) ?? file)));
    anchor.className = "unit";
    anchor.title = file;
    return anchor;
  }

  function all() {
    const {pictures} = atlas.store.network;
    return {title: "Pictures", back: "#", node: [make("h1", {}, "Pictures"), make("p", {class: "lead"}, pictures.length
      ? "Choose a picture: what the network says of it, which units it excites, and what happens when a part of it is covered."
      : "This atlas has no pages of pictures."), make("div", {class: "grid cards"}, pictures.map(card)), atlas.live.invitation()]};
  }

  function probabilities(picture) {
    if (!picture.probabilities || !picture.probabilities.length) return null;
    return section("What the network says", atlas.bars.shares("probabilities of classes", picture.probabilities.map(([k, p]) => ({
      name: [name(className(k) ?? `class ${k}`), k === picture.label ? make("span", {class: "true", title: "the true class"}, " ✓ true") : null],
      share: p, text: percent(p)}))));
  }

  /** Strongest units of a layer; the boxes are drawn into the picture beside the projection. */
  function units(picture, layer) {
    const columns = layer.units.length;
    return make("article", {}, make("h3", {}, link(atlas.route.layerAddress(layer.name), name(layer.name))), make("div", {class: "row units"},
      layer.units.map((unit, k) => {
        const label = atlas.words.alt("projection", unit, layer.name, picture.name, layer.values[k]);
        const anchor = link(atlas.route.unitAddress(layer.name, unit), atlas.tile.cut(layer.sheet, columns, k, 0, label),
          make("span", {class: "number"}, String(unit)), make("span", {class: "line"}, number(layer.values[k])));
        anchor.className = "unit";
        return anchor;
      })));
  }

  const strongest = picture => section("Strongest units, by layer", make("p", {class: "faint"}, "Projections of the units that this picture excites most, with their activations."),
    make("div", {class: "layers", "--size": atlas.tile.size(picture.layers.length ? picture.layers[0].side : 96, 120)},
      picture.layers.map(layer => units(picture, layer))));

  /** All that is known of a picture but its title; `seat` is where the occlusion stands, or is going to. */
  function draw(picture, seat) {
    return [make("div", {class: "answer"}, make("img", {class: "picture", src: atlas.store.file(picture.image), alt: `the picture ${picture.name || ""}`}),
      probabilities(picture)), seat, strongest(picture)];
  }

  const covered = picture => picture.occlusion && section("Covered by a grey square", atlas.occlusion.show(picture, picture.occlusion));

  async function show(one) {
    const {pictures} = atlas.store.network, at = pictures.findIndex(picture => picture.number === one);
    if (at < 0) throw new Error("This atlas has no page of that picture: choose one under Pictures.");
    const picture = await atlas.store.picture(one), k = className(picture.label);
    const address = next => next ? atlas.route.pictureAddress(next.number) : null;
    return {title: picture.name, back: "#pictures", left: address(pictures[at - 1]), right: address(pictures[at + 1]),
      node: [make("h1", {}, name(k ?? picture.name)), make("p", {class: "faint"}, name(picture.name)), draw(picture, covered(picture))]};
  }

  atlas.picturePage = {all, show, draw};
})();
