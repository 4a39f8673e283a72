// All methods of a clip enlarged alike: one view (centre and magnification) for every canvas. Built when it is opened.
class Zoom {
  static MOST = 32;     // magnification at which a pixel is large enough to be counted
  static GAIN = 4;      // of the error map: an error of a quarter of the range is white

  constructor(panel) {
    this.panel = panel;
    this.clip = panel.closest(".clip");
    this.grid = panel.querySelector(".grid");
    this.view = {x: 0.5, y: 0.5, zoom: 1};
    this.pointers = new Map();
    this.errors = false;
  }

  async build() {
    const stores = [...this.clip.querySelectorAll(":scope > template[data-view]")];
    this.figures = await Promise.all(stores.map(async store => {
      const image = new Image();
      image.src = store.dataset.src;
      await image.decode();
      const figure = document.createElement("figure"), canvas = document.createElement("canvas");
      const caption = document.createElement("figcaption");
      figure.append(canvas, caption);
      return {name: store.dataset.view, image, figure, canvas, caption, error: null};
    }));
    this.shape = this.figures.find(each => each.name === "").image;
    this.sharp = this.figures.find(each => each.name === "sharp");
    this.panel.querySelector('[data-do="error"]').hidden = !this.sharp;
    this.grid.replaceChildren(...this.figures.map(each => each.figure));
    this.listen();
    this.draw();
  }

  listen() {
    this.grid.addEventListener("wheel", event => {
      if (event.deltaY > 0 && this.view.zoom === 1) return;  // nothing to zoom out of: the page scrolls
      event.preventDefault();
      this.magnify(Math.exp(-event.deltaY / 300), this.place(event));
    }, {passive: false});
    this.grid.addEventListener("pointerdown", event => {
      if (event.target.tagName !== "CANVAS") return;
      event.target.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
    });
    this.grid.addEventListener("pointermove", event => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) {
      this.grid.addEventListener(name, event => this.pointers.delete(event.pointerId));
    }
    this.grid.addEventListener("dblclick", event => this.magnify(2, this.place(event)));
    const save = kind => () => Strip.save(this.strip(), `${this.clip.dataset.clip}_crops`, kind);
    const actions = {
      in: () => this.magnify(1.5), out: () => this.magnify(1 / 1.5), whole: () => this.look({x: 0.5, y: 0.5, zoom: 1}),
      error: () => { this.errors = Boolean(this.sharp) && !this.errors; this.draw(); }, png: save("png"), pdf: save("pdf"),
    };
    for (const button of this.panel.querySelectorAll("button")) button.onclick = actions[button.dataset.do];
    const step = (x, y) => () => this.look({...this.view, x: this.view.x + x * 0.1 / this.view.zoom, y: this.view.y + y * 0.1 / this.view.zoom});
    const keys = {
      "+": actions.in, "=": actions.in, "-": actions.out, "0": actions.whole, e: actions.error, s: actions.png, p: actions.pdf,
      ArrowLeft: step(-1, 0), ArrowRight: step(1, 0), ArrowUp: step(0, -1), ArrowDown: step(0, 1),
    };
    this.grid.addEventListener("keydown", event => {
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
    new ResizeObserver(() => this.draw()).observe(this.grid);
    document.getElementById("language").addEventListener("click", () => setTimeout(() => this.draw()));
  }

  // Where in the picture an event is, from 0 to 1.
  place(event) {
    const canvas = event.target.closest("canvas");
    if (!canvas) return this.view;
    const box = canvas.getBoundingClientRect();
    return {
      x: this.view.x + ((event.clientX - box.left) / box.width - 0.5) / this.view.zoom,
      y: this.view.y + ((event.clientY - box.top) / box.height - 0.5) / this.view.zoom,
    };
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.pointers.values()].filter(each => each.pointerId !== event.pointerId);
    const box = event.target.getBoundingClientRect();
    if (others.length) {  // two fingers
      const distance = each => Math.hypot(each.clientX - others[0].clientX, each.clientY - others[0].clientY);
      this.magnify(distance(event) / Math.max(1, distance(before)));
    } else {
      this.look({
        ...this.view,
        x: this.view.x - (event.clientX - before.clientX) / box.width / this.view.zoom,
        y: this.view.y - (event.clientY - before.clientY) / box.height / this.view.zoom,
      });
    }
    this.pointers.set(event.pointerId, event);
  }

  // Changes the magnification and keeps a place of the picture where it is seen.
  magnify(factor, place = this.view) {
    const zoom = Math.min(Zoom.MOST, Math.max(1, this.view.zoom * factor)), moved = this.view.zoom / zoom;
    this.look({x: place.x + (this.view.x - place.x) * moved, y: place.y + (this.view.y - place.y) * moved, zoom});
  }

  look({x, y, zoom}) {
    const half = 0.5 / zoom, inside = value => Math.min(1 - half, Math.max(half, value));
    this.view = {x: inside(x), y: inside(y), zoom};
    this.draw();
  }

  draw() {
    const titles = Object.fromEntries([...this.clip.querySelector(".pick select").options].map(each => [each.value, each.text]));
    this.grid.style.touchAction = this.view.zoom > 1 ? "none" : "pan-y";
    for (const each of this.figures) {
      each.caption.textContent = titles[each.name];
      const width = Math.round(each.figure.clientWidth * devicePixelRatio);
      each.canvas.width = width;
      each.canvas.height = Math.round(width * this.shape.naturalHeight / this.shape.naturalWidth);
      this.paint(each.canvas.getContext("2d"), this.source(each), 0, 0, each.canvas.width, each.canvas.height);
    }
    this.panel.querySelector("output").value = `${this.view.zoom.toFixed(1)}×`;
  }

  paint(context, source, left, top, width, height) {
    const {x, y, zoom} = this.view, columns = source.naturalWidth ?? source.width, rows = source.naturalHeight ?? source.height;
    context.imageSmoothingEnabled = zoom < 2;
    context.drawImage(source, (x - 0.5 / zoom) * columns, (y - 0.5 / zoom) * rows, columns / zoom, rows / zoom, left, top, width, height);
  }

  // The picture itself, or where it departs from the sharp one.
  source(each) {
    if (!this.errors || each === this.sharp || each.name === "spikes") return each.image;
    each.error ??= Zoom.difference(each.image, this.sharp.image);
    return each.error;
  }

  static difference(image, sharp) {
    const [width, height] = [sharp.naturalWidth, sharp.naturalHeight];
    const [first, second] = [image, sharp].map(picture => {
      const canvas = Object.assign(document.createElement("canvas"), {width, height});
      const context = canvas.getContext("2d", {willReadFrequently: true});
      context.drawImage(picture, 0, 0, width, height);
      return {canvas, context, pixels: context.getImageData(0, 0, width, height)};
    });
    const a = first.pixels.data, b = second.pixels.data;
    for (let i = 0; i < a.length; i += 4) {
      const error = Zoom.GAIN / 3 * (Math.abs(a[i] - b[i]) + Math.abs(a[i + 1] - b[i + 1]) + Math.abs(a[i + 2] - b[i + 2]));
      a[i] = a[i + 1] = a[i + 2] = error;
    }
    first.context.putImageData(first.pixels, 0, 0);
    return first.canvas;
  }

  // The first picture with the box in red, and the box of every method.
  strip() {
    const {x, y, zoom} = this.view;
    const items = this.figures.map(each => ({
      title: each.caption.textContent, paint: (context, ...box) => this.paint(context, this.source(each), ...box),
    }));
    const mark = (context, width, height) =>
      context.strokeRect((x - 0.5 / zoom) * width, (y - 0.5 / zoom) * height, width / zoom, height / zoom);
    return Strip.draw(this.shape.naturalWidth / this.shape.naturalHeight, {image: this.figures[0].image, mark}, items);
  }
}
for (const panel of document.querySelectorAll("details.zoom")) {
  panel.addEventListener("toggle", () => { if (panel.open) new Zoom(panel).build().then(() => { panel.dataset.built = ""; }); }, {once: true});
}
