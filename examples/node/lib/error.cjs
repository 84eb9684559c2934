// The error of the package.

class SandboxError extends Error {
  constructor(message, { kind = 'client', hint = null, file = null, line = null, log = null } = {}) {
    const parts = [message];
    if (file !== null && !message.includes(file)) parts.push(line === null ? file : `${file}:${line}`);
    if (hint !== null && !message.includes(hint)) parts.push(`  hint: ${hint}`);
    if (log) parts.push('  server log, its end:', ...log.trimEnd().split('\n').map((text) => `  | ${text}`));
    super(parts.join('\n'));
    this.name = 'SandboxError';
    Object.assign(this, { kind, hint, file, line, log });
  }
}

/** Returns the place of a call, for errors that come later. `callee` is the called function. */
function place(callee) {
  const here = new Error();
  Error.captureStackTrace(here, callee);
  return here.stack.split('\n').slice(1).join('\n');
}

/** Replaces the frames of this package in an error's stack by a place. */
function at(error, place) {
  if (error instanceof SandboxError) error.stack = `${error.name}: ${error.message}\n${place}`;
  return error;
}

module.exports = { SandboxError, at, place };
