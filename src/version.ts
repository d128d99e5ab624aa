/**
 * What this build is.
 *
 * @module
 */

import { readFileSync } from 'node:fs';

/** The minor release of Kubernetes whose kube-proxy this program stands in for. */
export const KUBERNETES_MINOR = 36;

let known: string | undefined;

/** Version from package.json, read at the first call. */
export function version(): string {
  if (known === undefined) {
    const manifest: unknown = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
    const found = typeof manifest === 'object' && manifest !== null && 'version' in manifest ? manifest.version : '';
    if (typeof found !== 'string' || found === '') {
      throw new TypeError('Cannot read the version: package.json has none, it must be a string');
    }
    known = found;
  }
  return known;
}

/** The one line that `--version` prints. */
export function versionLine(): string {
  return `switchyard ${version()} (kube-proxy 1.${KUBERNETES_MINOR})`;
}

/** What this build is and what it runs on, as data. */
export function versionInfo() {
  return {
    version: version(),
    kubeProxy: `1.${KUBERNETES_MINOR}`,
    node: process.versions.node,
    platform: `${process.platform}/${process.arch}`,
  };
}

const GO_ARCH: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386' };

/** How this program names itself to the API server: `switchyard/0.1.0 (linux/amd64)`. */
export function userAgent(): string {
  return `switchyard/${version()} (${process.platform}/${GO_ARCH[process.arch] ?? process.arch})`;
}

/**
 * The labels of `kubernetes_build_info`: the release stood in for, with our version as its build. What only a Go build
 * has is empty.
 */
export function kubernetesBuild() {
  return {
    major: '1',
    minor: String(KUBERNETES_MINOR),
    git_version: `v1.${KUBERNETES_MINOR}.0+switchyard.${version()}`,
    git_commit: '',
    git_tree_state: '',
    build_date: '',
    go_version: '',
    compiler: `node${process.versions.node}`,
    platform: `${process.platform}/${GO_ARCH[process.arch] ?? process.arch}`,
  };
}
