"use strict";
/* Figure 7 of the paper: a grey square is moved over the picture, and for each of its places there is what the network says. */
(() => {
  const {make, put, name, notes, choice} = atlas.dom, {number, className} = atlas.words;
  // viridis, whose lightness rises from end to end; and the classes' colours of Okabe and Ito
  const HEAT = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"]
    .map(hex => [0, 2, 4].map(k => parseInt(hex.slice(k, k + 2), 16)));
  const CLASSES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442"], OTHERS = "#999999";

  const rgb = parts => `rgb(${parts.map(Math.round).join(" ")})`;

  function heat(share) {
    const at = Math.min(Math.max(share, 0), 1) * (HEAT.length - 1), k = Math.min(Math.floor(at), HEAT.length - 2);
    return rgb(HEAT[k].map((one, c) => one + (HEAT[k + 1][c] - one) * (at - k)));
  }

  /** Ends of the colour scale, as figure 7 has them: P always from 0 to 1, so that a fall of nothing looks like nothing. */
  function ends(occlusion, kind) {
    const all = occlusion.sums ? occlusion.sums.flat() : [];
    return kind === "p" ? [0, 1] : [Math.min(0, ...all), Math.max(occlusion.clean.sum, ...all)];
  }

  /** How numbers between two ends are coloured: {colour(x), legend}. */
  function numbers([low, high]) {
    return {colour: x => heat(high > low ? (x - low) / (high - low) : 0),
      legend: make("div", {class: "scale"}, make("span", {}, number(low)),
        make("span", {class: "ramp", "--ramp": `linear-gradient(to right, ${HEAT.map(rgb).join(", ")})`}),
        make("span", {}, number(high)))};
  }

  function classes(grid) {
    const counts = new Map();
    for (const k of grid.flat()) counts.set(k, (counts.get(k) || 0) + 1);
    const order = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || a - b);
    const colour = k => CLASSES[order.indexOf(k)] || OTHERS;
    const item = (tone, text) => make("li", {}, make("span", {class: "swatch", "--tone": tone}), text);
    const first = order.slice(0, CLASSES.length).map(k => item(colour(k), name(className(k) ?? `class ${k}`)));
    return {colour, legend: make("ul", {class: "swatches"}, first,
      order.length > CLASSES.length ? item(OTHERS, "others") : null)};
  }

  function kinds(occlusion) {
    const label = className(occlusion.label) ?? `class ${occlusion.label}`;
    const least = number(Math.min(...occlusion.p.flat())), none = occlusion.silent ? "No map fires on the clean picture. " : "";
    return [["p", "Probability", ["Probability of ", name(label), ` with the square there, ${least} at the least`]],
      ["sums", "Activity", [`${none}Sum of the map of unit ${occlusion.unit} of `, name(occlusion.layer), " with the square there"]],
      ["class", "Class", ["Most probable class with the square there"]]].filter(([kind]) => occlusion[kind]);
  }

  function paint(canvas, grid, colour) {
    canvas.width = grid[0].length;
    canvas.height = grid.length;
    const pen = canvas.getContext("2d");
    grid.forEach((row, i) => row.forEach((x, j) => { pen.fillStyle = colour(x); pen.fillRect(j, i, 1, 1); }));
  }

  /** Index of the place whose square's middle is nearest to `x` pixels. */
  function nearest(starts, size, x) {
    const off = starts.map(start => Math.abs(start + size / 2 - x));
    return off.indexOf(Math.min(...off));
  }

  const share = (event, axis) => {
    const area = event.currentTarget.getBoundingClientRect();
    return axis ? (event.clientX - area.left) / area.width : (event.clientY - area.top) / area.height;
  };

  function place(node, {top, left, height, width}) {
    for (const [key, value] of Object.entries({top, left, height, width})) node.style.setProperty(`--${key}`, value);
  }

  function sentence(occlusion, i, j) {
    const {clean} = occlusion, k = occlusion.class[i][j], label = className(occlusion.label) ?? `class ${occlusion.label}`;
    return [make("strong", {}, `P = ${number(occlusion.p[i][j])}`), " of ", name(label),
      ` (uncovered ${number(clean.p)}). Most probable: `,
      make("strong", {}, name(className(k) ?? `class ${k}`)), k === clean.class ? "" : ", another than uncovered",
      occlusion.sums ? `. Sum of the map ${number(occlusion.sums[i][j])} (uncovered ${number(clean.sum)}).` : "."];
  }

  /** Something over which the square is moved, by pointer and by arrows. */
  function stage(label, move, at, inside) {
    return make("div", {class: "stage", tabindex: "0", role: "application", "aria-label": label, "data-keys": "own",
      onpointermove: event => move(...at(event)), onpointerdown: event => move(...at(event)),
      onkeydown: event => {
        const by = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
        if (by) { event.preventDefault(); move(null, null, by); }
      }}, inside);
  }

  /** The picture with the square, the grid of what comes of it, and a sentence about the place. */
  function show(picture, occlusion) {
    const {tops, lefts, size, grey} = occlusion, {side} = picture;
    const square = make("span", {class: "square", "--tone": rgb([grey, grey, grey])}), cell = make("span", {class: "cell"});
    const told = make("p", {class: "told", role: "status"}), canvas = make("canvas", {"aria-hidden": "true"});
    const legend = make("figcaption", {});
    let i = tops.length >> 1, j = lefts.length >> 1;
    function move(row, column, by = [0, 0]) {
      i = Math.min(Math.max((row ?? i) + by[0], 0), tops.length - 1);
      j = Math.min(Math.max((column ?? j) + by[1], 0), lefts.length - 1);
      place(square, {top: tops[i] / side, left: lefts[j] / side, height: size / side, width: size / side});
      place(cell, {top: i / tops.length, left: j / lefts.length, height: 1 / tops.length, width: 1 / lefts.length});
      put(told, sentence(occlusion, i, j));
    }
    const colourBy = kind => {
      const {colour, legend: scale} = kind === "class" ? classes(occlusion.class) : numbers(ends(occlusion, kind));
      paint(canvas, occlusion[kind], colour);
      put(legend, make("span", {}, kinds(occlusion).find(([one]) => one === kind)[2]), scale);
    };
    const alt = `the picture ${picture.name || ""}`;
    const image = make("img", {src: atlas.store.file(picture.image), alt, draggable: "false"});
    const over = stage("picture; the arrow keys move the grey square", move,
      event => [nearest(tops, size, share(event, 0) * side), nearest(lefts, size, share(event, 1) * side)], [image, square]);
    const grid = stage("map of the square's places; the arrow keys move it", move,
      event => [Math.floor(share(event, 0) * tops.length), Math.floor(share(event, 1) * lefts.length)], [canvas, cell]);
    move(null, null);
    colourBy("p");
    return make("div", {class: "occlusion"}, make("p", {class: "faint"},
      "Move over the picture: a grey square covers what is under it, and the sentence says " +
      "what the network then sees. Where the probability falls, the evidence lies."),
      make("div", {class: "bar"}, told,
        choice("Coloured by", kinds(occlusion).map(([kind, text]) => [kind, text]), "p", colourBy)),
      make("div", {class: "stages"}, make("figure", {}, over), make("figure", {}, grid, legend), projection(occlusion)),
      notes(occlusion.notes));
  }

  function projection({projection, layer, unit, silent}) {
    if (silent) return make("p", {class: "faint"}, "No map of ", name(layer), " fires on this picture, so none is projected.");
    if (!projection) return null;
    const alt = atlas.words.alt("projection", unit, layer), text = `unit ${unit} of ${layer}`;
    const told = atlas.store.shows(layer, unit) ? make("a", {href: atlas.route.unitAddress(layer, unit)}, text) : text;
    return make("figure", {}, make("img", {class: "plain", src: atlas.store.file(projection), alt}),
      make("figcaption", {}, "Projection of ", told, ", the strongest here"));
  }

  atlas.occlusion = {show};
})();
