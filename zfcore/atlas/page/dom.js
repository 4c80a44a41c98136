"use strict";
/* Elements. Texts become text nodes and never markup, so that no name of a class or a file is read as HTML. */
(() => {
  const SVG = "http://www.w3.org/2000/svg";

  /** An element: {name: value} are its attributes, "on..." its listeners, "--..." its variables; null leaves one out. */
  const make = (kind, given, ...inside) => fill(document.createElement(kind), given, inside);
  const draw = (kind, given, ...inside) => fill(document.createElementNS(SVG, kind), given, inside);

  function fill(node, given, inside) {
    for (const [name, value] of Object.entries(given || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name.startsWith("--")) node.style.setProperty(name, value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...present(inside));
    return node;
  }

  /** What is there of some texts and elements, in lists or not. */
  const present = inside => inside.flat(9).filter(one => one !== null && one !== undefined && one !== false);

  /** Give a node these children and no others. */
  const put = (node, ...inside) => node.replaceChildren(...present(inside));

  const link = (address, ...inside) => make("a", {href: address}, ...inside);

  /** A name from elsewhere: bdi keeps one that is written from the right from turning the line around it. */
  const name = text => make("bdi", {}, text);

  /** A text in which `...` is code. */
  const coded = text => text.split("`").map((part, k) => k % 2 ? make("code", {}, part) : part);

  const section = (title, ...inside) => make("section", {}, make("h2", {}, title), ...inside);

  /** A row of buttons of which one is pressed: choices are [[value, text], ...]; `chosen` is told which. */
  function choice(label, choices, now, chosen) {
    const press = (event, value) => {
      for (const one of buttons) one.setAttribute("aria-pressed", String(one === event.currentTarget));
      chosen(value);
    };
    const buttons = choices.map(([value, text]) => make("button",
      {type: "button", "aria-pressed": String(value === now), onclick: event => press(event, value)}, text));
    return make("div", {class: "choice", role: "group", "aria-label": label}, buttons);
  }

  /** What is made only when somebody opens it. */
  function later(title, inside) {
    const details = make("details", {}, make("summary", {}, title));
    details.addEventListener("toggle", () => details.append(inside()), {once: true});
    return details;
  }

  /** Sentences that data bring along. */
  const notes = texts => (texts || []).map(text => make("p", {class: "faint"}, coded(text)));

  /** Paragraph in place of what could not be shown. */
  const trouble = error => make("p", {class: "trouble", role: "alert"}, coded(error.message));

  atlas.dom = {make, put, draw, link, name, coded, section, choice, later, notes, trouble};
})();
