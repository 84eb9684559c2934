// The program `sandboxed-db`, from the package of the platform.

const fs = require('node:fs');
const path = require('node:path');
const { SandboxError } = require('./error.cjs');

const NAME = 'sandboxed-db';

/** Returns the path of the program: that of the platform's package, else that of PATH. */
function findProgram() {
  requireLinux(process.platform);
  try {
    return require.resolve(`@sandboxed-db/linux-${process.arch}/bin/${NAME}`);
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND') throw error;
  }
  for (const directory of (process.env.PATH ?? '').split(path.delimiter)) {
    const file = path.join(directory, NAME);
    // node_modules/.bin has the script of this package, which would look here again.
    if (directory !== '' && isExecutable(file) && !isOwnScript(file)) return file;
  }
  throw new SandboxError(
    `find the program \`${NAME}\`: neither the package @sandboxed-db/linux-${process.arch} nor a directory of PATH has it`,
    { hint: 'install without `--omit=optional`, or run `cargo install sandboxed-db --features cli`' },
  );
}

/** Throws on a platform without the namespaces of Linux. */
function requireLinux(platform) {
  if (platform === 'linux') return;
  const name = { darwin: 'macOS', win32: 'Windows' }[platform] ?? platform;
  const where = name === 'Windows' ? 'in WSL 2' : 'in a Linux virtual machine or container';
  throw new SandboxError(`start a database server: sandboxed-db needs Linux, and this is ${name}`, {
    kind: 'host-unsupported',
    hint: `run the tests ${where}`,
  });
}

function isExecutable(file) {
  try {
    fs.accessSync(file, fs.constants.X_OK);
    return fs.statSync(file).isFile();
  } catch {
    return false;
  }
}

function isOwnScript(file) {
  return fs.realpathSync(file).endsWith(`${NAME}.cjs`);
}

module.exports = { findProgram, requireLinux };
