import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from './sandbox.js';

async function place(client, article) {
  const { rows } = await client.query('insert into orders (article) values ($1) returning id', [article]);
  return rows[0].id;
}

for (const article of ['tea', "a cup of 'tea'"]) {
  test(`an order of ${article} is the first`, async (t) => {
    assert.equal(await place(await connect(t), article), 1);
  });
}

test('an order needs an article', async (t) => {
  await assert.rejects(place(await connect(t), null), { code: '23502' });
});

test('tables can be dropped', async (t) => {
  await (await connect(t)).query('drop table orders');
});
