/** One path or several, relative to `directory`. */
export type Paths = string | readonly string[];

/** A program that prepares the database. It runs once; the result is cached as a layer. */
export interface Prepare {
  /** The program and its arguments, or text for the shell. It finds the server by `DATABASE_URL`, `PGHOST` and the like. */
  command: string | readonly string[];
  /** Files and directories in which a changed name or byte runs it again. */
  dependsOn: Paths;
  /** Further variables of its environment. */
  env?: Readonly<Record<string, string>>;
}

/** The description of a database. Migrations, programs and seeds run in this order, once. */
export interface Options {
  /** The database server: `postgres` (default), `mariadb`, `redis`, `sqlite`, or a file of TOML that describes one. */
  engine?: string;
  /** Its version, such as `16`. Default: the newest found. */
  version?: string;
  /** The image whose server runs, such as `docker://postgres:17`. */
  image?: string;
  /** Refuse an image whose name `sandboxed-db.lock` does not record. Default: false. */
  locked?: boolean;
  /** Packages of the distribution on top of it, such as `postgresql-15-postgis-3`. */
  packages?: readonly string[];
  /** Settings, as in its configuration file. */
  settings?: Readonly<Record<string, string>>;
  /** Arguments for initdb. */
  initdbArgs?: readonly string[];
  /** Directories of migrations in SQL. */
  migrations?: Paths;
  /** The migration tool, if the names of files do not show it. */
  tool?: string;
  /** Programs such as `prisma migrate deploy`. */
  prepare?: Prepare | readonly Prepare[];
  /** Files of SQL, rows (.csv), or a dump of pg_dump. */
  seed?: Paths;
  /** The start of relative paths. Default: the working directory. */
  directory?: string;
  /** The name of the test, for reports. */
  test?: string;
  /** Also listen on a port of 127.0.0.1, with a password: see `tcpUrl`. Default: false. */
  tcp?: boolean;
  /** Encrypt the connections of that port. Default: false. */
  tls?: boolean;
  /** Keep the data for `sandboxed-db open`. Default: `never`. */
  keep?: 'never' | 'on_failure' | 'always';
  /** The name of the database. Default: `postgres`. */
  database?: string;
  /** The time in which the server must be ready. Default: `30s`. */
  startTimeout?: string;
  /** The time in which a step must end. Default: `30m`. */
  buildTimeout?: string;
  /** The size that the server may write. Default: `1GiB`. */
  disk?: string;
  /** The memory of the server's processes. Default: `4GiB`. */
  memory?: string;
  /** The number of processes and threads of the server. Default: 512, or as max_connections needs. */
  pids?: number;
}

/** The end of a server. */
export interface Stopped {
  /** For a failed test: the times of the start and the end of the server's log. Else empty. */
  report: string;
  /** The data that was kept, and the commands that start a server on it, and that show what the test changed. */
  kept: { name: string; open: string; diff: string } | null;
}

/** A running server. It ends with `stop`, with `await using`, or with the process. */
export class Sandbox {
  private constructor();
  /** The address for drivers: `postgresql:///postgres?host=…&user=postgres`. */
  readonly url: string;
  /** `DATABASE_URL`, `PGHOST`, `PGUSER` and the like, for programs. */
  readonly env: Readonly<Record<string, string>>;
  /** The address by TCP, if `tcp` was set. */
  readonly tcpUrl: string | null;
  /** Milliseconds of the start by its parts, and whether the layer was cached. */
  readonly timings: Readonly<Record<string, unknown>>;
  /** Returns the server's log. */
  log(): Promise<string>;
  /** Ends the server. `failed` asks for a report, and for the data if `keep` says so. Later calls return the same. */
  stop(outcome?: { failed?: boolean; message?: string }): Promise<Stopped>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** An operation that failed. `message` is the whole report, with the hint. */
export class SandboxError extends Error {
  /** The kind of the failure, such as `not-installed`; `client` for an error of this package. */
  readonly kind: string;
  /** One sentence that says what to do. */
  readonly hint: string | null;
  /** The file of a migration or seed that failed, and its line. */
  readonly file: string | null;
  readonly line: number | null;
  /** The end of the server's log. */
  readonly log: string | null;
}

/** Starts a server on a pristine copy of a prepared database. Rejects with a `SandboxError`. */
export function sandbox(options?: Options): Promise<Sandbox>;

/**
 * Returns the function of a test with its own server. If the test fails, it prints the end of the server's log, and
 * the command that opens the data if `keep` says so.
 */
export function withSandbox<A extends unknown[]>(
  options: Options,
  body: (db: Sandbox, ...args: A) => unknown,
): (...args: A) => Promise<void>;
