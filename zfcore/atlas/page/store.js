"use strict";
/* The data of an atlas: each file of data/ is a script that calls atlas.receive, as from file:// a page may fetch nothing. */
(() => {
  const atlas = window.atlas = {};
  const asked = new Map(), arrived = new Map();

  atlas.receive = (name, data) => arrived.set(name, data);

  /** Promise of what data/NAME.js holds; asked for once, and again only after a failure. */
  atlas.load = name => {
    if (!asked.has(name)) {
      asked.set(name, read(name));
      asked.get(name).catch(() => asked.delete(name));
    }
    return asked.get(name);
  };

  function read(name) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      const fail = what => reject(new Error(`data/${name}.js ${what}: make the atlas again with \`zfcore atlas\`.`));
      script.onerror = () => fail("is missing");
      script.onload = () => arrived.has(name) ? resolve(arrived.get(name)) : fail("cannot be read");
      script.src = `data/${encodeURIComponent(name)}.js`;
      document.head.append(script);
    });
  }

  /** The entry of a layer of this name in network.layers, or undefined. */
  const entry = name => atlas.store.network.layers.find(layer => layer.name === name);

  /** Does this unit of the layer of this name have a page? */
  function shows(name, unit) {
    const layer = entry(name);
    return Boolean(layer) && (!layer.numbers || layer.numbers.includes(unit));
  }

  /** Name of the files of a layer: its own, where any system takes that. */
  function page(name) {
    const row = atlas.store.network.table.find(row => row.name === name && row.page);
    return row ? row.page : name;
  }

  /** Address of a file of the atlas, whatever characters its name has; data: addresses are what they are. */
  const file = path => path.startsWith("data:") ? path : path.split("/").map(encodeURIComponent).join("/");

  const layer = name => atlas.load(`layer-${page(name)}`);
  const comparison = name => atlas.load(`compare-${page(name)}`);
  const likeness = name => atlas.load(`likeness-${page(name)}`);
  const picture = number => atlas.load(`picture-${number}`);
  const whole = () => atlas.load("whole");

  atlas.store = {network: null, entry, shows, file, layer, comparison, likeness, picture, whole};
})();
