"use strict";
/* Keys: a page says where left, right, up, down, Escape and / lead; ? helps. */
(() => {
  const PLACES = {ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", Escape: "back"};
  const help = document.getElementById("help");

  /** Is somebody writing, or moving within something that has arrows of its own? */
  const busy = target => Boolean(target.closest && target.closest("input, textarea, select, dialog, [data-keys]"));

  /** Where this page has no search, go to that of its layer, or of the last. */
  function search() {
    const field = document.getElementById("search"), {layers} = atlas.store.network;
    if (field) return field.focus();
    const goal = atlas.route.now().search ?? (layers.length ? atlas.route.layerAddress(layers[layers.length - 1].name) : null);
    if (goal) atlas.route.go(goal, () => document.getElementById("search")?.focus());
  }

  function escape(event) {
    const {target} = event;
    if (target.id === "search" && target.value) return;            // the browser empties the field
    if (target.closest && target.closest("input, select, [data-keys]")) return target.blur();
    follow(event);
  }

  function follow(event) {
    const address = atlas.route.now()[PLACES[event.key]];
    if (!address) return;
    event.preventDefault();
    atlas.route.go(address);
  }

  function pressed(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || help.open || event.defaultPrevented) return;
    if (event.key === "Escape") return escape(event);
    if (busy(event.target)) return;
    if (event.key === "?") return help.showModal();
    if (event.key === "/") { event.preventDefault(); return search(); }
    if (PLACES[event.key] && !event.shiftKey) follow(event);
  }

  addEventListener("keydown", pressed);
  document.getElementById("keys").addEventListener("click", () => help.showModal());
  atlas.keys = {search};
})();
