// The pixels along a line over time, frame below frame, of every method; the reader draws the line on a frame.
class Profile {
  static HEIGHT = 96;            // pixels of a short clip's profile at least
  static STEP = 0.01;            // of the picture, by which an arrow key moves the line
  static TURN = Math.PI / 36;    // by which [ and ] turn it
  static GROW = 1.1;

  constructor(panel) {
    this.panel = panel;
    this.clip = panel.closest(".clip");
    this.stage = panel.querySelector(".draw");
    this.canvas = this.stage.querySelector("canvas");
    this.first = [{x: 0, y: Number(panel.dataset.at)}, {x: 1, y: Number(panel.dataset.at)}];
    this.line = this.first;
  }

  async build() {
    this.figures = await Promise.all([...this.panel.querySelectorAll(".grid figure")].map(async figure => ({
      canvas: figure.querySelector("canvas"), caption: figure.querySelector("figcaption"),
      frames: await Promise.all([...figure.querySelectorAll("template")].map(async store => {
        const image = new Image();
        image.src = store.dataset.src;
        await image.decode();
        return image;
      })),
    })));
    const sharp = this.figures.at(-1).frames;
    this.shown = sharp[Math.floor(sharp.length / 2)];
    this.listen();
    this.draw();
  }

  listen() {
    const place = event => {
      const box = this.canvas.getBoundingClientRect(), inside = value => Math.min(1, Math.max(0, value));
      return {x: inside((event.clientX - box.left) / box.width), y: inside((event.clientY - box.top) / box.height)};
    };
    let start = null;
    this.canvas.onpointerdown = event => { start = place(event); this.canvas.setPointerCapture(event.pointerId); };
    this.canvas.onpointermove = event => { if (start) this.put([start, place(event)]); };
    this.canvas.onpointerup = this.canvas.onpointercancel = () => { start = null; };
    const save = kind => () => Strip.save(this.strip(), `${this.clip.dataset.clip}_profile`, kind);
    const move = (x, y) => () => this.put(this.line.map(end => ({x: end.x + x * Profile.STEP, y: end.y + y * Profile.STEP})));
    const about = change => () => this.put(this.about(change));
    const turn = angle => about(([x, y]) => [x * Math.cos(angle) - y * Math.sin(angle), x * Math.sin(angle) + y * Math.cos(angle)]);
    const grow = factor => about(([x, y]) => [x * factor, y * factor]);
    const actions = {reset: () => this.put(this.first), png: save("png"), pdf: save("pdf")};
    for (const button of this.panel.querySelectorAll("button")) button.onclick = actions[button.dataset.do];
    const keys = {
      ArrowLeft: move(-1, 0), ArrowRight: move(1, 0), ArrowUp: move(0, -1), ArrowDown: move(0, 1), "0": actions.reset,
      "[": turn(-Profile.TURN), "]": turn(Profile.TURN), "+": grow(Profile.GROW), "=": grow(Profile.GROW),
      "-": grow(1 / Profile.GROW), s: actions.png, p: actions.pdf,
    };
    this.stage.addEventListener("keydown", event => {
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
    new ResizeObserver(() => this.draw()).observe(this.stage);
  }

  // The line's ends after a change of their places in pixels from its middle.
  about(change) {
    const [a, b] = this.pixels(this.line, this.shown), middle = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    return [a, b].map(end => {
      const [x, y] = change([end[0] - middle[0], end[1] - middle[1]]);
      return {x: (middle[0] + x) / this.shown.naturalWidth, y: (middle[1] + y) / this.shown.naturalHeight};
    });
  }

  pixels(line, image) {
    return line.map(end => [end.x * image.naturalWidth, end.y * image.naturalHeight]);
  }

  // A line that leaves the picture, or has no length, is not taken.
  put(line) {
    const [a, b] = this.pixels(line, this.shown), slack = 1e-9;
    if (line.some(({x, y}) => Math.min(x, y) < -slack || Math.max(x, y) > 1 + slack) || Math.hypot(b[0] - a[0], b[1] - a[1]) < 2) return;
    this.line = line;
    this.draw();
  }

  draw() {
    this.canvas.width = Math.round(this.canvas.clientWidth * devicePixelRatio);
    this.canvas.height = Math.round(this.canvas.width * this.shown.naturalHeight / this.shown.naturalWidth);
    const context = this.canvas.getContext("2d");
    context.drawImage(this.shown, 0, 0, this.canvas.width, this.canvas.height);
    context.strokeStyle = Strip.RED;
    context.lineWidth = 2 * devicePixelRatio;
    this.mark(context, this.canvas.width, this.canvas.height);
    for (const figure of this.figures) this.profile(figure);
  }

  // The line, with a ring where it begins: the profile's left.
  mark(context, width, height) {
    const [a, b] = this.line;
    context.beginPath();
    context.moveTo(a.x * width, a.y * height);
    context.lineTo(b.x * width, b.y * height);
    context.moveTo(a.x * width + 5, a.y * height);
    context.arc(a.x * width, a.y * height, 5, 0, 2 * Math.PI);
    context.stroke();
  }

  // Turns every frame so that the line lies on its own row, one pixel high.
  profile({canvas, frames}) {
    const [a, b] = this.pixels(this.line, frames[0]), length = Math.hypot(b[0] - a[0], b[1] - a[1]);
    const columns = Math.round(length), [u, v] = [(b[0] - a[0]) / length, (b[1] - a[1]) / length], scale = columns / length;
    const thick = Math.max(1, Math.floor(Profile.HEIGHT / frames.length));
    canvas.width = columns;
    canvas.height = frames.length;
    canvas.style.aspectRatio = `${columns} / ${frames.length * thick}`;
    const context = canvas.getContext("2d");
    frames.forEach((frame, row) => {
      context.save();
      context.beginPath();
      context.rect(0, row, columns, 1);
      context.clip();
      context.setTransform(u * scale, -v, v * scale, u, -(a[0] * u + a[1] * v) * scale, a[0] * v - a[1] * u + row + 0.5);
      context.drawImage(frame, 0, 0);
      context.restore();
    });
  }

  strip() {
    const items = this.figures.map(({canvas, caption}) => ({
      title: caption.textContent,
      paint: (context, ...box) => { context.imageSmoothingEnabled = false; context.drawImage(canvas, ...box); },
    }));
    const ratio = this.shown.naturalWidth / this.shown.naturalHeight;
    return Strip.draw(ratio, {image: this.shown, mark: (...where) => this.mark(...where)}, items);
  }
}
for (const panel of document.querySelectorAll("details.profile")) {
  panel.addEventListener("toggle", () => { if (panel.open) new Profile(panel).build().then(() => { panel.dataset.built = ""; }); }, {once: true});
}
