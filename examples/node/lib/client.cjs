// A `sandboxed-db serve` process and the requests to it: a JSON object a line, on pipes.

const { spawn } = require('node:child_process');
const path = require('node:path');
const process = require('node:process');
const { createInterface } = require('node:readline');
// Those of the module: tests may replace the global ones.
const { clearTimeout, setTimeout } = require('node:timers');
const { findProgram } = require('./program.cjs');
const { SandboxError } = require('./error.cjs');

/** The version of the protocol. */
const PROTOCOL = 1;

/** Milliseconds in which the program must answer its start and its end. */
const PROMPT = 30_000;

/**
 * Milliseconds in which it must answer a request. It has deadlines for each step of a build (30 minutes) and each
 * start, so this one ends the wait for a program that does not run.
 */
const PATIENT = 2 * 3_600_000;

/** The program. It ends with `end`, or with this process: the kernel closes the pipe. */
class Client {
  #pending = new Map();
  #last = 0;
  #failure = null;
  #process;
  #path;

  constructor(program) {
    this.#path = program;
    this.#process = spawn(program, ['serve'], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: environment(),
      // Ctrl-C is for the tests, whose ends still need their servers.
      detached: true,
    });
    const { stdin, stdout } = this.#process;
    this.#process.on('error', (error) => this.#fail(`start \`${program} serve\`: ${error.message}`));
    this.#process.on('close', (code, signal) => {
      const cause = signal === null ? `exit code ${code}` : `signal ${signal}`;
      this.#fail(`talk to \`${program} serve\`: it ended with ${cause}`, 'its messages are on standard error');
    });
    // A write after the end; `close` says more.
    stdin.on('error', () => {});
    createInterface({ input: stdout }).on('line', (line) => this.#deliver(line));
    // Only a pending request keeps the process of the tests alive.
    for (const handle of [this.#process, stdin, stdout]) handle.unref();
    this.greeting = this.#wait('greeting', 'its start', PROMPT);
    // The first request reports it.
    this.greeting.catch(() => {});
  }

  get ended() {
    return this.#failure !== null;
  }

  async request(method, params, limit = PATIENT) {
    await this.greeting;
    if (this.#failure !== null) throw this.#failure;
    const id = ++this.#last;
    const answer = this.#wait(id, `\`${method}\``, limit);
    this.#process.stdin.write(`${JSON.stringify({ id, method, params })}\n`);
    return answer;
  }

  /** Ends the program and its servers. */
  end() {
    this.#process.stdin.end();
  }

  #wait(id, what, limit) {
    return new Promise((resolve, reject) => {
      const late = () => {
        this.#settle(id)?.reject(
          new SandboxError(`wait for ${what}: \`${this.#path} serve\` did not answer in ${limit / 1000} s`),
        );
      };
      this.#pending.set(id, { resolve, reject, timer: setTimeout(late, limit) });
      this.#process.stdout.ref();
    });
  }

  /** Takes a request out of the pending ones. */
  #settle(id) {
    const request = this.#pending.get(id);
    if (request === undefined) return undefined;
    this.#pending.delete(id);
    clearTimeout(request.timer);
    if (this.#pending.size === 0) this.#process.stdout.unref();
    return request;
  }

  #deliver(line) {
    let message;
    try {
      message = JSON.parse(line);
    } catch {
      message = {};
    }
    if (this.#pending.has('greeting')) {
      const greeting = this.#settle('greeting');
      if (message.serve === PROTOCOL) greeting.resolve();
      else {
        greeting.reject(
          new SandboxError(
            `start \`${this.#path} serve\`: it speaks version ${message.serve} of the protocol, and this package version ${PROTOCOL}`,
            { hint: 'install the same version of both' },
          ),
        );
        this.end();
      }
      return;
    }
    const request = this.#settle(message.id);
    if (request === undefined) this.#fail(`read the answer of \`${this.#path} serve\`: ${JSON.stringify(line)} is none`);
    else if (message.error) request.reject(new SandboxError(message.error.message, message.error));
    else request.resolve(message.result);
  }

  /** Fails this and all later requests. */
  #fail(message, hint = null) {
    this.#failure ??= new SandboxError(message, { hint });
    for (const id of [...this.#pending.keys()]) this.#settle(id).reject(this.#failure);
  }
}

/** The environment of the program: `prisma` and the like of the project are found, as in scripts of npm. */
function environment() {
  const scripts = path.join(process.cwd(), 'node_modules', '.bin');
  return { ...process.env, PATH: `${scripts}${path.delimiter}${process.env.PATH ?? ''}` };
}

let client = null;

/** Returns the client of this process, which is started by the first call. */
function connect() {
  if (client === null || client.ended) client = new Client(findProgram());
  return client;
}

/** Ends the program. A later call of `connect` starts another. */
function end() {
  client?.end();
  client = null;
}

// jest loads this module again for each file of tests, and only a hook says that a file ended. No hook can be set
// while a test runs; then the program ends with the process.
if (typeof globalThis.afterAll === 'function') {
  try {
    globalThis.afterAll(end);
  } catch {
    // A test runs.
  }
}

module.exports = { Client, PROMPT, connect };
