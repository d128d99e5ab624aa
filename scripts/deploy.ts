/**
 * Plain files for `kubectl apply -f`, made from the overlays: `deploy/overlays/NAME` to `deploy/generated/NAME.yaml`.
 *
 *     npm run deploy
 *
 * @module
 */

import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { kubectlPath } from './kubectl.ts';

const DEPLOY = fileURLToPath(new URL('../deploy', import.meta.url));

/** Names of the overlays, sorted. */
export function overlays(): readonly string[] {
  return readdirSync(`${DEPLOY}/overlays`).sort();
}

/** Path of the plain file of an overlay. */
export function generatedPath(overlay: string): string {
  return `${DEPLOY}/generated/${overlay}.yaml`;
}

/**
 * Builds an overlay by `kubectl kustomize`.
 *
 * @returns The objects as YAML documents.
 * @throws {Error} If kustomize refuses it; the message has what it said.
 */
export function buildOverlay(overlay: string): string {
  const { status, stdout, stderr, error } = spawnSync(kubectlPath(), ['kustomize', `${DEPLOY}/overlays/${overlay}`], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`Cannot build the overlay ${overlay}: ${stderr || error?.message}`);
  return `# Made by \`npm run deploy\` from deploy/overlays/${overlay}: change that, not this.\n${stdout}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  mkdirSync(`${DEPLOY}/generated`, { recursive: true });
  for (const overlay of overlays()) writeFileSync(generatedPath(overlay), buildOverlay(overlay));
}
