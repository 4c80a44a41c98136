"use strict";
/* Dark or light: as the system has it, until somebody presses the button. */
(() => {
  const KEY = "zfcore atlas: theme", root = document.documentElement;

  function kept() {
    try { return localStorage.getItem(KEY); } catch { return null; }      // a browser may refuse storage to file://
  }

  function keep(theme) {
    root.dataset.theme = theme;
    try { localStorage.setItem(KEY, theme); } catch { /* then it holds for this visit */ }
  }

  function turn() {
    const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    keep(now === "dark" ? "light" : "dark");
  }

  if (["dark", "light"].includes(kept())) root.dataset.theme = kept();
  document.getElementById("theme").addEventListener("click", turn);
  atlas.theme = {turn};
})();
