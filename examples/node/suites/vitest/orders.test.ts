import pg from 'pg';
import { sandbox, withSandbox } from 'sandboxed-db';
import { expect, test } from 'vitest';

const orders = { seed: 'orders.sql' };

async function place(url: string, article: string | null): Promise<number> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    const { rows } = await client.query('insert into orders (article) values ($1) returning id', [article]);
    return rows[0].id;
  } finally {
    await client.end();
  }
}

test('a server ends with its block', async () => {
  await using db = await sandbox(orders);
  expect(await place(db.url, 'tea')).toBe(1);
});

test.each(['tea', 'milk'])('an order of %s is the first', async (article) => {
  await using db = await sandbox(orders);
  expect(await place(db.url, article)).toBe(1);
});

test(
  'a failed test shows the log and its changes',
  withSandbox(orders, async (db) => {
    await expect(place(db.url, null)).rejects.toThrow('null value');
    expect(await db.log()).toContain('null value');
  }),
);
