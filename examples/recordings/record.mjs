#!/usr/bin/env node
// Records the programs in a terminal as SVG, or checks that they still print the recorded text.
//
//     examples/recordings/record.mjs [--check]
//
// Needs cargo, script(1) and the program `sandboxed-db` in PATH. The recordings are animated with
// the delays of the run, and show everything where animations are off.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { COLUMNS, Screen } from "./screen.mjs";
import { draw, lines } from "./drawing.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
// How long a program may take, in milliseconds: it may have to be compiled.
const LIMIT = 600_000;

const RECORDINGS = [
  { file: "quickstart.svg", title: "A hundred pristine databases", commands: ["cargo run -q --example quickstart"] },
  {
    file: "failure.svg",
    title: "A failing test, and the changes that it made",
    commands: ["SANDBOXED_DB_KEEP=on_failure cargo test -q --test shop", "sandboxed-db diff a_cancelled_order"],
  },
];

/** Runs a command in a terminal; `output` gets its output as it comes. */
function run(command, cache, output) {
  const env = { ...process.env, XDG_CACHE_HOME: cache, TERM: "xterm-256color", CARGO_TERM_COLOR: "always" };
  env.RUST_BACKTRACE = "0";
  for (const name of Object.keys(env)) {
    if (name.startsWith("SANDBOXED_DB_") || name === "NO_COLOR") delete env[name];
  }
  const sized = `stty cols ${COLUMNS} rows 200; ${command}`;
  const child = spawn("script", ["-qefc", sized, "/dev/null"], { cwd: join(HERE, "../.."), env, stdio: ["ignore", "pipe", "inherit"] });
  const timer = setTimeout(() => child.kill("SIGKILL"), LIMIT);
  child.stdout.setEncoding("utf8").on("data", output);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      signal ? reject(new Error(`${command}: ended by ${signal}`)) : resolve(code);
    });
  });
}

async function record({ file, title, commands }) {
  const cache = mkdtempSync(join(tmpdir(), "recording-"));
  try {
    // The first run compiles the programs and builds the layers.
    for (const command of commands) await run(command, cache, () => {});
    const screen = new Screen();
    for (const command of commands) {
      screen.prompt(command);
      await run(command, cache, (text) => screen.write(text));
    }
    return { file, drawing: draw(title, screen) };
  } finally {
    rmSync(cache, { recursive: true, force: true });
  }
}

/** Removes everything that differs between two runs: numbers, times, and the widths they need. */
function comparable(line) {
  return line.replace(/\d[\d.:]*( ?(µs|ms|s))?/g, "#").replace(/ +/g, " ");
}

let differs = false;
for (const recording of RECORDINGS) {
  const { file, drawing } = await record(recording);
  const path = join(HERE, file);
  if (!process.argv.includes("--check")) {
    writeFileSync(path, drawing);
    console.log(`${file}: ${drawing.length} bytes`);
    continue;
  }
  const [before, now] = [readFileSync(path, "utf8"), drawing].map((it) => lines(it).map(comparable));
  for (let line = 0; line < Math.max(before.length, now.length); line++) {
    if (before[line] === now[line]) continue;
    console.error(`${file}, line ${line + 1}:\n- ${before[line] ?? ""}\n+ ${now[line] ?? ""}`);
    differs = true;
  }
}
if (differs) {
  console.error("could not confirm the recordings\n  cause: the programs print other text\n  hint: run examples/recordings/record.mjs and look at the pictures");
  process.exit(1);
}
