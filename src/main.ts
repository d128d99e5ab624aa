/**
 * Entry of the program `switchyard`. Compiled code is kept beside the installed packages: sources are TypeScript, and
 * stripping their types at every start would cost a second of CPU and 30 MB resident (docs/decisions/0006).
 *
 * @module
 */

import { enableCompileCache, flushCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';

// Not the default folder below /tmp: what is in the cache is run, so nobody else may write there.
enableCompileCache(fileURLToPath(new URL('../node_modules/.cache/switchyard', import.meta.url)));

/** By then every module is loaded. A daemon that is killed would leave nothing to the next start otherwise. */
const FLUSH_MS = 5_000;
setTimeout(flushCompileCache, FLUSH_MS).unref();

await import('./cli/entry.ts');
