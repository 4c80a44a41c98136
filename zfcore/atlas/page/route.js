"use strict";
/* Addresses: what stands behind the # says which page is shown, so that each can be kept, shared and gone back to. */
(() => {
  const RESERVED = new Set(["", "pictures", "picture", "compare", "look", "layer"]);
  const scrolled = new Map();             // address -> how far down it was left
  let turns = 0, shown = null, followed = false, then = null;

  const layerAddress = name => "#" + (RESERVED.has(name) ? "layer/" : "") + encodeURIComponent(name);
  const pageOf = name => name !== null && atlas.store.entry(name) ? layerAddress(name) : null;
  const unitAddress = (name, unit) => `${layerAddress(name)}/${unit}`;
  const pictureAddress = number => `#picture/${number}`;
  const compareAddress = name => "#compare" + (name === undefined ? "" : "/" + encodeURIComponent(name));

  /** "#conv5/31" -> ["conv5", "31"]; an address that is no text gives none. */
  function parts(hash) {
    try { return hash.slice(1).split("/").map(decodeURIComponent); } catch { return [null]; }
  }

  /** Promise of the page at an address: {title, node, and the addresses where keys lead somewhere: left, right, up, down, back,
      search}. */
  async function page(hash) {
    const [first, ...rest] = parts(hash);
    if (first === "" && !rest.length) return atlas.networkPage.show();
    if (first === "pictures" && !rest.length) return atlas.picturePage.all();
    if (first === "picture" && rest.length === 1) return atlas.picturePage.show(rest[0]);
    if (first === "compare" && rest.length < 2) return atlas.comparePage.show(rest[0]);
    if (first === "look" && !rest.length) return atlas.live.show();
    const [name, unit, ...more] = first === "layer" ? rest : [first, ...rest];
    const entry = atlas.store.entry(name);
    if (!entry || more.length) throw new Error(`This atlas has no page ${hash}: choose one above.`);
    return unit === undefined ? atlas.layerPage.show(entry) : atlas.unitPage.show(entry, unit);
  }

  async function found(hash) {
    try {
      return await page(hash);
    } catch (error) {
      const {make, trouble, link} = atlas.dom;
      return {title: "Nothing to show", back: "#", node: [make("h1", {}, "Nothing to show here"), trouble(error),
        make("p", {}, link("#", "To the network"))]};
    }
  }

  /** Show the page of the present address, unless another one was asked for meanwhile. */
  async function show() {
    const turn = ++turns, hash = location.hash, goal = followed ? 0 : scrolled.get(hash) || 0, after = then;
    followed = false;
    then = null;
    const next = await found(hash);
    if (turn !== turns) return;
    const first = shown === null;
    shown = next;
    const main = document.getElementById("main"), network = atlas.store.network;
    atlas.dom.put(main, next.node);
    document.title = next.title ? `${next.title} · ${network.name}` : `Atlas of ${network.name}`;
    markNow(hash);
    scrollTo(0, goal);
    const heading = main.querySelector("h1");
    if (heading && !first) { heading.tabIndex = -1; heading.focus({preventScroll: true}); }
    if (after) after();
    main.dataset.page = hash || "#";
  }

  /** Mark the page among the links above, and bring it into their middle. */
  function markNow(hash) {
    const all = document.getElementById("pages");
    for (const one of all.children) {
      const own = one.getAttribute("href");
      const inside = own === "#pictures" ? "#picture/" : own + "/";
      const here = own === "#" ? hash === "" || hash === "#" : hash === own || hash.startsWith(inside);
      if (here) one.setAttribute("aria-current", hash === own ? "page" : "true"); else one.removeAttribute("aria-current");
      if (here) all.scrollLeft = one.offsetLeft - all.offsetLeft - (all.clientWidth - one.offsetWidth) / 2;
    }
  }

  /** Go to an address as a link does; `after` is called when its page stands, and never where another one comes first. */
  function go(address, after = null) {
    if (address === location.hash) return;
    followed = true;
    then = after;
    location.hash = address;
  }

  function start() {
    history.scrollRestoration = "manual";
    addEventListener("hashchange", show);
    addEventListener("scroll", () => scrolled.set(location.hash, scrollY), {passive: true});
    addEventListener("click", event => { if (event.target.closest("a[href^='#']:not(.skip)")) followed = true; });
    return show();
  }

  atlas.route = {layerAddress, pageOf, unitAddress, pictureAddress, compareAddress, go, start, show, now: () => shown || {}};
})();
