// The screen of a terminal, as far as cargo, libtest and progress bars use one.

export const COLUMNS = 110;

export class Screen {
  /** Rows of cells `{ text, style }`; each row has the time of its first character. */
  rows = [];
  #row = 0;
  #column = 0;
  #style = "";
  #rest = "";
  #begin = Date.now();

  /** Shows a command as if it was typed at a prompt. */
  prompt(command) {
    if (this.rows.length > 0) this.#row = this.rows.length + 1;
    this.#column = 0;
    this.#style = "prompt";
    this.#print("$ ");
    this.#style = "command";
    for (const character of command) this.#print(character);
    this.#style = "";
    this.#row++;
    this.#column = 0;
  }

  /** Obeys the output of a program. A sequence may be cut in two. */
  write(output) {
    this.#rest += output;
    const tokens = /\x1b\[([?\d;]*)([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]|[^\x1b]/gy;
    let end = 0;
    for (const [token, parameters, letter] of this.#rest.matchAll(tokens)) {
      end += token.length;
      if (letter) this.#control(letter, parameters);
      else if (token === "\n") this.#row++;
      else if (token === "\r") this.#column = 0;
      else if (token >= " " && token.length === 1) this.#print(token);
    }
    this.#rest = this.#rest.slice(end);
  }

  #control(letter, parameters) {
    const number = Number.parseInt(parameters, 10) || 0;
    if (letter === "m") this.#colour(parameters);
    if (letter === "A") this.#row = Math.max(0, this.#row - Math.max(1, number));
    if (letter === "B") this.#row += Math.max(1, number);
    if (letter === "G") this.#column = Math.max(1, number) - 1;
    if (letter === "K") this.#cells().splice(number === 2 ? 0 : this.#column);
    if (letter === "J") {
      this.#cells().splice(this.#column);
      this.rows.splice(this.#row + 1);
    }
  }

  #colour(parameters) {
    const names = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
    for (const code of parameters.split(";").map(Number)) {
      const colour = names[code % 10];
      const isColour = (code >= 30 && code <= 37) || (code >= 90 && code <= 97);
      if (code === 0) this.#style = "";
      else if (code === 1) this.#style = `${this.#style} bold`.trim();
      else if (isColour) this.#style = `${this.#style.includes("bold") ? "bold " : ""}${colour}`;
      else if (code === 39) this.#style = this.#style.includes("bold") ? "bold" : "";
    }
  }

  #cells() {
    while (this.rows.length <= this.#row) this.rows.push(Object.assign([], { time: undefined }));
    return this.rows[this.#row];
  }

  #print(characters) {
    for (const text of characters) {
      if (this.#column === COLUMNS) {
        this.#row++;
        this.#column = 0;
      }
      const cells = this.#cells();
      while (cells.length < this.#column) cells.push({ text: " ", style: "" });
      cells[this.#column++] = { text, style: this.#style };
      cells.time ??= Date.now() - this.#begin;
    }
  }
}
