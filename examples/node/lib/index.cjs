// Servers for tests; index.d.ts has the documentation.

const process = require('node:process');
const { PROMPT, connect } = require('./client.cjs');
const { SandboxError, at, place } = require('./error.cjs');
const { description } = require('./description.cjs');

class Sandbox {
  #client;
  #number;
  #stopped = null;

  constructor(client, result) {
    this.#client = client;
    this.#number = result.sandbox;
    this.url = result.url;
    this.env = { ...result.env };
    this.tcpUrl = result.tcp_url ?? null;
    this.timings = { ...result.timings };
  }

  async log() {
    return (await this.#client.request('log', { sandbox: this.#number }, PROMPT)).log;
  }

  stop({ failed = false, message } = {}) {
    this.#stopped ??= this.#client
      .request('stop', { sandbox: this.#number, failed, ...(message !== undefined && { message }) })
      .then(({ report, kept }) => ({ report: report ?? '', kept: kept ?? null }));
    return this.#stopped;
  }

  async [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    await this.stop();
  }
}

function sandbox(options = {}) {
  return start(options, place(sandbox));
}

async function start(options, called) {
  try {
    const params = description(options);
    const client = connect();
    return new Sandbox(client, await client.request('start', params));
  } catch (error) {
    throw at(error, called);
  }
}

function withSandbox(options, body) {
  const called = place(withSandbox);
  // A function with parameters would wait for a callback in jest.
  return async (...args) => {
    const db = await start({ test: nameOf(args[0]), ...options }, called);
    try {
      await body(db, ...args);
    } catch (error) {
      await report(db, error);
      throw error;
    }
    await db.stop();
  };
}

/** Ends the server of a failed test and prints the report. */
async function report(db, error) {
  let text;
  try {
    text = (await db.stop({ failed: true, message: String(error?.message ?? error) })).report.trimEnd();
  } catch (failure) {
    // The test's own error matters more.
    text = failure.message;
  }
  if (text !== '') process.stderr.write(`${text}\n`);
}

/** Returns the name of a test from the context that node:test or vitest passes, or from jest. */
function nameOf(context) {
  return (
    context?.fullName ?? context?.task?.name ?? context?.name ?? globalThis.expect?.getState?.().currentTestName
  );
}

module.exports = { Sandbox, SandboxError, sandbox, withSandbox };
