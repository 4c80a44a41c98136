"use strict";
/* Bars beside names: shares from the left, weights from the middle. */
(() => {
  const {make} = atlas.dom;

  /** rows [{name, share 0..1, text, mark}], mark: where a share would lie by chance, or undefined. */
  const shares = (label, rows) => make("ul", {class: "bars", "aria-label": label}, rows.map(({name, share, text, mark}) =>
    make("li", {}, make("span", {class: "name"}, name),
      make("span", {class: "track"}, make("span", {class: "fill", "--share": share}),
        mark === undefined ? null : make("span", {class: "mark", "--share": mark})),
      make("span", {class: "figure"}, text))));

  /** A bar to the right for x > 0, to the left for x < 0, of |x|/most of the half; the sign stands in the text too. */
  const signed = (x, most) => make("span", {class: `signed ${x < 0 ? "minus" : "plus"}`},
    make("span", {class: "track"}, make("span", {class: "fill", "--share": most ? Math.abs(x) / most : 0})),
    make("span", {class: "figure"}, atlas.words.signed(x)));

  atlas.bars = {shares, signed};
})();
