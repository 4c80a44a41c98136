"use strict";
/* Likeness of the units of a layer: the cosines of what describes them, from descriptors that are kept to within about 0.0001. */
(() => {
  const STEPS = 32767;                   // of a number from 0 to 1
  const read = new WeakMap();            // what a file holds -> its numbers

  /** Numbers of two bytes, the lower first as in all that browsers run on, from their base64. */
  function numbers(data) {
    if (!read.has(data)) {
      const text = atob(data.described), bytes = new Uint8Array(text.length);
      for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
      read.set(data, new Int16Array(bytes.buffer));
    }
    return read.get(data);
  }

  /** Promise of the cosines of the unit at `position` with all, in the order of the units; null of those that never fire. */
  async function cosines(layer, position) {
    const data = await atlas.store.likeness(layer.name), all = numbers(data), {length} = data;
    const own = all.subarray(position * length, (position + 1) * length);
    return layer.units.map((_, p) => {
      if (layer.dead[p]) return null;
      let sum = 0;
      for (let k = 0; k < length; k++) sum += own[k] * all[p * length + k];
      return sum / STEPS ** 2;
    });
  }

  /** Why nothing can be sorted by likeness to this unit; "" where it can. */
  function why(layer, unit) {
    const position = layer.units.indexOf(unit);
    if (Number.isNaN(unit)) return "Give the number of the unit that the others are to be like.";
    if (position < 0) return `This page shows no unit ${unit}: give the number of one that it shows.`;
    return layer.dead[position] ? `Unit ${unit} never fires, so there is nothing for others to be like.` : "";
  }

  atlas.likeness = {cosines, why};
})();
