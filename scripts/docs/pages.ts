/**
 * Which pages are generated.
 *
 * @module
 */

import { cliPage } from './cli.ts';
import { metricsPage } from './metrics.ts';

/** Path from the root of the repository → its text. */
export const PAGES: Readonly<Record<string, () => string | Promise<string>>> = {
  'docs/cli.md': cliPage,
  'docs/metrics.md': metricsPage,
};
