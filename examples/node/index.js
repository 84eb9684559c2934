// The entry for `import`. The code is in CommonJS, which jest loads without options, so that both
// entries share one server process.
export { Sandbox, SandboxError, sandbox, withSandbox } from './lib/index.cjs';
