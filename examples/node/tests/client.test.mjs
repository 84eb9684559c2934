// The package as installed: errors, programs that do not follow the protocol, and the end of the
// tests' process.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Sandbox, SandboxError, sandbox, withSandbox } from 'sandboxed-db';

const require = createRequire(import.meta.url);
const installed = path.dirname(require.resolve('sandboxed-db/package.json'));
const { Client } = require(path.join(installed, 'lib/client.cjs'));
const { findProgram, requireLinux } = require(path.join(installed, 'lib/program.cjs'));
const { description } = require(path.join(installed, 'lib/description.cjs'));
const directory = mkdtempSync(path.join(tmpdir(), 'client-'));
after(() => rmSync(directory, { recursive: true }));

/** Writes a file and returns its path. */
function file(name, text) {
  const written = path.join(directory, name);
  writeFileSync(written, text);
  return written;
}

/** Runs a module with the installed package. Returns its exit code and output. */
async function run(text) {
  const script = path.join(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), `run-${process.pid}.mjs`);
  writeFileSync(script, text);
  try {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [script], { timeout: 120_000 });
    return { code: 0, stdout, stderr };
  } catch ({ code, stdout, stderr }) {
    return { code, stdout, stderr };
  } finally {
    rmSync(script);
  }
}

test('an engine is a name or a file', async () => {
  const cache = await sandbox({ engine: 'redis' });
  assert.equal(cache.env.REDIS_URL, cache.url);
  await cache.stop();
  file('broken.toml', 'name = "x"\nprgram = "x"\n');
  const started = sandbox({ engine: 'broken.toml', directory });
  await assert.rejects(started, { kind: 'invalid-config', line: 2 });
});

/** Waits until a process has ended. Its parent may not have collected it yet. */
async function ended(pid) {
  for (const start = Date.now(); Date.now() - start < 30_000; await pause(20)) {
    try {
      if (readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ')) return;
    } catch {
      return;
    }
  }
  assert.fail(`the process ${pid} runs after 30 s`);
}

const init = (url) => url.match(/\/proc\/(\d+)\//)[1];

test('both entries are the same package', () => {
  assert.equal(require('sandboxed-db').sandbox, sandbox);
});

test('the program of the platform is used', () => {
  assert.match(findProgram(), /@sandboxed-db\/linux-\w+\/bin\/sandboxed-db$/);
});

test('a server ends with stop', async () => {
  const db = await sandbox();
  assert.ok(db instanceof Sandbox);
  assert.match(db.url, /^postgresql:/);
  assert.equal(db.env.DATABASE_URL, db.url);
  assert.match(await db.log(), /ready to accept connections/);
  assert.deepEqual(await db.stop(), { report: '', kept: null });
  assert.deepEqual(await db.stop(), { report: '', kept: null });
  await ended(init(db.url));
});

test('a server listens on a port on request', async () => {
  const db = await sandbox({ tcp: true });
  assert.match(db.tcpUrl, /@127\.0\.0\.1:\d+\//);
  await db.stop();
});

test('servers start side by side, and a program prepares them once', async () => {
  const prepare = { command: 'echo run >> runs && psql -qc "create table t ()"', dependsOn: 'input', env: { STAGE: '1' } };
  file('input', directory);
  const all = await Promise.all([1, 2, 3].map(() => sandbox({ directory, prepare })));
  const { stdout } = await promisify(execFile)('psql', ['-Atc', "select 't'::regclass", all[2].url]);
  assert.equal(stdout, 't\n');
  assert.equal(readFileSync(path.join(directory, 'runs'), 'utf8'), 'run\n');
  await Promise.all(all.map((db) => db.stop()));
});

// Each option, and what a request says for it: of the snapshot, and beside it.
const OPTIONS = {
  engine: ['redis', { engine: 'redis' }],
  version: [16, { version: '16' }],
  image: ['oci:images/db', { image: 'oci:images/db' }],
  locked: [true, { locked: true }],
  packages: [['postgresql-16-cron'], { packages: ['postgresql-16-cron'] }],
  settings: [{ jit: 'off' }, { settings: { jit: 'off' } }],
  initdbArgs: [['--locale=C'], { initdb_args: ['--locale=C'] }],
  migrations: ['m', { steps: [{ migrations: 'm' }] }],
  tool: ['sqlx', { steps: [{ migrations_of: ['sqlx', 'm'] }] }],
  prepare: [{ command: ['x'], dependsOn: 'y', env: { Z: '1' } }, { steps: [{ prepare: ['x'], depends_on: ['y'], env: { Z: '1' } }] }],
  seed: [['a.sql', 'b.csv'], { steps: [{ seed: 'a.sql' }, { seed: 'b.csv' }] }],
  directory: ['/', {}, { directory: '/' }],
  test: ['t', {}, { test: 't' }],
  tcp: [true, {}, { tcp: true }],
  tls: [true, { tls: true }],
  keep: ['always', {}, { keep: 'always' }],
  database: ['shop', { database: 'shop' }],
  startTimeout: ['9s', { start_timeout: '9s' }],
  buildTimeout: ['9m', { build_timeout: '9m' }],
  disk: ['2GiB', { disk: '2GiB' }],
  memory: ['3GiB', { memory: '3GiB' }],
  pids: [99, { pids: 99 }],
};

test('each option reaches the request', () => {
  for (const [name, [value, snapshot, rest]] of Object.entries(OPTIONS)) {
    const params = description({ ...(name === 'tool' && { migrations: 'm' }), [name]: value });
    const expected = { snapshot: { engine: 'postgres', steps: [], ...snapshot }, directory: process.cwd(), ...rest };
    assert.deepEqual(params, expected, name);
  }
  assert.throws(() => description({ unknown: 1 }), { hint: `the choices are ${Object.keys(OPTIONS).join(', ')}` });
});

for (const [options, message] of [
  [{ migration: 'm' }, /read options: `migration` is unknown\n  hint: the choices are .*migrations/],
  [{ prepare: 'prisma migrate deploy' }, /read `prepare`: expected an object/],
  [{ prepare: { command: 'x' } }, /needs `command` and `dependsOn`/],
  [{ prepare: { command: 'x', dependson: [] } }, /`dependson` is unknown/],
  [{ tool: 'sqlx' }, /has no migrations/],
  [{ seed: 'absent.sql' }, /absent\.sql/],
  [{ engine: 'oracle' }, /unknown engine `oracle`/],
  [{ keep: 'sometimes' }, /unknown variant `sometimes`/],
]) {
  test(`a mistake is named: ${JSON.stringify(options)}`, async () => {
    await assert.rejects(sandbox(options), (error) => {
      assert.ok(error instanceof SandboxError);
      assert.match(error.message, message);
      assert.match(error.stack, /client\.test\.mjs/);
      assert.doesNotMatch(error.stack, /\.cjs/);
      return true;
    });
  });
}

test('a failed test has the log in its output', async () => {
  const { code, stderr } = await run(`
    import { execFileSync } from 'node:child_process';
    import { withSandbox } from 'sandboxed-db';
    const body = withSandbox({ keep: 'on_failure', test: 'it' }, (db) => {
      execFileSync('psql', ['-c', 'select 1 / 0', db.url], { stdio: 'ignore' });
    });
    await body();
  `);
  assert.equal(code, 1);
  assert.match(stderr, /division by zero/);
  assert.match(stderr, /sandboxed-db open/);
});

test('a test passes its arguments on, and takes none itself', async () => {
  const body = withSandbox({}, (db, ...args) => assert.deepEqual(args, [1, 2]));
  assert.equal(body.length, 0);
  await body(1, 2);
});

test('a process with a running server ends, and its server with it', async () => {
  const { code, stdout } = await run(`
    import { sandbox } from 'sandboxed-db';
    console.log((await sandbox()).url);
  `);
  assert.equal(code, 0);
  await ended(init(stdout));
});

test('nothing is left after a kill', async () => {
  const script = path.join(path.dirname(new URL(import.meta.url).pathname), `kill-${process.pid}.mjs`);
  writeFileSync(script, "import { sandbox } from 'sandboxed-db'; console.log((await sandbox()).url); setInterval(() => {}, 1000);");
  const tests = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [url] = await tests.stdout.setEncoding('utf8').take(1).toArray();
    tests.kill('SIGKILL');
    await ended(init(url));
  } finally {
    rmSync(script);
  }
});

for (const [script, message] of [
  ['exit 3', /it ended with exit code 3/],
  ['echo \'{"serve": 2}\'; exec cat', /it speaks version 2 of the protocol/],
  ['echo starting; exec cat', /it speaks version undefined/],
  ['echo \'{"serve": 1}\'; read line; exit 4', /it ended with exit code 4/],
  ['echo \'{"serve": 1}\'; read line; echo "[]"; exec cat', /"\[\]" is none/],
  ['echo \'{"serve": 1}\'; exec cat >/dev/null', /did not answer in 0\.2 s/],
]) {
  test(`a program of another protocol is an error: ${script}`, async () => {
    const program = file(`program-${Math.random()}`, `#!/bin/sh\n${script}\n`);
    chmodSync(program, 0o755);
    const client = new Client(program);
    await assert.rejects(client.request('start', {}, 200), { name: 'SandboxError', message });
    client.end();
  });
}

test('other platforms are refused', () => {
  assert.throws(() => requireLinux('darwin'), { message: /needs Linux, and this is macOS/ });
  assert.throws(() => requireLinux('win32'), { message: /this is Windows\n  hint: run the tests in WSL 2/ });
});

test('the end of a file of tests of jest ends the program', async () => {
  const { code, stdout } = await run(`
    import { createRequire } from 'node:module';
    const hooks = [];
    globalThis.afterAll = (hook) => hooks.push(hook);
    const { sandbox } = createRequire(import.meta.url)('sandboxed-db');
    const first = await sandbox();
    hooks.forEach((hook) => hook());
    const second = await sandbox();
    console.log(first.url, second.url);
    setTimeout(() => {}, 1500);
  `);
  assert.equal(code, 0);
  assert.notEqual(init(stdout.split(' ')[0]), init(stdout.split(' ')[1]));
});

test('the program is a command of the package', async () => {
  const bin = path.join(installed, 'bin/sandboxed-db.cjs');
  const { stdout } = await promisify(execFile)(process.execPath, [bin, '--version']);
  assert.match(stdout, /^sandboxed-db \d/);
  await assert.rejects(promisify(execFile)(process.execPath, [bin, 'nothing']), { code: 2 });
});
