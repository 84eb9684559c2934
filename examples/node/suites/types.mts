// Compiled, never run: the types as a module sees them.
import { sandbox, SandboxError, withSandbox, type Options, type Stopped } from 'sandboxed-db';

const options: Options = {
  version: '16',
  settings: { jit: 'off' },
  migrations: 'migrations',
  prepare: { command: ['prisma', 'migrate', 'deploy'], dependsOn: ['prisma'] },
  seed: ['a.sql', 'b.csv'],
  keep: 'on_failure',
};

export const body: (context: { name: string }) => Promise<void> = withSandbox(
  options,
  async (db, context: { name: string }) => {
    const url: string = db.url + context.name;
    const tcp: string | null = db.tcpUrl;
    const stopped: Stopped = await db.stop({ failed: true, message: url + tcp });
    stopped.report.trim();
  },
);

export async function use(): Promise<string> {
  await using db = await sandbox(options);
  return db.log();
}

export function hint(error: unknown): string | null {
  return error instanceof SandboxError ? error.hint : null;
}

// @ts-expect-error: an unknown option
void sandbox({ migration: 'migrations' });
