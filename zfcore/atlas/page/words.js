"use strict";
/* Numbers and names as sentences have them. */
(() => {
  const thousands = new Intl.NumberFormat("en-GB");

  /** 1234567 -> "1,234,567". */
  const count = n => thousands.format(n);
  const plural = (n, noun, many = noun + "s") => `${count(n)} ${n === 1 ? noun : many}`;

  /** A measured number with three digits; "–" where there is none. */
  function number(x) {
    if (x === null || x === undefined || !Number.isFinite(x)) return "–";
    if (x !== 0 && Math.abs(x) < 0.001) return minus(x.toExponential(1));
    return minus(Math.abs(x) >= 100 ? x.toFixed(0) : String(Number(x.toPrecision(3))));
  }

  const minus = text => text.replace("-", "−");
  const signed = x => x > 0 ? `+${number(x)}` : number(x);
  /** A cosine or a correlation, with two digits behind the point. */
  const cosine = x => x === null ? "–" : minus(x.toFixed(2));

  /** A share as a percentage of two digits or three: 0.8163 -> "81.6 %". */
  function percent(share) {
    if (share > 0 && share < 1e-4) return "< 0.01 %";
    return `${Number((100 * share).toFixed(share < 0.1 ? 2 : 1))} %`;
  }

  /** Name of class k, or null where it has none. */
  const className = k => k >= 0 && k < atlas.store.network.classes.length ? atlas.store.network.classes[k] : null;

  /** "48 × 48 pixels" that a unit sees, or the whole picture. */
  const field = entry => entry.field === null || entry.whole ? "the whole picture" : `${entry.field} × ${entry.field} pixels`;

  /** What a tile shows, for those who do not see it. */
  function alt(kind, unit, layer, picture, value) {
    const about = `${kind} of unit ${unit} of ${layer}`;
    return picture ? `${about}, picture: ${picture}, ${number(value)}` : about;
  }

  atlas.words = {count, plural, number, signed, cosine, percent, className, field, alt};
})();
