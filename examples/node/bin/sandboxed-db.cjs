#!/usr/bin/env node
// Runs the program of the platform's package.

const { spawn } = require('node:child_process');
const { constants } = require('node:os');
const { findProgram } = require('../lib/program.cjs');

function main() {
  const program = spawn(findProgram(), process.argv.slice(2), { stdio: 'inherit' });
  // A terminal sends SIGINT to the program itself.
  process.on('SIGINT', () => {});
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => program.kill(signal));
  program.on('error', (error) => fail(error));
  program.on('exit', (code, signal) => {
    process.exitCode = code ?? 128 + constants.signals[signal];
  });
}

function fail(error) {
  process.stderr.write(`sandboxed-db: ${error.message}\n`);
  process.exitCode = 2;
}

try {
  main();
} catch (error) {
  fail(error);
}
