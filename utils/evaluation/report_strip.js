// A figure for a paper: a picture with a mark in red, then what each method shows, under its title; saved as PNG or PDF.
class Strip {
  static HEIGHT = 256;  // pixels of the pictures
  static GAP = 8;
  static TITLE = 28;    // pixels below the pictures
  static RED = "#e00000";
  static DOT = 72 / 300;  // points of a pixel in the PDF, which is printed at 300 dpi

  // first: {image, mark(context, width, height)}; items: {title, paint(context, left, top, width, height)}.
  static draw(ratio, first, items) {
    const height = Strip.HEIGHT, width = Math.round(height * ratio), step = width + Strip.GAP;
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
    canvas.width = step * (items.length + 1) - Strip.GAP;
    canvas.height = height + Strip.TITLE;
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(first.image, 0, 0, width, height);
    context.strokeStyle = Strip.RED;
    context.lineWidth = 3;
    first.mark(context, width, height);
    context.fillStyle = "#000";
    context.font = "16px sans-serif";
    context.textAlign = "center";
    items.forEach(({title, paint}, number) => {
      const left = (number + 1) * step;
      paint(context, left, 0, width, height);
      context.strokeRect(left + 1.5, 1.5, width - 3, height - 3);
      context.fillText(title, left + width / 2, height + 20, width);
    });
    return canvas;
  }

  // kind: "png" or "pdf".
  static async save(canvas, name, kind) {
    const link = document.createElement("a");
    link.href = kind === "png" ? canvas.toDataURL("image/png") : URL.createObjectURL(await Strip.pdf(canvas));
    link.download = `${name.replace(/[^\w.-]+/g, "_")}.${kind}`;
    link.click();
  }

  // One page of the canvas's size with its pixels, lossless (PDF 32000-1:2008, 7.4.4: FlateDecode).
  static async pdf(canvas) {
    const {width, height} = canvas, rgba = canvas.getContext("2d").getImageData(0, 0, width, height).data;
    const rgb = new Uint8Array(3 * width * height);
    for (let i = 0, j = 0; i < rgba.length; i += 4) {
      for (let channel = 0; channel < 3; channel++) rgb[j++] = rgba[i + channel];
    }
    const squeezed = new Blob([rgb]).stream().pipeThrough(new CompressionStream("deflate"));
    const pixels = new Uint8Array(await new Response(squeezed).arrayBuffer());
    const [x, y] = [width, height].map(side => (side * Strip.DOT).toFixed(2)), content = `${x} 0 0 ${y} 0 0 cm /I Do`;
    const objects = [
      ["<< /Type /Catalog /Pages 2 0 R >>"],
      ["<< /Type /Pages /Kids [3 0 R] /Count 1 >>"],
      [`<< /Type /Page /Parent 2 0 R /MediaBox [0 0 ${x} ${y}] /Contents 4 0 R /Resources << /XObject << /I 5 0 R >> >> >>`],
      [`<< /Length ${content.length} >>\nstream\n${content}\nendstream`],
      [
        `<< /Type /XObject /Subtype /Image /Width ${width} /Height ${height} /ColorSpace /DeviceRGB ` +
        `/BitsPerComponent 8 /Filter /FlateDecode /Length ${pixels.length} >>\nstream\n`, pixels, "\nendstream",
      ],
    ];
    const parts = ["%PDF-1.4\n"], places = [];
    let length = parts[0].length;
    const add = part => { parts.push(part); length += part.length; };  // all texts are ASCII: a letter is a byte
    objects.forEach((object, number) => {
      places.push(length);
      [`${number + 1} 0 obj\n`, ...object, "\nendobj\n"].forEach(add);
    });
    const rows = places.map(place => `${String(place).padStart(10, "0")} 00000 n \n`).join(""), count = objects.length + 1;
    parts.push(`xref\n0 ${count}\n0000000000 65535 f \n${rows}trailer\n<< /Size ${count} /Root 1 0 R >>\nstartxref\n${length}\n%%EOF\n`);
    return new Blob(parts, {type: "application/pdf"});
  }
}
