import assert from 'node:assert/strict';
import { test } from 'node:test';
import pg from 'pg';
import { sandbox, withSandbox } from 'sandboxed-db';

const orders = { seed: 'orders.sql' };

/** Returns the function of a test with a client of its server. */
function withClient(body) {
  return withSandbox(orders, async (db) => {
    const client = new pg.Client(db.url);
    await client.connect();
    try {
      await body(client, db);
    } finally {
      await client.end();
    }
  });
}

async function place(client, article) {
  const { rows } = await client.query('insert into orders (article) values ($1) returning id', [article]);
  return rows[0].id;
}

for (const article of ['tea', "a cup of 'tea'"]) {
  test(
    `an order of ${article} is the first`,
    withClient(async (client) => {
      assert.equal(await place(client, article), 1);
    }),
  );
}

test(
  'an order needs an article',
  withClient(async (client) => {
    await assert.rejects(place(client, null), { code: '23502' });
  }),
);

test(
  'tables can be dropped',
  withClient(async (client) => {
    await client.query('drop table orders');
  }),
);

test('a server can end with the test', async (t) => {
  const db = await sandbox({ ...orders, test: t.name });
  t.after(() => db.stop());
  const client = new pg.Client(db.url);
  await client.connect();
  assert.equal(await place(client, 'tea'), 1);
  await client.end();
});
