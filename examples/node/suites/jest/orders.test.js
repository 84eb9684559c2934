const pg = require('pg');
const { sandbox, withSandbox } = require('sandboxed-db');

let db;
let client;

beforeEach(async () => {
  db = await sandbox({ seed: 'orders.sql' });
  client = new pg.Client(db.url);
  await client.connect();
});

afterEach(async () => {
  await client?.end();
  await db?.stop();
});

async function place(article) {
  const { rows } = await client.query('insert into orders (article) values ($1) returning id', [article]);
  return rows[0].id;
}

test.each(['tea', 'milk'])('an order of %s is the first', async (article) => {
  expect(await place(article)).toBe(1);
});

test('tables can be dropped', async () => {
  await client.query('drop table orders');
});

test(
  'a test has a second server',
  withSandbox({ seed: 'orders.sql' }, async (archive) => {
    expect(archive.url).not.toBe(db.url);
  }),
);
