// Sorts and filters the table of tests.
"use strict";
const body = document.querySelector("#tests tbody");
const rows = [...body.rows];
const [text, outcome, shown] = ["text", "outcome", "shown"].map((id) => document.getElementById(id));

function filter() {
  const words = text.value.toLowerCase().split(/\s+/);
  let count = 0;
  for (const row of rows) {
    const content = row.textContent.toLowerCase();
    const fits = !outcome.value || row.dataset.outcome === outcome.value;
    row.hidden = !fits || !words.every((word) => content.includes(word));
    count += row.hidden ? 0 : 1;
  }
  shown.textContent = `${count} of ${rows.length}`;
}

// Cells with times hold microseconds, or nothing.
function compare(column, a, b) {
  const [one, other] = [a, b].map((row) => row.cells[column]);
  if (one.dataset.us === undefined) return one.textContent.localeCompare(other.textContent);
  return (one.dataset.us || -1) - (other.dataset.us || -1);
}

function sort(head) {
  const isNumber = head.classList.contains("number");
  const order = { ascending: "descending", descending: "ascending" };
  const next = order[head.getAttribute("aria-sort")] ?? (isNumber ? "descending" : "ascending");
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", next);
  const sign = next === "ascending" ? 1 : -1;
  rows.sort((a, b) => sign * compare(head.cellIndex, a, b));
  body.append(...rows);
}

for (const head of document.querySelectorAll("#tests th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  button.addEventListener("click", () => sort(head));
  head.append(button);
}
text.addEventListener("input", filter);
outcome.addEventListener("input", filter);
document.querySelector(".controls").hidden = false;
filter();
