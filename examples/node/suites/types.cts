// Compiled, never run: the types as a CommonJS file sees them.
import api = require('sandboxed-db');

export async function url(): Promise<string> {
  await using db = await api.sandbox({ seed: 'seed.sql' });
  return db.url;
}
