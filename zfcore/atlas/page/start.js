"use strict";
/* The beginning: the network's data are read, the head of the page is filled, and the page of the address is shown. */
(() => {
  const {make, put, link, name, trouble} = atlas.dom, {plural} = atlas.words;
  const VERSION = 4;

  function head(network) {
    put(document.querySelector(".brand"), name(network.name));
    const pages = [["#", "Network"], ...network.layers.map(layer => [atlas.route.layerAddress(layer.name), name(layer.name)])];
    if (network.pictures.length) pages.push(["#pictures", "Pictures"]);
    if (network.compare) pages.push(["#compare", "Compare"]);
    if (atlas.live.serves()) pages.push(["#look", "Your picture"]);
    put(document.getElementById("pages"), pages.map(([address, text]) => link(address, text)));
    const by = `Made ${network.made} by zfcore ${network.zfcore} from `;
    put(document.getElementById("footer"), by, make("code", {}, network.run),
      `, epoch ${network.epoch}`, network.data && [", data ", make("code", {}, network.data)],
      network.total ? `, ${plural(network.total, "picture")} looked at` : null);
  }

  async function start() {
    try {
      const [network] = await Promise.all([atlas.load("network"), atlas.live.start()]);
      if (network.version !== VERSION) {
        throw new Error(`These pages read version ${VERSION} of the format; the data are of version ${network.version}: ` +
          "make the atlas again with `zfcore atlas`.");
      }
      atlas.store.network = network;
      head(network);
      await atlas.route.start();
    } catch (error) {
      put(document.getElementById("main"), make("h1", {}, "Nothing to show"), trouble(error));
    }
  }

  /** The link to the content moves the focus and leaves the address, which is a page's. */
  function skip(event) {
    event.preventDefault();
    document.getElementById("main").focus();
  }

  document.querySelector(".skip").addEventListener("click", skip);
  atlas.start = {start};
  start();
})();
