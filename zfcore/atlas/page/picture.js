"use strict";
/* Pages of pictures: all that have one, and one of them with what the network says of it. */
(() => {
  const {make, link, name, notes, section} = atlas.dom, {number, percent, className} = atlas.words;

  function card({number: one, name: file, label}) {
    const seat = make("span", {class: "thumb"});
    const fill = picture => seat.append(make("img", {src: atlas.store.file(picture.image), alt: "", loading: "lazy"}));
    atlas.store.picture(one).then(fill, () => {});           // without its data, the name alone
    const anchor = link(atlas.route.pictureAddress(one), seat, make("span", {class: "line"}, name(className(label) ?? file)));
    anchor.className = "unit";
    anchor.title = file;
    return anchor;
  }

  function all() {
    const {pictures} = atlas.store.network;
    return {title: "Pictures", back: "#", node: [make("h1", {}, "Pictures"), make("p", {class: "lead"}, pictures.length
      ? "Choose a picture: what the network says of it, which units it excites, and what happens when a part of it is covered."
      : "This atlas has no pages of pictures."), make("div", {class: "grid cards"}, pictures.map(card)),
      atlas.live.invitation()]};
  }

  function probabilities(picture) {
    if (!picture.probabilities || !picture.probabilities.length) return null;
    const about = "the true class";
    const tick = () => make("span", {class: "true", role: "img", "aria-label": about, title: about}, "✓ ");
    const rows = picture.probabilities.map(([k, p]) => ({
      name: [k === picture.label ? tick() : null, name(className(k) ?? `class ${k}`)], share: p, text: percent(p)}));
    return section("What the network says", atlas.bars.shares("probabilities of classes", rows));
  }

  /** The picture with the box of what one unit sees in it, and what moves the box. */
  function boxed(picture) {
    const box = make("span", {class: "box"}), alt = "";                  // the answer above has the picture's text
    const move = ([top, left, bottom, right]) => {
      for (const [key, value] of Object.entries({top, left, bottom: picture.side - bottom, right: picture.side - right})) {
        box.style.setProperty(`--${key}`, Math.max(value, 0) / picture.side);
      }
    };
    return {node: make("span", {class: "whole"}, make("img", {src: atlas.store.file(picture.image), alt}), box), move};
  }

  /** Strongest units of a layer, and where in the picture the one is that is pointed at. */
  function units(picture, layer) {
    const columns = layer.units.length, entry = atlas.store.entry(layer.name);
    const heading = make("h3", {}, entry ? link(atlas.route.layerAddress(layer.name), name(layer.name)) : name(layer.name));
    const {node, move} = boxed(picture);
    const tiles = layer.units.map((unit, k) => {
      const label = atlas.words.alt("projection", unit, layer.name, picture.name, layer.values[k]);
      const tile = atlas.tile.toUnit(layer.name, unit, atlas.tile.cut(layer.sheet, columns, k, 0, label),
        make("span", {class: "number"}, String(unit)), make("span", {class: "line"}, number(layer.values[k])));
      for (const kind of ["mouseenter", "focus"]) tile.addEventListener(kind, () => move(layer.boxes[k]));
      return tile;
    });
    if (columns) move(layer.boxes[0]);
    const left = make("div", {}, heading, columns ? node : null);
    return make("article", {class: entry && atlas.tile.crisp(entry)}, left, make("div", {class: "row units"}, tiles));
  }

  const strongest = picture => section("Strongest units, by layer",
    make("p", {class: "faint"}, "Projections of the units that this picture excites most, with their activations; " +
      "the box is what the one pointed at sees."),
    make("div", {class: "layers", "--size": "140px"}, picture.layers.map(layer => units(picture, layer))));

  /** All that is known of a picture but its title; `seat` is where the occlusion stands, or is going to. */
  function draw(picture, seat) {
    const alt = `the picture ${picture.name || ""}`;
    const image = make("img", {class: "picture", src: atlas.store.file(picture.image), alt});
    return [make("div", {class: "answer"}, image, probabilities(picture)), notes(picture.notes), seat, strongest(picture)];
  }

  const covered = picture => picture.occlusion &&
    section("Covered by a grey square", atlas.occlusion.show(picture, picture.occlusion));

  async function show(one) {
    const {pictures} = atlas.store.network;
    const at = /^\d+$/.test(one) ? pictures.findIndex(picture => picture.number === Number(one)) : -1;
    if (at < 0) throw new Error("This atlas has no page of that picture: choose one under Pictures.");
    const picture = await atlas.store.picture(pictures[at].number), k = className(picture.label);
    const address = next => next ? atlas.route.pictureAddress(next.number) : null;
    return {title: picture.name, back: "#pictures", left: address(pictures[at - 1]), right: address(pictures[at + 1]),
      node: [make("h1", {}, name(k ?? picture.name)), make("p", {class: "faint"}, name(picture.name)),
        draw(picture, covered(picture))]};
  }

  atlas.picturePage = {all, show, draw, boxed};
})();
