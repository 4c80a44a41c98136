"use strict";
/* Pictures of one's own: where `zfcore atlas --serve` answers, one is dropped, chosen, pasted or taken by the camera. */
(() => {
  const {make, put, name, choice, section, coded, trouble} = atlas.dom, {number} = atlas.words;
  let api = null, last = null;           // what the server offers; its last answer
  let stream = null, turns = 0;          // of the camera, null: it is off; how often it was asked for or stopped

  /** Ask once whether these pages come from the server of --serve. */
  async function start() {
    if (!/^https?:$/.test(location.protocol)) return;
    try {
      const answer = await fetch("/api"), found = answer.ok ? await answer.json() : {};
      if (found.serves) api = found;
    } catch { /* a plain web server: the pages do without */ }
    if (api) listen();
  }

  /** A picture can be dropped or pasted on every page. */
  function listen() {
    addEventListener("dragover", event => { event.preventDefault(); document.body.classList.add("dropping"); });
    addEventListener("dragleave", event => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
    addEventListener("drop", event => {
      event.preventDefault();
      document.body.classList.remove("dropping");
      take(event.dataTransfer.files[0]);
    });
    addEventListener("hashchange", stop);
    addEventListener("paste", event => take([...event.clipboardData.files].find(file => file.type.startsWith("image/"))));
  }

  /** JSON that the server answers; its refusal is one sentence. */
  async function ask(path, body) {
    let answer, found;
    try {
      answer = await fetch(path, {method: "POST", body});
      found = await answer.json();
    } catch { throw new Error("The server does not answer any more: start `zfcore atlas --serve` again."); }
    if (!answer.ok || found.error) throw new Error(found.error || `The server refuses: ${answer.status}.`);
    return found;
  }

  /** Look at a picture, and show the page of what comes of it. */
  async function take(file) {
    if (!file) return;
    stop();
    last = {looking: ask("/api/look", file)};
    last.looking.catch(() => {});                     // told by the page
    if (location.hash === "#look") await atlas.route.show(); else atlas.route.go("#look");
  }

  function zone() {
    const chooser = make("input", {type: "file", accept: "image/*", id: "file",
      onchange: event => take(event.target.files[0])});
    const seat = make("div", {class: "camera"});
    return make("div", {class: "zone"},
      make("p", {}, make("strong", {}, "Drop a picture of your own here"), ", paste one, or choose:"),
      make("div", {class: "bar"}, make("label", {class: "button"}, "A file ", chooser),
        navigator.mediaDevices ? make("button", {type: "button", onclick: () => camera(seat)}, "The camera") : null), seat);
  }

  /** Show what the camera sees until a picture is taken or the page is left. */
  async function camera(seat) {
    stop();
    const turn = turns;
    try {
      const given = await navigator.mediaDevices.getUserMedia({video: true});
      if (turn !== turns) return off(given);
      stream = given;
      const video = make("video", {autoplay: true, playsinline: true, "aria-label": "what the camera sees"});
      video.muted = true;
      video.srcObject = stream;
      seat.replaceChildren(video, make("button", {type: "button", onclick: () => { shoot(video); stop(); }}, "Take the picture"));
    } catch (error) { seat.replaceChildren(trouble(new Error(`The camera cannot be used: ${error.message}`))); }
  }

  const off = given => given.getTracks().forEach(track => track.stop());

  /** Turn the camera off; one that is allowed only afterwards does not stay on. */
  function stop() {
    turns++;
    if (stream) off(stream);
    stream = null;
  }

  function shoot(video) {
    const canvas = make("canvas", {width: video.videoWidth, height: video.videoHeight});
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob(take, "image/png");
  }

  const how = () => make("p", {class: "faint"}, coded("`zfcore atlas --serve` opens this atlas with a place to drop pictures " +
    "of your own: their projections, and what happens when a part is covered."));

  /** The part of a page that asks for a picture, or says what would let one be given. */
  const invitation = () => section("A picture of your own", api ? zone() : how());

  /** Any unit of any layer on this picture, by any of the rules. */
  function project(picture) {
    const strongest = new Map(picture.layers.map(layer => [layer.name, layer.units[0]]));
    const seat = make("div", {class: "projected", "aria-live": "polite"});
    const asked = {layer: [...strongest.keys()].pop() ?? api.layers[0], rule: api.rules[0]};
    asked.unit = strongest.get(asked.layer) ?? 0;
    const unit = make("input", {type: "number", min: 0, id: "unit", value: asked.unit,
      onchange: event => again({unit: Number(event.target.value)})});
    let turns = 0;
    async function again(change) {
      Object.assign(asked, change);
      const turn = ++turns, query = new URLSearchParams({id: picture.id, ...asked});
      const found = await ask(`/api/project?${query}`).then(answer => projected(asked, answer, picture), trouble);
      if (turn === turns) seat.replaceChildren(found);
    }
    const layer = make("select", {id: "layer", onchange: event => {
      unit.value = strongest.get(event.target.value) ?? 0;
      again({layer: event.target.value, unit: Number(unit.value)});
    }}, api.layers.map(one => make("option", {value: one, selected: one === asked.layer}, one)));
    again({});
    return section("Any unit", make("div", {class: "controls"},
      make("label", {}, "Layer ", layer), make("label", {}, "Unit ", unit),
      choice("Rule", api.rules.map(rule => [rule, rule]), asked.rule, rule => again({rule}))), seat);
  }

  function projected({layer, unit, rule}, {value, box, image}, picture) {
    const alt = atlas.words.alt(`${rule} projection`, unit, layer, picture.name, value);
    const {node, move} = atlas.picturePage.boxed(picture);
    move(box);
    return make("figure", {}, make("div", {class: "stages"}, node, make("img", {class: "plain", src: image, alt})),
      make("figcaption", {}, `Unit ${unit} of `, name(layer), ` by ${rule}: ${number(value)}. The box is what it sees.`));
  }

  /** The occlusion follows when the server has it; it is asked for once. */
  function later(picture) {
    const seat = section("Covered by a grey square", make("p", {class: "wait"}, "The square is being moved over the picture."));
    last.occlusion = last.occlusion || ask(`/api/occlusion?${new URLSearchParams({id: picture.id})}`);
    last.occlusion.then(occlusion => atlas.occlusion.show(picture, occlusion), trouble)
      .then(found => seat.lastChild.replaceWith(found));
    return seat;
  }

  async function show() {
    const title = "A picture of your own", page = inside => ({title, back: "#", node: [make("h1", {}, title), inside]});
    if (!api) return page(how());
    if (!last) return page(zone());
    put(document.getElementById("main"), page(make("p", {class: "wait", role: "status"}, "The network looks at it.")).node);
    const found = await last.looking.then(
      picture => [atlas.picturePage.draw(picture, later(picture)), project(picture)], trouble);
    return page([found, section("Another one", zone())]);
  }

  atlas.live = {start, invitation, show, serves: () => api !== null};
})();
