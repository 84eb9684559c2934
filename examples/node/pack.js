// Packs this package and the one of this platform, which carries the program:
//
//     node pack.js PROGRAM DIRECTORY

import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const [program, directory] = process.argv.slice(2);
if (directory === undefined) throw new Error('usage: node pack.js PROGRAM DIRECTORY');
const root = import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname);
const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));

const platform = mkdtempSync(path.join(tmpdir(), 'sandboxed-db-'));
try {
  mkdirSync(path.join(platform, 'bin'));
  const copy = path.join(platform, 'bin', 'sandboxed-db');
  copyFileSync(program, copy);
  chmodSync(copy, 0o755);
  const { version, license } = manifest;
  writeFileSync(
    path.join(platform, 'package.json'),
    JSON.stringify({
      name: `@sandboxed-db/linux-${process.arch}`,
      version,
      license,
      description: `The program of sandboxed-db for Linux on ${process.arch}`,
      os: ['linux'],
      cpu: [process.arch],
      libc: ['glibc'],
      files: ['bin'],
    }),
  );
  for (const source of [platform, root]) {
    execFileSync('npm', ['pack', '--silent', '--pack-destination', path.resolve(directory)], {
      cwd: source,
      stdio: ['ignore', 'inherit', 'inherit'],
    });
  }
} finally {
  rmSync(platform, { recursive: true });
}
