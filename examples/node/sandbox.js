// Starts a pristine PostgreSQL server for a test.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import pg from 'pg';

// Prints the server's URL and waits until this process closes the pipe or ends.
const script = 'echo "$DATABASE_URL"; exec cat';

/** Starts a server. Returns its URL and a function that ends it. */
export async function start() {
  const server = spawn('sandboxed-db', ['run', '--seed', '../orders.sql', '--', 'sh', '-c', script], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(server, 'exit');
  const stop = () => {
    server.stdin.end();
    return ended;
  };
  for await (const url of createInterface({ input: server.stdout })) return { url, stop };
  throw new Error('the server did not start; see above');
}

/** Connects to a new server. Client and server end with the test `t`. */
export async function connect(t) {
  const { url, stop } = await start();
  const client = new pg.Client(url);
  t.after(async () => {
    await client.end();
    await stop();
  });
  await client.connect();
  return client;
}
