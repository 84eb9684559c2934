// The description of a database, as requests carry it.

const path = require('node:path');
const process = require('node:process');
const { SandboxError } = require('./error.cjs');

const OPTIONS = [
  'engine', 'version', 'image', 'locked', 'packages', 'settings', 'initdbArgs', 'migrations', 'tool', 'prepare', 'seed', 'directory', 'test', 'tcp', 'tls', 'keep',
  'database', 'startTimeout', 'buildTimeout', 'disk', 'memory', 'pids',
];
const PREPARE = ['command', 'dependsOn', 'env'];

/** Returns the parameters of the request that starts a server. */
function description(options) {
  check(options, OPTIONS, 'options');
  const { engine, version, image, locked, packages, settings, initdbArgs, directory, test, tcp, keep } = options;
  const { database, tls, startTimeout, buildTimeout, disk, memory, pids } = options;
  return defined({
    snapshot: defined({
      engine: engine ?? 'postgres',
      version: version === undefined ? undefined : String(version),
      image,
      locked,
      packages,
      settings,
      initdb_args: initdbArgs,
      steps: steps(options),
      database,
      tls,
      start_timeout: startTimeout,
      build_timeout: buildTimeout,
      disk,
      memory,
      pids,
    }),
    directory: path.resolve(directory ?? process.cwd()),
    test,
    tcp,
    keep,
  });
}

/** Returns the steps in the order in which they run: migrations, programs, seeds. */
function steps({ migrations, tool, prepare, seed }) {
  if (tool !== undefined && migrations === undefined) {
    throw new SandboxError(`read \`tool\`: '${tool}' has no migrations`, { hint: 'name their directory by `migrations`' });
  }
  return [
    ...list(migrations).map((directory) =>
      tool === undefined ? { migrations: directory } : { migrations_of: [tool, directory] },
    ),
    ...list(prepare).map((step) => {
      check(step, PREPARE, '`prepare`');
      const { command, dependsOn, env } = step;
      if (command === undefined || dependsOn === undefined) {
        throw new SandboxError('read `prepare`: it needs `command` and `dependsOn`', {
          hint: "write { command: 'prisma migrate deploy', dependsOn: ['prisma'] }",
        });
      }
      const program = typeof command === 'string' ? ['sh', '-c', command] : [...command];
      return defined({ prepare: program, depends_on: list(dependsOn), env });
    }),
    ...list(seed).map((file) => ({ seed: file })),
  ];
}

function list(value) {
  if (value === undefined) return [];
  return Array.isArray(value) ? [...value] : [value];
}

function defined(object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}

function check(value, names, what) {
  if (typeof value !== 'object' || value === null) {
    throw new SandboxError(`read ${what}: expected an object, found ${JSON.stringify(value)}`);
  }
  const unknown = Object.keys(value).find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new SandboxError(`read ${what}: \`${unknown}\` is unknown`, { hint: `the choices are ${names.join(', ')}` });
  }
}

module.exports = { description };
