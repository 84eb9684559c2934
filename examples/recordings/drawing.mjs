// Draws a screen as SVG, and reads the text of such a drawing.

import { COLUMNS } from "./screen.mjs";

// Sizes in pixels. The width of a letter holds for any font, since each run of text has its length.
const [LETTER, LINE, MARGIN] = [7.8, 18, 16];
// The pause before a command and the longest pause within its output, in seconds.
const [TYPING, LONGEST] = [2, 1.5];

const STYLE = `
text { font: 13px ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; fill: #1f2328; white-space: pre; }
.paper { fill: #f6f8fa; stroke: #d1d9e0; }
.bold, .command { font-weight: 600; }
.prompt { fill: #59636e; }
.red { fill: #b4232a; }
.green { fill: #15703c; }
.yellow { fill: #7d5a00; }
.blue, .cyan { fill: #1d5fb8; }
.magenta { fill: #7e22ce; }
g { animation: appear .01s backwards; }
@keyframes appear { from { opacity: 0; } }
@media (prefers-reduced-motion) { g { animation: none; } }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .paper { fill: #0d1117; stroke: #3d444d; }
  .prompt { fill: #9198a1; }
  .red { fill: #ff7b80; }
  .green { fill: #5cc98a; }
  .yellow { fill: #e3b341; }
  .blue, .cyan { fill: #7db4f5; }
  .magenta { fill: #cf9bff; }
}
`;

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

/** Returns the parts of a row that have one style: column, style, text. */
function runs(row) {
  const runs = [];
  row.forEach(({ text, style }, column) => {
    const last = runs.at(-1);
    if (last?.style === style) last.text += text;
    else runs.push({ column, style, text });
  });
  if (runs.length > 0) runs.at(-1).text = runs.at(-1).text.trimEnd();
  return runs.filter(({ text }) => text.trim() !== "");
}

export function draw(title, screen) {
  const rows = screen.rows.map(runs);
  while (rows.at(-1)?.length === 0) rows.pop();
  const [width, height] = [COLUMNS * LETTER + 2 * MARGIN, rows.length * LINE + 2 * MARGIN];
  let [last, delay] = [0, 0];
  const groups = rows.map((runs, row) => {
    const time = screen.rows[row].time ?? last;
    const isCommand = runs[0]?.style === "prompt";
    delay += isCommand ? TYPING : Math.min(Math.max(0, time - last) / 1000, LONGEST);
    last = time;
    const y = MARGIN + row * LINE + 13;
    const texts = runs.map(({ column, style, text }) => {
      const [x, length] = [MARGIN + column * LETTER, [...text].length * LETTER];
      const look = style && ` class="${style}"`;
      return `<text${look} x="${+x.toFixed(1)}" y="${y}" textLength="${+length.toFixed(1)}">${escaped(text)}</text>`;
    });
    return `<g style="animation-delay:${delay.toFixed(2)}s">${texts.join("")}</g>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escaped(title)}">
<title>${escaped(title)}</title>
<style>${STYLE}</style>
<rect class="paper" x=".5" y=".5" width="${width - 1}" height="${height - 1}" rx="8"/>
${groups.join("\n")}
</svg>
`;
}

/** Returns the lines of text of a drawing. */
export function lines(drawing) {
  const entities = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"' };
  const rows = [...drawing.matchAll(/^<g [^>]*>(.*)<\/g>$/gm)];
  return rows.map(([, row]) => {
    const texts = [...row.matchAll(/<text[^>]* x="([\d.]+)"[^>]*>([^<]*)<\/text>/g)];
    return texts.reduce((line, [, x, text]) => {
      const column = Math.round((x - MARGIN) / LETTER);
      return line.padEnd(column) + text.replace(/&\w+;/g, (entity) => entities[entity]);
    }, "");
  });
}
