// Checks pages in a browser: `.ci/pages` makes them and calls this.

import { readFile, readdir } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, relative, resolve } from "node:path";

import { Browser } from "./browser.mjs";

const [reports, documentation] = process.argv.slice(2).map((path) => resolve(path));
const failures = [];

function check(page, fact, holds) {
  if (!holds) failures.push(`${page}: ${fact}`);
}

/** Returns the texts that contrast too little with their background (WCAG 2, level AA). */
function faintTexts() {
  const channels = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const luminance = (colour) => {
    const [r, g, b] = channels(colour).map((it) => (it /= 255) <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const isOpaque = (colour) => colour.startsWith("rgb") && (channels(colour)[3] ?? 1) > 0.5;
  const shape = (element) => element instanceof SVGElement && !(element instanceof SVGSVGElement);
  const paint = (element) => getComputedStyle(element)[shape(element) ? "fill" : "backgroundColor"];
  const faint = [];
  const texts = document.createTreeWalker(document.body ?? document.documentElement, NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const element = node.parentElement;
    const range = document.createRange();
    range.selectNodeContents(node);
    const { x, y, width, height } = range.getBoundingClientRect();
    if (!node.textContent.trim() || width === 0 || element.closest("title, style, script, option")) continue;
    const below = document.elementsFromPoint(x + width / 2, y + height / 2);
    const background = below.find((it) => !it.matches("text") && isOpaque(paint(it))) ?? document.documentElement;
    const ink = getComputedStyle(element)[shape(element) ? "fill" : "color"];
    const both = [luminance(ink), luminance(paint(background))].sort((a, b) => b - a);
    const contrast = (both[0] + 0.05) / (both[1] + 0.05);
    if (contrast < 4.5) faint.push(`${node.textContent.trim().slice(0, 40)} (${contrast.toFixed(1)})`);
  }
  return faint;
}

/** Returns the colours of each phase: in legend, chart and bars, and in the table. */
function coloursOfPhases() {
  const names = ["layer", "queue", "launch", "server", "connect", "test", "end"];
  const colours = names.map((name) => {
    const fills = [...document.querySelectorAll(`svg .${name}`)].map((it) => getComputedStyle(it).fill);
    return [name, [...new Set(fills)]];
  });
  return colours.filter(([, fills]) => fills.length > 0);
}

/** Clicks the head of each column, twice; returns those whose rows are then in a wrong order. */
function wrongOrders() {
  const table = document.querySelector("#tests table");
  const wrong = [];
  for (const head of table.tHead.rows[0].cells) {
    for (let click = 0; click < 2; click++) {
      head.querySelector("button").click();
      const cells = [...table.tBodies[0].rows].map((row) => row.cells[head.cellIndex]);
      const values = cells.map((cell) => (cell.dataset.us === undefined ? cell.textContent : Number(cell.dataset.us || -1)));
      const order = head.getAttribute("aria-sort");
      const sorted = [...values].sort((a, b) => (typeof a === "number" ? a - b : a.localeCompare(b)));
      if (order === "descending") sorted.reverse();
      const isMarked = table.querySelectorAll("[aria-sort]").length === 1 && order !== null;
      if (!isMarked || sorted.join() !== values.join()) wrong.push(`${head.textContent}, ${order}: ${values}`);
    }
  }
  return wrong;
}

/** Returns the rows that are shown, as name and outcome, and the number that the page shows. */
function shownRows() {
  const rows = [...document.querySelectorAll("#tests tbody tr")].filter((row) => row.getClientRects().length > 0);
  const shown = rows.map((row) => [row.cells[3].textContent, row.cells[5].textContent]);
  return { shown, count: document.getElementById("shown").textContent };
}

async function checkReport(browser, name) {
  const address = `file://${join(reports, name)}`;
  for (const dark of [false, true]) {
    const page = `${name}, ${dark ? "dark" : "light"}`;
    const tab = await browser.tab({ dark, height: 4000 });
    await tab.open(address);
    check(page, `requests ${tab.requests}`, tab.requests.every((it) => it === address || it.startsWith("data:")));
    const paper = await tab.run(() => getComputedStyle(document.body).backgroundColor);
    check(page, `its paper is ${paper}`, paper === (dark ? "rgb(13, 17, 23)" : "rgb(255, 255, 255)"));
    const faint = await tab.run(faintTexts);
    check(page, `faint texts: ${faint.join(", ")}`, faint.length === 0);
    for (const [phase, colours] of await tab.run(coloursOfPhases)) {
      check(page, `${phase} has the colours ${colours.join(" and ")}`, colours.length === 1);
    }
    const { nodes } = await tab.call("Accessibility.getFullAXTree");
    const roles = ["button", "searchbox", "combobox", "image", "region", "figure"];
    const unnamed = nodes.filter((it) => !it.ignored && roles.includes(it.role?.value) && !it.name?.value);
    check(page, `without a label: ${unnamed.map((it) => it.role.value)}`, unnamed.length === 0);
    await tab.resize(390, 844);
    const width = await tab.run(() => document.documentElement.scrollWidth);
    check(page, `${width} pixels wide on a phone`, width <= 390);
    check(page, tab.errors.join("; "), tab.errors.length === 0);
    await tab.close();
  }
  const tab = await browser.tab();
  await tab.open(address);
  const wrong = await tab.run(wrongOrders);
  check(name, `sorted wrongly: ${wrong.join("; ")}`, wrong.length === 0);
  const { shown: all } = await tab.run(shownRows);
  check(name, "it lists no tests", all.length > 0);
  const outcomes = await tab.run(() => [...document.getElementById("outcome").options].map((it) => it.value));
  for (const outcome of outcomes.filter(Boolean)) {
    await tab.run((outcome) => {
      const select = document.getElementById("outcome");
      select.value = outcome;
      select.dispatchEvent(new Event("input"));
    }, outcome);
    const { shown } = await tab.run(shownRows);
    const expected = all.filter(([, it]) => it === outcome).length;
    check(name, `${outcome}: shows ${shown}`, expected > 0 && shown.length === expected && shown.every(([, it]) => it === outcome));
    await tab.run(() => (document.getElementById("outcome").value = ""));
  }
  // As a user types it.
  const wanted = all[0][0];
  await tab.run(() => document.getElementById("text").focus());
  await tab.call("Input.insertText", { text: wanted.toUpperCase() });
  const { shown, count } = await tab.run(shownRows);
  const expected = all.filter(([name]) => name.includes(wanted)).length;
  check(name, `filtered by ${wanted}: ${shown}`, shown.length === expected && shown.every(([name]) => name.includes(wanted)));
  check(name, `counts ${count}`, count === `${expected} of ${all.length}`);
  check(name, tab.errors.join("; "), tab.errors.length === 0);
  await tab.close();
  return all;
}

/** The failed run has a message for each failed test, and the command that opens kept data. */
async function checkFailures(browser) {
  const tab = await browser.tab();
  await tab.open(`file://${join(reports, "failed.html")}`);
  const articles = await tab.run(() => [...document.querySelectorAll("article")].map((it) => it.innerText));
  const texts = ["the shelves hold the returned goods", "sandboxed-db open", "missing.sql", "last seen in the phase"];
  for (const text of texts) check("failed.html", `no test with ${text}`, articles.some((it) => it.includes(text)));
  const header = await tab.run(() => document.querySelector("header").innerText);
  check("failed.html", `its header is ${header}`, /\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC/.test(header) && header.includes("cargo test"));
  await tab.close();
}

async function checkPicture(browser, path) {
  for (const dark of [false, true]) {
    const tab = await browser.tab({ dark, height: 2000 });
    await tab.open(`file://${path}`);
    await tab.run(() => document.getAnimations().forEach((animation) => animation.finish()));
    const page = `${relative(".", path)}, ${dark ? "dark" : "light"}`;
    const faint = await tab.run(faintTexts);
    check(page, `faint texts: ${faint.join(", ")}`, faint.length === 0);
    check(page, tab.errors.join("; "), tab.errors.length === 0);
    await tab.close();
  }
}

/** Serves a directory on a free port: browsers restrict scripts of local files. */
async function serve(directory) {
  const types = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml" };
  const server = createServer(async (request, response) => {
    try {
      const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
      const contents = await readFile(join(directory, path.endsWith("/") ? `${path}index.html` : path));
      response.writeHead(200, { "content-type": types[extname(path)] ?? "application/octet-stream" });
      response.end(contents);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

/**
 * Opens the chapters and modules of the documentation, and reads all other pages. Links within it
 * must lead to a page and a place there.
 */
async function checkDocumentation(browser) {
  const files = await readdir(documentation, { recursive: true });
  // Links of a program to the library name private modules, and only libraries are published.
  const pages = files.filter((it) => /^sandboxed_db(_macros|_fixtures)?\/.*\.html$/.test(it));
  check("documentation", `${pages.length} pages in ${documentation}`, pages.length > 20);
  const server = await serve(documentation);
  const root = `http://127.0.0.1:${server.address().port}/`;
  for (const dark of [true, false]) {
    const tab = await browser.tab({ dark });
    for (const page of pages.filter((it) => it.endsWith("/index.html"))) {
      await tab.open(root + page);
      const errors = tab.errors.splice(0);
      check(page, errors.join("; "), errors.length === 0);
    }
    await tab.close();
  }
  // Only a page of the server may read the others.
  const tab = await browser.tab();
  await tab.open(root + pages[0]);
  const read = async (page) => {
    const text = await (await fetch(page)).text();
    const parsed = new DOMParser().parseFromString(text, "text/html");
    const address = (link) => new URL(link.getAttribute("href"), page).href;
    // Other crates document what they implement for all types, and link to themselves.
    const links = "a[href]:not(#blanket-implementations-list .docblock a)";
    return {
      places: [...parsed.querySelectorAll("[id]")].map((it) => it.id),
      links: [...parsed.querySelectorAll(links)].map(address),
    };
  };
  const places = new Map();
  const links = [];
  for (const page of pages) {
    const found = await tab.run(read, root + page);
    places.set(page, new Set(found.places));
    links.push(...found.links.map((link) => [page, link]));
  }
  await tab.close();
  server.close();
  for (const [page, link] of links) {
    if (!link.startsWith(root)) {
      check(page, `links to ${link}`, /^https:\/\/[\w.-]+\.\w+(\/|$)/.test(link));
      continue;
    }
    const { pathname, hash } = new URL(link);
    const path = decodeURIComponent(pathname.slice(1)).replace(/(^|\/)$/, "$1index.html");
    const place = hash.slice(1);
    // rustdoc copies texts of std without its links.
    if (/^(std|core|alloc)\//.test(path)) continue;
    const isLine = path.startsWith("src/") && /^\d+(-\d+)?$/.test(place);
    const isThere = [place, decodeURIComponent(place)].some((it) => places.get(path)?.has(it));
    const exists = isThere || isLine || place === "";
    check(page, `links to ${path}#${place}`, files.includes(path) && exists);
  }
  return pages.length;
}

const browser = await Browser.start();
try {
  const tests = (await checkReport(browser, "passed.html")).length + (await checkReport(browser, "failed.html")).length;
  await checkFailures(browser);
  const recordings = resolve("examples/recordings");
  const drawings = (await readdir(recordings)).filter((it) => it.endsWith(".svg")).map((it) => join(recordings, it));
  drawings.push(...["passed.svg", "failed.svg"].map((it) => join(reports, it)));
  for (const drawing of drawings) await checkPicture(browser, drawing);
  const pages = await checkDocumentation(browser);
  console.log(`checked 2 reports of ${tests} tests, ${drawings.length} pictures, ${pages} pages of documentation`);
} finally {
  await browser.stop();
}
for (const failure of new Set(failures)) console.error(failure);
process.exit(failures.length > 0 ? 1 : 0);
