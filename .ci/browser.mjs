// A browser that is controlled through a pipe: Chromium and its DevTools protocol.
//
// https://chromedevtools.github.io/devtools-protocol/

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

// How long any answer of the browser may take, in milliseconds.
const LIMIT = 60_000;

/** Waits for a promise, with a deadline. */
function within(promise, operation) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${operation}: no answer within ${LIMIT} ms`)), LIMIT);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export class Browser {
  #process;
  #profile;
  #calls = new Map();
  #listeners = new Map();
  #last = 0;

  /** Starts Chromium without a window and with a new profile. */
  static async start(program = "chromium") {
    const browser = new Browser();
    browser.#profile = await mkdtemp(join(tmpdir(), "pages-"));
    // The sandbox of Chromium does not work for root.
    const options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"];
    options.push("--disable-dev-shm-usage", "--no-first-run", `--user-data-dir=${browser.#profile}`);
    const stdio = ["ignore", "ignore", "ignore", "pipe", "pipe"];
    browser.#process = spawn(program, options, { stdio });
    const end = new Promise((_, reject) => {
      browser.#process.once("error", (error) => reject(new Error(`start ${program}: ${error.message}`)));
      browser.#process.once("exit", (code, signal) => {
        for (const { reject } of browser.#calls.values()) reject(new Error("the browser has ended"));
        reject(new Error(`${program} ended with ${code ?? signal}`));
      });
    });
    browser.#process.stdio[3].on("error", () => {});
    browser.#read(browser.#process.stdio[4]);
    await Promise.race([browser.call("Browser.getVersion"), end]);
    end.catch(() => {});
    return browser;
  }

  /** Ends Chromium with all its processes. */
  async stop() {
    const gone = new Promise((resolve) => this.#process.once("exit", resolve));
    await this.call("Browser.close").catch(() => {});
    await within(gone, "end the browser").catch(() => this.#process.kill("SIGKILL"));
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 5 });
  }

  /** Messages are JSON and end with a zero byte. */
  #read(stream) {
    let rest = Buffer.alloc(0);
    stream.on("data", (data) => {
      rest = Buffer.concat([rest, data]);
      for (let end = rest.indexOf(0); end >= 0; end = rest.indexOf(0)) {
        this.#receive(JSON.parse(rest.subarray(0, end).toString()));
        rest = rest.subarray(end + 1);
      }
    });
  }

  #receive({ id, method, params, result, error, sessionId }) {
    if (id === undefined) {
      this.#listeners.get(sessionId)?.(method, params);
      return;
    }
    const { resolve, reject, called } = this.#calls.get(id);
    this.#calls.delete(id);
    error ? reject(new Error(`${called}: ${error.message}`)) : resolve(result);
  }

  call(method, params = {}, sessionId = undefined) {
    const id = ++this.#last;
    const answer = new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject, called: method }));
    this.#process.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
    return within(answer, method);
  }

  /** Opens a tab. `dark` chooses the colour scheme; sizes are in CSS pixels. */
  async tab({ dark = false, width = 1280, height = 900 } = {}) {
    const { targetId } = await this.call("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.call("Target.attachToTarget", { targetId, flatten: true });
    const tab = new Tab((method, params) => this.call(method, params, sessionId), targetId);
    this.#listeners.set(sessionId, (method, params) => tab.notice(method, params));
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await tab.call(`${domain}.enable`);
    const features = [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }];
    await tab.call("Emulation.setEmulatedMedia", { features });
    await tab.resize(width, height);
    return tab;
  }
}

/** A tab, which notes errors and requests. */
class Tab {
  errors = [];
  requests = [];
  #load = () => {};

  constructor(call, target) {
    this.call = call;
    this.target = target;
  }

  notice(method, params) {
    if (method === "Page.loadEventFired") this.#load();
    if (method === "Network.requestWillBeSent") this.requests.push(params.request.url);
    if (method === "Network.loadingFailed" && !params.canceled) this.errors.push(params.errorText);
    if (method === "Runtime.exceptionThrown") {
      const { text, exception } = params.exceptionDetails;
      this.errors.push(`${text} ${exception?.description ?? ""}`);
    }
    if (method === "Runtime.consoleAPICalled" && ["error", "assert"].includes(params.type)) {
      this.errors.push(params.args.map((it) => it.value ?? it.description).join(" "));
    }
    if (method === "Log.entryAdded" && params.entry.level === "error") {
      this.errors.push(`${params.entry.text} ${params.entry.url ?? ""}`);
    }
  }

  async resize(width, height) {
    const size = { width, height, deviceScaleFactor: 1, mobile: width < 600 };
    await this.call("Emulation.setDeviceMetricsOverride", size);
  }

  /** Opens an address and waits until everything is loaded. */
  async open(url) {
    const loaded = new Promise((resolve) => (this.#load = resolve));
    const { errorText } = await this.call("Page.navigate", { url });
    if (errorText) throw new Error(`open ${url}: ${errorText}`);
    await within(loaded, `open ${url}`);
  }

  /** Runs a function in the page, with arguments of JSON, and returns its result. */
  async run(operation, ...args) {
    const expression = `(${operation})(...${JSON.stringify(args)})`;
    const options = { expression, awaitPromise: true, returnByValue: true };
    const { result, exceptionDetails: failure } = await this.call("Runtime.evaluate", options);
    if (failure) throw new Error(failure.exception?.description ?? failure.text);
    return result.value;
  }

  /** Saves a picture of the page. */
  async picture() {
    const { data } = await this.call("Page.captureScreenshot", { format: "png" });
    return Buffer.from(data, "base64");
  }

  async close() {
    await this.call("Page.close");
  }
}
